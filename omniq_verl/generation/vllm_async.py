"""Run vLLM in a separate process, for questions that arrive one at a time and share its batches."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

from omniq_verl.generation.chat_inputs import banned_tokens
from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.streaming import cores
from omniq_verl.generation.vllm_adapter import answers_of, open_async, render, sampling_params, translate_error
from omniq_verl.generation.vllm_child import DIES_WITH_PARENT
from omniq_verl.generation.vllm_offline import MOST_THREADS, load_image_processor, vllm_prompt

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec


class AsyncModel:
    """A vLLM engine for one model folder; its questions and answers are those of ``OfflineModel``."""

    def __init__(self, spec: "EngineSpec"):
        os.environ[DIES_WITH_PARENT] = "1"
        from transformers import AutoProcessor

        self._processor = AutoProcessor.from_pretrained(spec.model, trust_remote_code=spec.trust_remote_code)
        self._engine, self._size = open_async(spec), spec.image_size
        load_image_processor(self._engine, self._processor)
        self._banned = list(banned_tokens(self._processor).values())
        self._pool = ThreadPoolExecutor(min(MOST_THREADS, cores() + 1))
        self._ids = count()

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        """``sampling.n`` answers; if the caller is cancelled, vLLM drops the request.

        Raises:
            ValueError: the request is rejected, for example because it is too long.
            RuntimeError: the engine has failed.
        """
        prompt = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, request)
        settings = sampling_params(request, sampling, self._banned)
        try:
            results = [one async for one in self._engine.generate(prompt, settings, str(next(self._ids)))]
        except Exception as error:
            raise translate_error(error) from error
        return answers_of(results[-1])

    def _prepare(self, request: Request) -> Any:
        return render(self._engine, vllm_prompt(self._processor, request.messages, request.images, self._size))

    async def check(self) -> None:
        """Raise an error if the engine is dead.

        Raises:
            RuntimeError: it is.
        """
        if self._engine.errored:
            raise RuntimeError(f"vLLM's engine has died ({self._engine.dead_error})")
