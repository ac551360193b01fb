"""Prepare requests in threads while earlier ones are answered, and return answers in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Condition
from typing import Generic, TypeVar

from omniq_verl.generation.request import Answered, Engine, Job, Request, Sampling, each_answered

Item = TypeVar("Item")
Made = TypeVar("Made")


def stream_answers(engine: Engine, jobs: Iterable[Job], sampling: Sampling, batch: int) -> Iterator[Answered]:
    """The outcome of each job, in order.

    Args:
        engine: any engine. One that cannot stream gets the requests of ``batch`` jobs at a time, while the jobs of the
            next batch run.
        jobs: the jobs.
        sampling: how to generate answers.
        batch: jobs per batch, if the engine cannot stream.
    """
    if stream := getattr(engine, "stream", None):
        yield from stream(jobs, sampling)
        return
    with ThreadPoolExecutor(cores()) as pool:
        source = iter(jobs)
        ahead = [pool.submit(run_job, job) for job in islice(source, batch)]
        while now := ahead:
            ahead = [pool.submit(run_job, job) for job in islice(source, batch)]
            yield from _answer_batch(engine, [future.result() for future in now], sampling)


def run_job(job: Job) -> Sequence[Request] | ValueError:
    """A job's requests, or the ``ValueError`` that it raised."""
    try:
        return job()
    except ValueError as error:
        return error


def _answer_batch(
    engine: Engine, made: Sequence[Sequence[Request] | ValueError], sampling: Sampling
) -> Iterator[Answered]:
    requests = [request for one in made if not isinstance(one, ValueError) for request in one]
    answers = each_answered(engine, requests, sampling)
    for one in made:
        yield one if isinstance(one, ValueError) else list(islice(answers, len(one)))


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Limits:
    """How far ``ReadAhead`` may be ahead of its consumer."""

    items: int
    """Number of items that are being made or waiting to be consumed."""
    size: int
    """Total size of the waiting items. Items that are being made, at most one per thread, are not included."""


class ReadAhead(Generic[Item, Made]):
    """Iterates over the results of ``make`` for each item; threads compute them ahead of the consumer.

    Args:
        pool: the threads; not shared with anything else, because they block when ``limits.size`` is reached.
        make: called with an item, in a thread. The consumer gets its exception instead of a result.
        items: taken one at a time, in the consumer's thread.
        size_of: the share of ``limits.size`` that a result takes.
        limits: how far to be ahead.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        make: Callable[[Item], Made],
        items: Iterable[Item],
        size_of: Callable[[Made], int],
        limits: Limits,
    ):
        self._pool, self._make, self._items = pool, make, enumerate(items)
        self._size_of, self._limits = size_of, limits
        self._ahead: deque[Future[Made]] = deque()
        self._consumed, self._waiting, self._closed = 0, 0, False
        self._room = Condition()

    def __iter__(self) -> Iterator[Made]:
        return self

    def __next__(self) -> Made:
        self._top_up()
        if not self._ahead:
            raise StopIteration
        size = 0
        try:
            made = self._ahead.popleft().result()
            size = self._size_of(made)
        finally:
            with self._room:
                self._consumed += 1
                self._waiting -= size
                self._room.notify_all()
        self._top_up()
        return made

    def close(self) -> None:
        """Start no further items; those in progress are finished."""
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()
        with self._room:
            self._closed = True
            self._room.notify_all()

    def _top_up(self) -> None:
        while len(self._ahead) < self._limits.items and (item := next(self._items, None)):
            self._ahead.append(self._pool.submit(self._work, *item))

    def _work(self, index: int, item: Item) -> Made:
        with self._room:
            # Never blocks the item that the consumer waits for.
            self._room.wait_for(lambda: self._closed or self._waiting < self._limits.size or index == self._consumed)
            if self._closed:
                raise CancelledError
        made = self._make(item)
        with self._room:
            self._waiting += self._size_of(made)
        return made
