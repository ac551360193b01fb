"""vLLM in a process of its own, for questions that come one at a time: all that are under way share its batches."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

from omniq_verl.generation.question import vision_tokens
from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.vllm_child import DIES_WITH_PARENT
from omniq_verl.generation.vllm_offline import answers_of, engine_settings, sampling_params, vllm_prompt

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec


class AsyncModel:
    """A vLLM engine over one model folder; its questions and answers are those of ``OfflineModel``."""

    def __init__(self, spec: "EngineSpec"):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ[DIES_WITH_PARENT] = "1"
        from transformers import AutoProcessor
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._processor = AutoProcessor.from_pretrained(spec.model, trust_remote_code=spec.trust_remote_code)
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_settings(spec), disable_log_stats=True))
        self._banned = list(vision_tokens(self._processor))
        self._pool = ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1))
        self._numbers = count()

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        """``sampling.n`` answers; if the caller gives up, so does the engine.

        Raises:
            ValueError: the request cannot be taken, such as one too long.
            RuntimeError: the engine has failed.
        """
        from vllm.exceptions import VLLMClientError, VLLMServerError
        from vllm.sampling_params import RequestOutputKind

        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._pool, vllm_prompt, self._processor, request.messages, request.images)
        settings = sampling_params(request, sampling, self._banned)
        settings.output_kind = RequestOutputKind.FINAL_ONLY
        results = []
        try:
            async for result in self._engine.generate(prompt, settings, str(next(self._numbers))):
                results.append(result)
        except VLLMClientError as error:  # no ValueError of its own
            raise ValueError(str(error)) from error
        except VLLMServerError as error:
            raise RuntimeError(str(error)) from error
        return answers_of(results[-1])

    async def check(self) -> None:
        """Is the engine alive?

        Raises:
            RuntimeError: it has died.
        """
        if self._engine.errored:
            raise RuntimeError(f"vLLM's engine has died ({self._engine.dead_error})")
