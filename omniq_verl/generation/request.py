"""Requests to a model and its answers, for any engine."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol, TypeGuard

from omniq_verl.generation.expectation import Expectation, ScoreTexts
from omniq_verl.tasks.outside_text import FIX, ForbiddenText, messages_fault

DONE, LENGTH, ERROR = "stop", "length", "error"
"""Why an answer ended: on its own, at ``max_tokens``, or by an error."""


@dataclass(frozen=True)
class Sampling:
    """How to generate answers; temperature 0 is greedy."""

    n: int = 1
    """Answers per request; sampled ones have the seeds ``request.seed + 0 .. n - 1``."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_tokens < 1 or not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise ValueError(
                f"n and max_tokens must be >= 1, temperature >= 0 and finite, top_p in (0, 1]; got {asdict(self)}"
            )
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"{self.n} answers at temperature 0 would all be the same; give a temperature or n=1")


@dataclass(frozen=True)
class Request:
    """One question.

    Raises:
        ForbiddenText: it contains control tokens of a model, or the numbers of placeholders and images differ. Engines
            with a tokenizer check its token ids, too.
    """

    key: str
    """Permanent name of the request, independent of run, order and batch."""
    messages: Sequence[Mapping[str, str]]
    """Messages as in a row's ``prompt``: each ``<image>`` stands for the next one of ``images``."""
    images: tuple[bytes, ...] = ()
    """Contents of image files."""
    seed: int = 0
    texts: ScoreTexts | None = None
    """Texts that represent scores: the engine returns their expected value and generates nothing (``reads_scores``)."""

    def __post_init__(self) -> None:
        # A question without images may quote another one's placeholders; the engine then counts them.
        if fault := messages_fault(self.messages, len(self.images) or None):
            raise ForbiddenText(f"{fault}. Fix: {FIX}")


@dataclass(frozen=True)
class Answer:
    """One of a request's answers."""

    text: str
    finish_reason: str = DONE
    tokens: int = 0
    """Generated tokens; for an expected value, the next-token distributions that it took."""
    std: float | None = None
    """Standard deviation of an expected value; None for generated text."""
    outside: float | None = None
    """Probability outside the score texts of an expected value; None for generated text."""


Job = Callable[[], Sequence[Request]]
"""Makes the requests about one image or one pair of images. A job runs in a thread and may read files. It raises
``ValueError`` (or its subclass ``BadImage``) if there is nothing to ask."""
Answered = list[list[Answer]] | ValueError
"""The answers to each request of a job, or the error that the job raised."""


@dataclass(frozen=True)
class Piece:
    """A part of an answer, as it is written: the text of one token, or of several that share a character."""

    text: str
    surprise: tuple[float, ...]
    """For each token, minus the logarithm of its probability, in nats, at least 0."""
    entropy: tuple[float, ...] | None = None
    """For each token, the entropy of the distribution over the whole vocabulary from which it was chosen, in nats.
    None: the engine does not compute it. Both figures are of the model itself, before temperature and bans."""


Tell = Callable[[Piece], None]
"""Called with each part of an answer, in order."""


class Engine(Protocol):
    """Answers requests.

    If it also has a method ``close`` without arguments, that is called once no more requests come (``close_engine``).
    """

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """``sampling.n`` answers to each request, in the order of the requests.

        Raises:
            ValueError: the engine rejects one of the requests; then it answers none of them.
        """
        ...


def close_engine(engine: Engine) -> None:
    """Close an engine that has a method for it; one of vLLM keeps its GPU memory until then."""
    close = getattr(engine, "close", None)
    if callable(close):
        close()


class StreamingEngine(Engine, Protocol):
    """An engine that prepares requests while it answers earlier ones."""

    def stream(self, jobs: Iterable[Job], sampling: Sampling) -> Iterator[Answered]:
        """The outcome of each job, in order; jobs are taken from the iterable as needed.

        A request that the engine rejects gets answers with ``finish_reason`` "error" and the reason as their text.

        Raises:
            RuntimeError: the engine has failed.
        """
        ...


class AsyncEngine(Protocol):
    """Answers single requests, many of them concurrently."""

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        """``sampling.n`` answers to one request.

        Raises:
            ValueError: the request is rejected.
            RuntimeError: the engine has failed.
        """
        ...

    async def check(self) -> None:
        """Check that the engine is alive.

        Raises:
            RuntimeError: it is not.
        """


class WritingEngine(AsyncEngine, Protocol):
    """An engine that also shows an answer while it is written."""

    async def write(self, request: Request, sampling: Sampling, tell: Tell) -> list[Answer]:
        """As ``answer`` with ``sampling.n`` 1; ``tell`` gets the answer's parts. If the caller is cancelled, the engine
        stops writing.

        Raises:
            ValueError: the request is rejected.
            RuntimeError: the engine has failed.
        """
        ...


def writes(engine: Any) -> TypeGuard[WritingEngine]:
    """Is the engine a ``WritingEngine``?"""
    return callable(getattr(engine, "write", None))


def seed_of(key: str, seed: int = 0) -> int:
    """A request's own seed, below 2**31, independent of batch, shard and order.

    Args:
        key: the request's key.
        seed: the run's seed.
    """
    digest = hashlib.blake2b(f"{seed}/{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31


def answer_each(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
    """Like ``engine.answer``, but a rejected request does not affect the others.

    Its answers have the ``finish_reason`` "error" and the reason as their text. An engine that cannot stream raises
    ``ValueError`` for a whole batch if one prompt is too long. The batch is then halved until that prompt is alone.
    """
    return list(each_answered(engine, requests, sampling))


def each_answered(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Answer]]:
    """Like ``answer_each``, as an iterator: yields single answers, or ``engine.at_once`` at a time."""
    if stream := getattr(engine, "stream", None):
        yield from (answers for (answers,) in stream([partial(only, request) for request in requests], sampling))
        return
    size = getattr(engine, "at_once", 0) or len(requests)
    for first in range(0, len(requests), max(size, 1)):
        yield from _together(engine, requests[first : first + size], sampling)


def _together(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
    try:
        return engine.answer(requests, sampling)
    except ValueError as error:  # other errors concern the engine, not a request
        if len(requests) == 1:
            return [rejection(error, sampling)]
        middle = len(requests) // 2
        halves = (requests[:middle], requests[middle:])
        return [answers for half in halves for answers in _together(engine, half, sampling)]


def expected_answer(found: Expectation, texts: ScoreTexts) -> Answer:
    """An expectation in the form of an answer; with no text where no score text has any probability."""
    if found.mean is None:
        return Answer("", tokens=found.read, outside=found.outside)
    return Answer(texts.written.format(f"{found.mean:.9f}"), DONE, found.read, found.std, found.outside)


def reads_scores(engine: Any) -> bool:
    """Does the engine take requests with ``texts``?"""
    return bool(getattr(engine, "reads_scores", False))


def only(request: Request) -> list[Request]:
    """A job with a single request."""
    return [request]


def rejection(error: ValueError, sampling: Sampling) -> list[Answer]:
    """The answers to a request that an engine rejects."""
    return [Answer(f"{type(error).__name__}: {error}", ERROR)] * sampling.n


def as_record(key: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """A finished request as the store keeps it."""
    return {"key": key, "answers": [_answer_record(answer) for answer in answers]}


def _answer_record(answer: Answer) -> dict[str, Any]:
    """Without what only an expectation has, where there is none."""
    return {name: value for name, value in asdict(answer).items() if value is not None}
