"""Keeps an engine that runs step by step supplied with prepared requests."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Lock
from typing import Any, Protocol

from omniq_verl.generation.request import Answer, Job, Request
from omniq_verl.generation.streaming import Limits, ReadAhead, run_job

Outcome = list[Any] | ValueError
"""The answers to each request of a job, or why the request was rejected; or the error that the job raised."""


class StepEngine(Protocol):
    """An engine that generates one token per request and step."""

    def add(self, request_id: str, prepared: Any) -> None:
        """Add a prepared request.

        Raises:
            ValueError: it is rejected.
            RuntimeError: the engine has failed.
        """

    def step(self) -> Iterable[tuple[str, list[Answer]]]:
        """Run a step; returns ids and answers of the requests that it finished.

        Raises:
            RuntimeError: the engine has failed.
        """
        ...

    def drop(self, request_ids: Sequence[str]) -> None:
        """Cancel unfinished requests."""


class Prepare(Protocol):
    """Prepares all requests of a job, so that shared parts are prepared once. Called in threads."""

    def __call__(self, requests: Sequence[Request]) -> tuple[list[Any], int]:
        """For each request the engine's input or a ``ValueError``; and the total number of pixels."""
        ...


@dataclass(frozen=True)
class Room:
    """Limits on what an engine holds, in pixels of its images. All values are our choice."""

    most: int = 2**28
    """Limit within the engine. vLLM takes some 25 bytes per pixel: 7 GB, or 340 photographs of 1024 x 768 (KonIQ)."""
    joining: int = 2**23
    """Limit of what joins before each step, about as much as one step can prefill."""
    ahead: int = 2**26
    """Limit of what is prepared and waiting for the engine: 85 photographs of 1024 x 768, 1.7 GB."""
    jobs_ahead: int = 128
    """Limit on the number of jobs that are prepared and waiting."""
    each: int = 2**15
    """Added to the pixels of every request, so that the limits also bound small images and requests without any."""


@dataclass
class Spent:
    """How an engine's time has been spent so far, in seconds."""

    preparing: float = 0.0
    """CPU time of the preparing threads."""
    waiting: float = 0.0
    """Time the engine was idle because the next request was not prepared."""
    engine: float = 0.0
    """Time the engine accepted requests or generated."""


@dataclass
class _Asked:
    """A job and the state of its requests."""

    outcome: Outcome
    """Initially the engine's input for each request."""
    size: int = 0
    seconds: float = 0.0
    """CPU time of the thread that prepared it."""
    unfinished: dict[str, int] = field(default_factory=dict)
    """Ids of requests in the engine, with their indices into ``outcome``."""


class Feeder:
    """Feeds an engine from threads that prepare requests while it generates.

    Which requests are in the engine at each step depends only on the requests, not on how long their preparation
    took. So if requests that share a batch change the last bits of a sum, they do so identically in every run.

    Several streams may be open at once, also in several threads; they share the engine's steps.

    Args:
        engine: called by one thread at a time.
        threads: number of preparing threads of each stream.
        room: limits on what the engine holds.
    """

    def __init__(self, engine: StepEngine, threads: int, room: Room | None = None):
        self._engine, self._threads, self._room = engine, threads, room or Room()
        self._ids = count()
        self._asked: dict[str, _Asked] = {}
        self._held = 0
        self._abandoned: deque[_Asked] = deque()
        self._failure: str | None = None
        self._lock = Lock()
        self.spent = Spent()

    def stream(self, jobs: Iterable[Job], prepare: Prepare) -> Generator[Outcome, None, None]:
        """The outcome of each job, in the order of the jobs.

        Raises:
            RuntimeError: the engine has failed, in this stream or earlier.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            work = partial(self._prepare, prepare)
            limits = Limits(items=self._room.jobs_ahead, size=self._room.ahead)
            prepared = ReadAhead(pool, work, jobs, lambda asked: asked.size, limits)
            under_way: deque[_Asked] = deque()
            try:
                more = True
                while more or under_way:
                    more = self._admit(prepared, under_way)
                    while under_way and not under_way[0].unfinished:
                        yield under_way.popleft().outcome
                    self._step(under_way)
            finally:
                prepared.close()
                self._abandon(under_way)

    def _prepare(self, prepare: Prepare, job: Job) -> _Asked:
        start = time.thread_time()
        requests = run_job(job)
        if isinstance(requests, ValueError):
            return _Asked(requests, self._room.each)
        prepared, pixels = prepare(requests)
        return _Asked(prepared, pixels + self._room.each * len(requests), time.thread_time() - start)

    def _admit(self, prepared: Iterator[_Asked], under_way: deque[_Asked]) -> bool:
        """Let jobs join the engine; returns whether there may be more.

        Waits for jobs that are not prepared yet. Otherwise the speed of the threads would determine which requests
        share a batch.
        """
        joined = 0
        while joined < self._room.joining and self._held < self._room.most:
            start = time.perf_counter()
            asked = next(prepared, None)
            self.spent.waiting += time.perf_counter() - start
            if asked is None:
                return False
            self.spent.preparing += asked.seconds
            under_way.append(asked)
            start = time.perf_counter()
            with self._lock:
                self._join(asked)
            self.spent.engine += time.perf_counter() - start
            joined += asked.size
        return True

    def _join(self, asked: _Asked) -> None:
        if isinstance(asked.outcome, ValueError):
            return
        self._held += asked.size
        for index, prepared in enumerate(asked.outcome):
            if isinstance(prepared, ValueError):
                continue
            request_id = str(next(self._ids))
            try:
                with self._noting_failures():
                    self._engine.add(request_id, prepared)
            except ValueError as error:
                asked.outcome[index] = error
            else:
                asked.outcome[index] = None
                asked.unfinished[request_id] = index
                self._asked[request_id] = asked
        if not asked.unfinished:
            self._held -= asked.size

    def _step(self, under_way: Sequence[_Asked]) -> None:
        """One step of the engine, if this stream needs one: its next job is unfinished, or others fill the engine.

        Answers go to their jobs, also to those of other streams.
        """
        with self._lock:
            self._drop_abandoned()
            if not self._asked or (under_way and not under_way[0].unfinished):
                return
            start = time.perf_counter()
            with self._noting_failures():
                finished = self._engine.step()
            self.spent.engine += time.perf_counter() - start
            for request_id, answers in finished:
                asked = self._asked.pop(request_id, None)
                if asked and not isinstance(asked.outcome, ValueError):
                    asked.outcome[asked.unfinished.pop(request_id)] = answers
                    self._held -= 0 if asked.unfinished else asked.size

    @contextmanager
    def _noting_failures(self) -> Iterator[None]:
        if self._failure:
            raise RuntimeError(f"the engine has failed before ({self._failure}). Fix: open the model again")
        try:
            yield
        except ValueError:  # a rejected request
            raise
        except BaseException as error:  # an interrupted step leaves half-written caches behind
            self._failure = str(error) or type(error).__name__
            raise

    def _abandon(self, under_way: Iterable[_Asked]) -> None:
        """Remove the unfinished jobs of a stream that ends early from the engine."""
        self._abandoned.extend(asked for asked in under_way if asked.unfinished)
        # A stream may end by garbage collection, in the middle of another one's step. Then the next step removes them.
        if self._lock.acquire(blocking=False):
            try:
                self._drop_abandoned()
            finally:
                self._lock.release()

    def _drop_abandoned(self) -> None:
        while self._abandoned:
            asked = self._abandoned.popleft()
            gone = [request_id for request_id in asked.unfinished if self._asked.pop(request_id, None)]
            self._held -= asked.size if gone else 0
            if gone and not self._failure:
                self._engine.drop(gone)
