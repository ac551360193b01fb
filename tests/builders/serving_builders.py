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

from omniq_verl.families.family import Family
from omniq_verl.generation.expectation import Expectation
from omniq_verl.generation.request import Answer, Piece, Request, Sampling, Tell, expected_answer
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


class Writer(AsyncRater):
    """An ``AsyncRater`` that shows its answers word by word; the n-th word, from 0, has an entropy of n / 4 nats.

    Scripts: "surprise": it gives no entropies; "endless": it writes until its caller leaves, which sets ``left``.
    """

    def __init__(self, spec: EngineSpec):
        super().__init__(spec)
        self.left = threading.Event()

    async def write(self, request: Request, sampling: Sampling, tell: Tell) -> list[Answer]:
        answers = await self.answer(request, sampling)
        words = answers[0].text.replace(" ", " |").split("|")
        try:
            while True:
                for number, word in enumerate(words):
                    entropy = None if self.script == "surprise" else (number / 4,)
                    tell(Piece(word, (number / 2,), entropy))
                    await asyncio.sleep(0.01)
                if self.script != "endless":
                    return answers
        except asyncio.CancelledError:
            self.left.set()
            raise


class DirectRater(AsyncRater):
    """An ``AsyncRater`` that also reads scores: half of the probability each at both ends of the scale."""

    reads_scores = True

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        if request.texts is None:
            return await super().answer(request, sampling)
        values = [value for _, value in request.texts.values]
        middle, spread = (min(values) + max(values)) / 2, (max(values) - min(values)) / 2
        return [expected_answer(Expectation(middle, spread, 0.125, None, 1), request.texts)]


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


def server(
    script: str = "",
    limits: Limits | None = None,
    rali: Greys | None = None,
    rater: type[AsyncRater] = AsyncRater,
    read: tuple[Family | None, str | None] = (None, None),
    **settings,
) -> Server:
    """A server of stand-ins: ``rater`` by this script, and ``rali`` beside it where it is given.

    ``read`` is the family and the mode of the reasoning model.
    """
    limits = limits or Limits()
    models = Models(AsyncScorer(rater(EngineSpec(script)), 64, 0, limits.pixels, *read))
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
