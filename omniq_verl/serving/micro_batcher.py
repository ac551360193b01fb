"""Collect single images into batches for a scorer that accepts many at once."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from omniq_verl.scoring.scorer import Score

_AT_ONCE = 16
"""Largest batch for RALI: the batch size of figure 6 in its paper."""


class BatchScorer(Protocol):
    """A scorer of many images at once; ``RaliScorer`` is one."""

    def score(self, images: Sequence[bytes]) -> list[Score]: ...


class Batches:
    """Micro-batching in front of a ``BatchScorer``: images that arrive during a batch form the next one.

    Args:
        scorer: scores a batch; called in a thread.
        at_once: maximum batch size.
    """

    def __init__(self, scorer: BatchScorer, at_once: int = _AT_ONCE):
        self._scorer, self._at_once = scorer, at_once
        self._waiting: list[tuple[bytes, asyncio.Future[Score]]] = []
        self._running: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1)

    async def score(self, data: bytes) -> Score:
        """Score an image.

        Raises:
            Exception: any error of the scorer, raised for every image of the batch.
        """
        found: asyncio.Future[Score] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, found))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        return await found

    async def _work(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[: self._at_once], self._waiting[self._at_once :]
            some = [(data, found) for data, found in some if not found.cancelled()]
            await self._run(some)

    async def _run(self, some: Sequence[tuple[bytes, "asyncio.Future[Score]"]]) -> None:
        images = [data for data, _ in some]
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._pool, self._scorer.score, images)
        except Exception as error:  # passed on to every caller of the batch
            scores = [error] * len(some)
        for (_, found), score in zip(some, scores, strict=True):
            if found.cancelled():
                continue
            if isinstance(score, Exception):
                found.set_exception(score)
            else:
                found.set_result(score)
