"""A server for one user in this process, without Ray. The model answers one question at a time."""

import asyncio
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn

from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.request import Answer, Engine, Request, Sampling, Tell, reads_scores, writes
from omniq_verl.serving.admission import Admission
from omniq_verl.serving.app import build_app
from omniq_verl.serving.async_scorer import AsyncScorer
from omniq_verl.serving.settings import ServerSettings
from omniq_verl.serving.state import Models, Server


class InThread:
    """A ``WritingEngine`` that runs another engine in a thread, so the page stays responsive.

    A running question is finished even if its caller has left; only an answer that is streamed stops then. An engine
    that cannot stream returns its answers as a whole.

    Args:
        engine: the engine that answers the questions.
    """

    def __init__(self, engine: Engine):
        self._engine, self._pool = engine, ThreadPoolExecutor(1)

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        """Return ``sampling.n`` answers to one request.

        Raises:
            ValueError: the request is rejected.
            RuntimeError: the engine has failed.
        """
        asked = asyncio.get_running_loop().run_in_executor(self._pool, self._engine.answer, [request], sampling)
        return (await asked)[0]

    @property
    def reads_scores(self) -> bool:
        """Whether the engine accepts requests with ``texts``."""
        return reads_scores(self._engine)

    async def write(self, request: Request, sampling: Sampling, tell: Tell) -> list[Answer]:
        """Like ``answer``, but for one answer, and with ``tell`` called for each of its parts.

        Raises:
            ValueError: the request is rejected.
            RuntimeError: the engine has failed.
        """
        if not writes(self._engine):
            return await self.answer(request, sampling)
        engine: Any = self._engine
        loop, stopped = asyncio.get_running_loop(), threading.Event()
        work = partial(engine.write, request, sampling, partial(loop.call_soon_threadsafe, tell), stopped)
        try:
            return await loop.run_in_executor(self._pool, work)
        finally:
            stopped.set()

    async def check(self) -> None:
        """Do nothing: the engine is in this process and cannot die alone."""


def in_process_app(settings: ServerSettings) -> Any:
    """Build the application of ``omniq serve``, with a model in this process.

    Args:
        settings: the server's settings. ``model`` must be given, with a ``kind`` that ``open_engine`` knows.

    Raises:
        ValueError: no model is given, or it is not safe to open.
    """
    if settings.model is None:
        raise ValueError("there is no model to open. Fix: give ServerSettings a model")
    engine = InThread(open_engine(settings.model))
    read = (settings.family, settings.mode)
    models = Models(AsyncScorer(engine, settings.max_tokens, settings.seed, settings.limits.pixels, *read))
    room = Admission(settings.limits.waiting)
    return build_app(Server(models, settings.limits, room, settings.keys, settings.local, settings.scale))


def run_app(app: Any, host: str, port: int, started: Callable[[], None]) -> None:
    """Serve an application until SIGTERM or SIGINT; both end the process within seconds.

    Args:
        app: ASGI application.
        host: address to listen on.
        port: port to listen on.
        started: called once, as soon as the server accepts requests.
    """

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)
    server = Announced(config)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after it has stopped, unless a shell had it ignored
        server.run()
    if server.started and server.should_exit:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)  # Python itself would wait for the answer that a thread is writing
