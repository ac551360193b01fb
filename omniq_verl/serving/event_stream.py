"""Server-sent events: the parts of answers as they are written, and then the response itself.

If the client disconnects, the answer is cancelled.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from omniq_verl.data.files import whole_text
from omniq_verl.generation.request import Piece
from omniq_verl.serving.async_scorer import Shown
from omniq_verl.serving.request_parsing import BadRequest
from omniq_verl.serving.schemas import PieceEvent

EVENTS = "text/event-stream"
Work = Callable[[Shown], Awaitable[BaseModel]]
"""Function that answers a request, and shows the parts of its answers as they are written."""


class EventStream(StreamingResponse):
    """Sends events ``piece``, and at the end ``result`` with the body of the plain response, or ``error``.

    Args:
        room: capacity that is held until the last event. It may raise before anything is sent, so the HTTP status
            reports the error.
        work: answers the request.
    """

    def __init__(self, room: AbstractContextManager[None], work: Work):
        super().__init__(self._events(work), media_type=EVENTS, headers={"Cache-Control": "no-store"})
        self._room = room
        self._running: asyncio.Future[BaseModel] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._room:
            try:
                await super().__call__(scope, receive, send)
            finally:  # also if the client disconnects while an event is sent
                if self._running is not None:
                    self._running.cancel()

    async def _events(self, work: Work) -> AsyncIterator[str]:
        pieces: asyncio.Queue[BaseModel | None] = asyncio.Queue()
        self._running = asyncio.ensure_future(work(lambda *piece: pieces.put_nowait(_piece(*piece))))
        self._running.add_done_callback(lambda _: pieces.put_nowait(None))
        while (piece := await pieces.get()) is not None:
            yield event("piece", piece.model_dump())
        try:
            yield event("result", (await self._running).model_dump())
        except BadRequest as error:
            yield event("error", {"status": error.status, "detail": str(error)})
        except HTTPException as error:
            yield event("error", {"status": error.status_code, "detail": error.detail})


def _piece(index: int, name: str, piece: Piece) -> PieceEvent:
    entropy = None if piece.entropy is None else list(piece.entropy)
    text, surprise = whole_text(piece.text), list(piece.surprise)
    return PieceEvent(index=index, name=name, text=text, surprise=surprise, entropy=entropy)


def event(name: str, data: Any) -> str:
    """Format one event for sending. JSON contains no line feeds, which would end the data."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
