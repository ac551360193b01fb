"""Rollouts that can be repeated, and that prepare the image of a group once.

verl leaves sampling to vLLM's one random generator, whose draws depend on which request arrives first in
which batch. Here every rollout brings a seed made of the run's seed, the step, the row and its number
within the group. verl also decodes and tokenises the same prompt and image for each of the n rollouts of
a group; here the first of them does it for all.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

_GROUPS_REMEMBERED = 256  # prompts in flight at a time: the largest batch anyone would run on one worker


def rollout_seed(run_seed: int, step: int, row: str, session: int) -> int:
    """A 31-bit seed for a rollout: another for each (but for chance), the same when the run is repeated.

    Args:
        run_seed: ``rollout.seed`` of the recipe.
        step: training step the rollout is for.
        row: the row's id, unlike its index the same whatever else is trained on.
        session: number of the rollout within its group.
    """
    key = f"{run_seed}/{step}/{row}/{session}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big") >> 1


class OncePerGroup:
    """Results of awaitables by key: the first caller computes, the others wait for it."""

    def __init__(self, capacity: int = _GROUPS_REMEMBERED):
        self._tasks: OrderedDict[Any, asyncio.Task] = OrderedDict()
        self._capacity = capacity

    async def get(self, key: Any, compute: Callable[[], Awaitable[Any]]) -> Any:
        if key not in self._tasks:
            self._tasks[key] = asyncio.ensure_future(compute())
            if len(self._tasks) > self._capacity:
                self._tasks.popitem(last=False)
        # One rollout that is cancelled must not take its group along.
        return await asyncio.shield(self._tasks[key])


@register("omniq_seeded")
class SeededAgentLoop(SingleTurnAgentLoop):
    """verl's single-turn agent, seeded (``rollout.agent.default_agent_loop: omniq_seeded``)."""

    # verl makes one object per rollout; the groups are shared between all of a worker.
    _media = OncePerGroup()
    _tokens = OncePerGroup()

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        self._group = kwargs["uid"]
        seed = rollout_seed(
            run_seed=int(self.rollout_config.seed),
            step=int(kwargs["global_steps"]),
            row=str(kwargs["extra_info"]["id"]),
            session=int(kwargs["session_id"]),
        )
        return await super().run({**sampling_params, "seed": seed}, priority, **kwargs)

    async def process_multi_modal_info(self, messages: list[dict]) -> dict:
        upstream = super().process_multi_modal_info
        return dict(await self._media.get(self._group, lambda: upstream(messages)))

    async def ct_build_initial_tokens(self, messages: list[dict], **kwargs: Any) -> list[int]:
        upstream = super().ct_build_initial_tokens
        return list(await self._tokens.get(self._group, lambda: upstream(messages, **kwargs)))
