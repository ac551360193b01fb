"""Restricts which addresses may connect."""

from collections.abc import Collection

import psutil
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def own_addresses() -> frozenset[str]:
    """All IP addresses of this machine."""
    found = (one.address.partition("%")[0] for card in psutil.net_if_addrs().values() for one in card)
    return frozenset(found) | {"127.0.0.1", "::1"}


class OnlyFrom:
    """ASGI middleware that answers only these client addresses; all others get 403."""

    def __init__(self, app: ASGIApp, addresses: Collection[str]):
        self._app, self._addresses = app, addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = (scope.get("client") or ("",))[0]
        if scope["type"] == "http" and caller not in self._addresses:
            await PlainTextResponse("this server answers only requests from its own machine", 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)
