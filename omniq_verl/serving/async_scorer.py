"""The reasoning model behind a server: independent concurrent requests share the engine's batches."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from omniq_verl.data.images import BadImage, check_pixels
from omniq_verl.generation.request import ERROR, Answer, AsyncEngine, Request, Sampling
from omniq_verl.scoring.comparison import Comparison, combine_orders, comparison_requests
from omniq_verl.scoring.image_inputs import digest_of, load_source
from omniq_verl.scoring.scorer import BAD_IMAGE, Score, score_request, summarise
from omniq_verl.serving.request_parsing import File
from omniq_verl.tasks import ForbiddenText, Task

Found = TypeVar("Found")


class AsyncScorer:
    """Async counterpart of ``Scorer`` and ``Comparer`` for independent concurrent callers.

    Args:
        engine: engine of the model.
        max_tokens: maximum length of an answer.
        seed: seed of sampled answers.
        pixels: maximum number of pixels of an image.
    """

    def __init__(self, engine: AsyncEngine, max_tokens: int, seed: int, pixels: int):
        self.engine, self.max_tokens, self.seed, self._pixels = engine, max_tokens, seed, pixels
        self._pool = ThreadPoolExecutor(4)

    async def score(
        self,
        files: Sequence[File],
        tasks: Sequence[Task],
        prompts: Sequence[str | None],
        samples: int,
        temperature: float,
    ) -> list[dict[str, Score]]:
        """Scores of each image by task.

        Raises:
            RuntimeError: the engine has failed.
        """
        sampling = Sampling(samples, temperature if samples > 1 else 0.0, max_tokens=self.max_tokens)
        return await _all(
            self._score(file, tasks, prompt, sampling) for file, prompt in zip(files, prompts, strict=True)
        )

    async def _score(
        self, file: File, tasks: Sequence[Task], prompt: str | None, sampling: Sampling
    ) -> dict[str, Score]:
        try:
            data, digest = await self._in_thread(self._load_hashed, file, sampling.n > 1)
        except BadImage as error:
            return {task.name: Score(file.name, task.name, BAD_IMAGE, error=str(error)) for task in tasks}
        try:
            requests = [score_request(file.name, data, digest, task, prompt, self.seed) for task in tasks]
        except ForbiddenText as error:
            return {task.name: Score(file.name, task.name, ERROR, error=str(error)) for task in tasks}
        answers = await _all(self._answer(request, sampling) for request in requests)
        return {task.name: summarise(file.name, task, found) for task, found in zip(tasks, answers, strict=True)}

    async def compare(
        self, pairs: Sequence[tuple[File, File, File | None]], samples: int, temperature: float
    ) -> list[Comparison]:
        """Pick the better image of each pair; each pair is asked in both orders.

        Raises:
            RuntimeError: the engine has failed.
        """
        sampling = Sampling(samples, temperature if samples > 1 else 0.0, max_tokens=self.max_tokens)
        return await _all(self._compare(*pair, sampling) for pair in pairs)

    async def _compare(self, a: File, b: File, reference: File | None, sampling: Sampling) -> Comparison:
        try:
            load = partial(self._in_thread, self._load)
            shown = await load(a), await load(b), await load(reference) if reference else None
        except BadImage as error:
            return Comparison(a.name, b.name, BAD_IMAGE, error=str(error))
        requests = await self._in_thread(lambda: list(comparison_requests(*shown, self.seed, sampling.n > 1)))
        answers = await _all(self._answer(request, sampling) for request in requests)
        return combine_orders(a.name, b.name, *answers)

    async def ask(
        self, files: Sequence[File], build: Callable[[Sequence[bytes], str], Request], sampling: Sampling
    ) -> list[Answer]:
        """Answers to one question about all of these images.

        Args:
            files: the images.
            build: makes the request from the images' contents and the digest that seeds its answers.
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

    async def _answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        try:
            return await self.engine.answer(request, sampling)
        except ValueError as error:
            return [Answer(f"{type(error).__name__}: {error}", ERROR)] * sampling.n


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
