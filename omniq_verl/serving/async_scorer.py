"""The reasoning model behind a server: independent concurrent requests share the engine's batches."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from omniq_verl.data.images import BadImage, check_pixels
from omniq_verl.families.family import Family, read_strictly
from omniq_verl.generation.direct import BOTH, MODES, check_mode, check_reads_scores, score_texts
from omniq_verl.generation.expectation import ScoreTexts
from omniq_verl.generation.request import (
    ERROR,
    Answer,
    AsyncEngine,
    Piece,
    Request,
    Sampling,
    Tell,
    reads_scores,
    writes,
)
from omniq_verl.scoring.comparison import Comparison, combine_orders, comparison_requests
from omniq_verl.scoring.image_inputs import digest_of, load_source
from omniq_verl.scoring.scorer import BAD_IMAGE, Score, score_request, summarise
from omniq_verl.serving.request_parsing import File
from omniq_verl.tasks import ForbiddenText, Task

Found = TypeVar("Found")
Named = Callable[[str, Piece], None]
Shown = Callable[[int, str, Piece], None]
"""Callback for the parts of an answer. It gets the index of the image or pair, the task or the order, and the part."""


class AsyncScorer:
    """Async counterpart of ``Scorer`` and ``Comparer`` for independent concurrent callers.

    Args:
        engine: engine of the model.
        max_tokens: maximum length of an answer.
        seed: seed of sampled answers.
        pixels: maximum number of pixels of an image.
        family: the model's family, if it is not one of this package; its wording and parser are used.
        mode: how scores are obtained unless a request says otherwise: ``reason``, ``direct`` or ``both``.

    Raises:
        ValueError: the engine or the family does not support the mode.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        max_tokens: int,
        seed: int,
        pixels: int,
        family: Family | None = None,
        mode: str | None = None,
    ):
        self.engine, self.max_tokens, self.seed, self._pixels = engine, max_tokens, seed, pixels
        self.family = family
        self.mode = mode or ("reason" if family is None else family.mode)
        for one in modes_of(self.mode):
            self.check_mode(one)
        self._pool = ThreadPoolExecutor(4)

    @property
    def modes(self) -> list[str]:
        """Return the modes that a request can ask for: ``reason``, ``direct``, and ``both`` if both are available."""
        found = [one for one in MODES if self.family is None or one in self.family.modes]
        found = [one for one in found if one != "direct" or reads_scores(self.engine)]
        return [*found, BOTH] if found == list(MODES) else found

    def check_mode(self, mode: str) -> None:
        """Check that this model can give scores in a mode.

        Raises:
            ValueError: the mode is unknown, or the engine or the family does not support it.
        """
        check_mode(mode)
        if self.family is not None:
            self.family.check_mode(mode)
        if mode == "direct":
            check_reads_scores(self.engine, "of this server")

    async def score(
        self,
        files: Sequence[File],
        tasks: Sequence[Task],
        prompts: Sequence[str | None],
        samples: int,
        temperature: float,
        mode: str = "reason",
        tell: Shown | None = None,
    ) -> list[dict[str, Score]]:
        """Return the scores of each image by task.

        Args:
            files: the images.
            tasks: tasks to ask about each image.
            prompts: the text of each image, or None.
            samples: answers per image; 1 in the mode ``direct``.
            temperature: sampling temperature if ``samples`` > 1.
            mode: ``reason`` or ``direct``.
            tell: called with the parts of each answer, if the engine can show them and ``samples`` is 1.

        Raises:
            RuntimeError: the engine has failed.
        """
        sampling = Sampling(samples, temperature if samples > 1 else 0.0, max_tokens=self.max_tokens)
        return await _all(
            self._score(file, tasks, prompt, sampling, mode, _numbered(tell, number))
            for number, (file, prompt) in enumerate(zip(files, prompts, strict=True))
        )

    async def _score(
        self, file: File, tasks: Sequence[Task], prompt: str | None, sampling: Sampling, mode: str, tell: Named | None
    ) -> dict[str, Score]:
        try:
            data, digest = await self._in_thread(self._load_hashed, file, sampling.n > 1)
        except BadImage as error:
            return {task.name: Score(file.name, task.name, BAD_IMAGE, error=str(error)) for task in tasks}
        try:
            requests = [self.request(file.name, data, digest, task, prompt, mode) for task in tasks]
        except ForbiddenText as error:
            return {task.name: Score(file.name, task.name, ERROR, error=str(error)) for task in tasks}
        answers = await _all(
            self._answer(request, sampling, tell and partial(tell, task.name))
            for request, task in zip(requests, tasks, strict=True)
        )
        return {task.name: self.read(file.name, task, found) for task, found in zip(tasks, answers, strict=True)}

    def request(
        self, name: str, data: bytes, digest: str, task: Task, prompt: str | None, mode: str, seed: int | None = None
    ) -> Request:
        """Build the request about one image in the same way as ``Scorer``; see ``score_request``.

        Raises:
            ForbiddenText: the prompt contains control tokens.
        """
        asked = score_request(name, data, digest, task, prompt, self.seed if seed is None else seed)
        return replace(asked, texts=self.texts(task)) if mode == "direct" else asked

    def texts(self, task: Task) -> ScoreTexts:
        """Return the texts that stand for the scores of a task in the mode ``direct``.

        Raises:
            ValueError: the task does not ask for a score.
        """
        return score_texts(task) if self.family is None or task.scale is None else self.family.texts(task)

    def read(self, name: str, task: Task, answers: Sequence[Answer]) -> Score:
        """Combine the answers about one image into its score, with the family's parser."""
        return summarise(name, task, answers, read_strictly if self.family is None else self.family.read)

    async def compare(
        self,
        pairs: Sequence[tuple[File, File, File | None]],
        samples: int,
        temperature: float,
        tell: Shown | None = None,
    ) -> list[Comparison]:
        """Pick the better image of each pair; each pair is asked in both orders.

        Raises:
            RuntimeError: the engine has failed.
        """
        sampling = Sampling(samples, temperature if samples > 1 else 0.0, max_tokens=self.max_tokens)
        return await _all(self._compare(*pair, sampling, _numbered(tell, number)) for number, pair in enumerate(pairs))

    async def _compare(
        self, a: File, b: File, reference: File | None, sampling: Sampling, tell: Named | None
    ) -> Comparison:
        try:
            load = partial(self._in_thread, self._load)
            shown = await load(a), await load(b), await load(reference) if reference else None
        except BadImage as error:
            return Comparison(a.name, b.name, BAD_IMAGE, error=str(error))
        requests = await self._in_thread(lambda: list(comparison_requests(*shown, self.seed, sampling.n > 1)))
        answers = await _all(
            self._answer(request, sampling, tell and partial(tell, request.key.lower())) for request in requests
        )
        return combine_orders(a.name, b.name, *answers)

    async def ask(
        self, files: Sequence[File], build: Callable[[Sequence[bytes], str], Request], sampling: Sampling
    ) -> list[Answer]:
        """Return the answers to one question about all of these images.

        Args:
            files: the images.
            build: builds the request from the images' contents and the digest that seeds its answers.
            sampling: how to generate the answers.

        Raises:
            BadImage: an image is rejected; the message names it.
            ForbiddenText: the question contains control tokens.
            RuntimeError: the engine has failed.
        """
        loaded = [await self._in_thread(self._load_named, file, sampling.temperature > 0) for file in files]
        digest = "/".join(digest for _, digest in loaded)
        return await self._answer(build([data for data, _ in loaded], digest), sampling)

    def _load_named(self, file: File, sampled: bool) -> tuple[bytes, str]:
        try:
            return self._load_hashed(file, sampled)
        except BadImage as error:
            raise BadImage(f"{file.name}: {error}") from error

    def _load(self, file: File) -> bytes:
        return load_within(file.data, self._pixels)

    def _load_hashed(self, file: File, sampled: bool) -> tuple[bytes, str]:
        data = self._load(file)
        return data, digest_of(data, sampled)

    async def _in_thread(self, work: Callable[..., Found], *words: Any) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *words)

    async def _answer(self, request: Request, sampling: Sampling, tell: Tell | None = None) -> list[Answer]:
        try:
            if tell is not None and request.texts is None and sampling.n == 1 and writes(self.engine):
                return await self.engine.write(request, sampling, tell)
            return await self.engine.answer(request, sampling)
        except ValueError as error:
            return [Answer(f"{type(error).__name__}: {error}", ERROR)] * sampling.n


def modes_of(mode: str) -> tuple[str, ...]:
    """Return the single modes that ``mode`` stands for; ``both`` stands for two."""
    return MODES if mode == BOTH else (mode,)


def _numbered(tell: Shown | None, number: int) -> Named | None:
    return None if tell is None else partial(tell, number)


def load_within(data: bytes, pixels: int) -> bytes:
    """Decode an image with the same rules as in training.

    Raises:
        BadImage: the image breaks these rules or has more than ``pixels`` pixels.
    """
    check_pixels(data, pixels)
    return load_source(data)


async def _all(awaited: Iterable[Coroutine[Any, Any, Found]]) -> list[Found]:
    """Await all and return the results in order; if one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in awaited]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
