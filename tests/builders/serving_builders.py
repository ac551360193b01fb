"""A stand-in for a served reward model, where the test is of the server around it, and the server around that."""

import asyncio
import base64
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from evaluation_builders import Chooser, Rater, brightness
from PIL import Image

from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.scoring.scorer import Score
from omniq_verl.serving.admission import Admission
from omniq_verl.serving.app import build_app
from omniq_verl.serving.async_scorer import AsyncScorer
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.micro_batcher import Batches
from omniq_verl.serving.state import Models, Server

ASYNC_RATER, COUNTING_RATER = "serving_builders:AsyncRater", "serving_builders:CountingRater"


class AsyncRater:
    """``Rater`` and ``Chooser`` for questions that come one at a time.

    ``EngineSpec.model`` scripts it, as theirs; further: "waits" until ``go`` is set; "dead": has failed.
    """

    def __init__(self, spec: EngineSpec):
        self.script = spec.model
        self.go = asyncio.Event()
        self.given_up = 0
        self._rater, self._chooser = Rater(spec), Chooser(spec)

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        if self.script == "dead":
            raise RuntimeError("the engine's own words")
        if self.script == "waits":
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        rater = self._chooser if len(request.images) > 1 else self._rater
        return rater.answer([request], sampling)[0]

    async def check(self) -> None:
        if self.script == "dead":
            raise RuntimeError("the engine's own words")


class CountingRater(AsyncRater):
    """Writes a line into the file ``EngineSpec.model`` each time that it is opened."""

    def __init__(self, spec: EngineSpec):
        super().__init__(spec)
        with open(spec.model, "a") as log:
            log.write("opened\n")


class Greys:
    """A ``BatchScorer``: scores as ``Rater``; remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def score(self, images: list[bytes]) -> list[Score]:
        self.sizes.append(len(images))
        return [Score("", "technical", "ok", 1 + 4 * brightness(data), parsed=1, answers=1) for data in images]


def server(script: str = "", limits: Limits | None = None, rali: Greys | None = None, **settings) -> Server:
    """A server of stand-ins: ``AsyncRater`` by this script, and ``rali`` beside it where it is given."""
    limits = limits or Limits()
    models = Models(AsyncScorer(AsyncRater(EngineSpec(script)), 64, 0, limits.pixels))
    if rali is not None:
        models.rali, models.rali_task = Batches(rali), "technical"
    return Server(models, limits, Admission(limits.waiting), **settings)


def app(*args, **kwargs):
    """The application around it."""
    return build_app(server(*args, **kwargs))


def free_port() -> int:
    """One of this machine's that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def listening(asgi) -> Iterator[str]:
    """The address of an application that runs in a thread of this process."""
    import uvicorn

    running = uvicorn.Server(uvicorn.Config(asgi, port=0, log_level="error", timeout_keep_alive=60))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()


def grey(value: int, side: int = 16) -> bytes:
    """A PNG of one grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
