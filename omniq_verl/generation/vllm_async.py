"""Run vLLM in a separate process, for questions that arrive one at a time and share its batches."""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

from omniq_verl.generation.chat_inputs import banned_tokens, tokenizer_of
from omniq_verl.generation.expectation import Prefix, ScoreTexts, Vocabulary, Walk
from omniq_verl.generation.request import (
    Answer,
    Piece,
    Request,
    Sampling,
    Tell,
    expected_answer,
)
from omniq_verl.generation.streaming import cores
from omniq_verl.generation.vllm_adapter import (
    MOST_TOKEN_IDS,
    answers_of,
    extended,
    finish_reason_of,
    log_probs_of,
    open_async,
    render,
    sampling_params,
    surprises_of,
    token_params,
    translate_error,
    writing_params,
)
from omniq_verl.generation.vllm_child import DIES_WITH_PARENT
from omniq_verl.generation.vllm_offline import MOST_THREADS, load_image_processor, vllm_prompt

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec


class AsyncModel:
    """A vLLM engine for one model folder; its questions and answers are those of ``OfflineModel``.

    If a caller is cancelled, vLLM drops the request.
    """

    reads_scores = True

    def __init__(self, spec: "EngineSpec"):
        os.environ[DIES_WITH_PARENT] = "1"
        from transformers import AutoProcessor

        self._processor = AutoProcessor.from_pretrained(spec.model, trust_remote_code=spec.trust_remote_code)
        self._engine, self._size = open_async(spec), spec.image_size
        load_image_processor(self._engine, self._processor)
        self._banned = list(banned_tokens(self._processor).values())
        self._vocabulary = Vocabulary.of(tokenizer_of(self._processor))
        self._pool = ThreadPoolExecutor(min(MOST_THREADS, cores() + 1))
        self._ids = count()

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        """``sampling.n`` answers.

        Raises:
            ValueError: the request is rejected, for example because it is too long.
            RuntimeError: the engine has failed.
        """
        prompt = await self._prepared(request)
        if request.texts is not None:
            return [await self._expect(prompt, request.texts)]
        results = [one async for one in self._results(prompt, sampling_params(request, sampling, self._banned))]
        return answers_of(results[-1])

    async def write(self, request: Request, sampling: Sampling, tell: Tell) -> list[Answer]:
        """As ``answer`` with one answer, whose parts go to ``tell`` with the surprise of each token.

        Raises:
            ValueError: the request is rejected, for example because it is too long.
            RuntimeError: the engine has failed.
        """
        prompt = await self._prepared(request)
        texts: list[str] = []
        waiting: list[float] = []
        tokens, output = 0, None
        async for result in self._results(prompt, writing_params(request, sampling, self._banned)):
            (output,) = result.outputs
            tokens += len(output.token_ids)
            waiting += surprises_of(output)
            if output.text:  # else a character is not complete yet
                texts.append(output.text)
                tell(Piece(output.text, tuple(waiting)))
                waiting = []
        return [Answer("".join(texts), finish_reason_of(output), tokens)]

    async def _prepared(self, request: Request) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, request)

    def _prepare(self, request: Request) -> Any:
        start = "" if request.texts is None else request.texts.start
        prompt = vllm_prompt(self._processor, request.messages, request.images, self._size)
        return render(self._engine, {**prompt, "prompt": prompt["prompt"] + start})

    async def _results(self, prompt: Any, settings: Any) -> AsyncIterator[Any]:
        try:
            async for result in self._engine.generate(prompt, settings, str(next(self._ids))):
                yield result
        except Exception as error:
            raise translate_error(error) from error

    async def _expect(self, prompt: Any, texts: ScoreTexts) -> Answer:
        walk = Walk(self._vocabulary.spelling(texts))
        while asked := walk.open:
            found = await asyncio.gather(*(self._chances(prompt, prefix, some) for prefix, some in asked.items()))
            walk.tell(dict(zip(asked, found, strict=True)))
        return expected_answer(walk.result(), texts)

    async def _chances(self, prompt: Any, prefix: Prefix, tokens: Sequence[int]) -> dict[int, float]:
        """Probability of each of the tokens behind a prefix."""
        longer, chances = extended(prompt, prefix), {}
        for first in range(0, len(tokens), MOST_TOKEN_IDS):
            some = tokens[first : first + MOST_TOKEN_IDS]
            log_probs: Mapping[int, float] = {}
            async for result in self._results(longer, token_params(some)):
                log_probs = log_probs_of(result)
            chances |= {token: math.exp(log_probs[token]) for token in some}
        return chances

    async def check(self) -> None:
        """Raise an error if the engine is dead.

        Raises:
            RuntimeError: it is.
        """
        if self._engine.errored:
            raise RuntimeError(f"vLLM's engine has died ({self._engine.dead_error})")
