"""ASGI middleware: which addresses may connect, and what happens when a client leaves."""

import asyncio
from collections.abc import Collection

import psutil
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def own_addresses() -> frozenset[str]:
    """Return all IP addresses of this machine."""
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


class CancelOnDisconnect:
    """ASGI middleware that cancels a request when its client disconnects, so the engine stops working on it."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watched = _Watched(receive, send)
        running = asyncio.ensure_future(self._app(scope, watched.receive, watched.send))
        watching = asyncio.ensure_future(watched.watch())
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            await (watching if watching.done() and not watched.answered else running)
        finally:
            watching.cancel()
            running.cancel()
            # Nobody needs an error that the application raises after its client has disconnected.
            await asyncio.gather(running, watching, return_exceptions=True)


class _Watched:
    """The channels of one request. It reads what follows the body and tells the application of a disconnect."""

    def __init__(self, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        self._whole, self._left = asyncio.Event(), asyncio.Event()
        self.answered = False

    async def receive(self) -> Message:
        if self._whole.is_set():
            await self._left.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if not message.get("more_body"):  # the last part of the body, or the client has disconnected before it
            self._whole.set()
        if message["type"] == "http.disconnect":
            self._left.set()
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        self.answered |= message["type"] == "http.response.body" and not message.get("more_body")

    async def watch(self) -> None:
        """Return when the client has disconnected."""
        await self._whole.wait()
        while not self._left.is_set():
            if (await self._receive())["type"] == "http.disconnect":
                self._left.set()
