"""verl's vLLM server, which records what it asks of vLLM and can ask it once more without verl."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from omniq_verl.trainer.weight_socket_verl import ClusterHttpServer


class ReplayingServer(ClusterHttpServer):
    """``record`` before the first request; then ``clear``, requests, ``replay``."""

    async def record(self) -> None:
        self._ask = self.engine.generate
        self._asked: list[dict[str, Any]] = []
        self._answers: list[list[int]] = []
        self.engine.generate = self._recorded

    async def _recorded(self, **asked: Any) -> AsyncIterator[Any]:
        async for output in self._ask(**asked):
            yield output
        self._asked.append(asked)
        self._answers.append(list(output.outputs[0].token_ids))

    async def clear(self) -> None:
        """Forget requests, images and prompts, as between the steps of a training."""
        self._asked.clear()
        self._answers.clear()
        await self._clear_caches()

    async def _clear_caches(self) -> None:
        await self.engine.reset_prefix_cache()
        await self.engine.reset_mm_cache()

    async def replay(self) -> tuple[float, int, int]:
        """Ask vLLM for everything since ``clear`` at once; seconds, requests, and how many had the same answer."""
        await self._clear_caches()
        began = time.perf_counter()
        answers = await asyncio.gather(*map(self._again, self._asked))
        seconds = time.perf_counter() - began
        same = sum(one == other for one, other in zip(answers, self._answers, strict=True))
        return seconds, len(answers), same

    async def _again(self, asked: dict[str, Any]) -> list[int]:
        async for output in self._ask(**{**asked, "request_id": uuid.uuid4().hex}):
            last = output
        return list(last.outputs[0].token_ids)
