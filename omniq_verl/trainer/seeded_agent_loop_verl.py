"""Rollouts that can be repeated, and that prepare the image of a group once.

verl leaves sampling to vLLM's one random generator, whose draws depend on which request arrives first in
which batch. Here every rollout brings a seed made of the run's seed, the step, the row and its number
within the group. verl also decodes and tokenises the same prompt and image for each of the n rollouts of
a group; here the first of them does it for all.

Special tokens are banned from answers: one placeholder of an image that is not there, and the row cannot be trained on.
A rollout that fails names its row, and none can hang.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, wraps
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from omniq_verl.generation.chat_inputs import banned_tokens
from omniq_verl.live.failures_verl import report_failure
from omniq_verl.trainer.group_pixels_verl import prompt_inputs
from omniq_verl.trainer.prompt_inputs import PROMPT_INPUTS, PromptInputs

AGENT = "omniq_seeded"
"""Name under which recipes choose the agent loop."""
DRAW = "omniq_draw"
"""Field of a training batch: how many draws of its step came before."""
_STRONGEST_BIAS = -100.0
"""vLLM clamps biases to this; it divides a token's odds by e^100."""
_GROUPS_REMEMBERED = 256  # prompts in flight at a time: the largest batch anyone would run on one worker


def rollout_seed(run_seed: int, step: int, row: str, session: int, draw: int = 0) -> int:
    """A 31-bit seed for a rollout: another for each (but for chance), the same when the run is repeated.

    Args:
        run_seed: ``rollout.seed`` of the recipe.
        step: training step the rollout is for.
        row: the row's id, unlike its index the same whatever else is trained on.
        session: number of the rollout within its group.
        draw: number of the draw within the step: a filter may draw again, and small data sets bring the same row again.
    """
    key = (f"{run_seed}/{step}/{row}/{session}" + (f"/{draw}" if draw else "")).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big") >> 1


class OncePerGroup:
    """Results of awaitables by key: the first caller computes, the others wait for it."""

    def __init__(self, capacity: int = _GROUPS_REMEMBERED):
        self._tasks: OrderedDict[Any, asyncio.Task] = OrderedDict()
        self._capacity = capacity

    def forget(self, key: Any) -> None:
        """Drop a result that nobody will ask for again."""
        self._tasks.pop(key, None)

    async def get(self, key: Any, compute: Callable[[], Awaitable[Any]]) -> Any:
        if key not in self._tasks:
            self._tasks[key] = asyncio.ensure_future(compute())
            if len(self._tasks) > self._capacity:
                self._tasks.popitem(last=False)
        # One rollout that is cancelled must not take its group along.
        return await asyncio.shield(self._tasks[key])


class SeededAgentLoop(SingleTurnAgentLoop):
    """verl's single-turn agent, seeded (``rollout.agent.default_agent_loop: omniq_seeded``)."""

    # verl makes one object per rollout; the groups are shared between all of a worker.
    _media = OncePerGroup()
    _tokens = OncePerGroup()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # A processor that runs out of images raises StopIteration in a thread, which asyncio cannot pass on before
        # Python 3.12: the rollout would wait for ever.
        builder = self.continuous_token_builder
        builder.build_initial_tokens = _without_stop_iteration(builder.build_initial_tokens)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        self._group = kwargs["uid"]
        row, source = str(kwargs["extra_info"]["id"]), kwargs.get("data_source")
        seed = rollout_seed(
            run_seed=int(self.rollout_config.seed),
            step=int(kwargs["global_steps"]),
            row=row,
            session=int(kwargs["session_id"]),
            draw=int(kwargs.get(DRAW, 0)),
        )
        banned = banned_ids(self.processor or self.tokenizer)
        bias = dict.fromkeys(banned, _STRONGEST_BIAS)
        try:
            params = {**sampling_params, "seed": seed, "logit_bias": bias}
            output = await super().run(params, priority, **kwargs)  # pyright: ignore[reportCallIssue]  hidden by verl
            _check_answer(output, banned)
            if (known := PROMPT_INPUTS.get()) is not None and known.stored is not None:
                await asyncio.shield(known.stored)  # of the whole group
        except Exception as error:
            failed = RolloutFailed(f"the rollout of row {row} of {source} failed ({error})")
            await report_failure(f"{self._group}_{kwargs['session_id']}", row, source, error)
            raise failed from error
        return output

    async def process_multi_modal_info(self, messages: list[dict]) -> dict:
        upstream = super().process_multi_modal_info
        return dict(await self._media.get(self._group, lambda: upstream(messages)))

    async def ct_build_initial_tokens(self, messages: list[dict], **kwargs: Any) -> list[int]:
        upstream = super().ct_build_initial_tokens

        async def prepare() -> tuple[list[int], PromptInputs | None, dict]:
            features: dict[str, Any] = {}
            tokens = await upstream(messages, **{**kwargs, "mm_inputs_out": features})
            known = prompt_inputs(self._group, features)
            return tokens, known, features if known is None else {}

        tokens, known, features = await self._tokens.get(self._group, prepare)
        PROMPT_INPUTS.set(known)
        if (wanted := kwargs.get("mm_inputs_out")) is not None:
            wanted.update(features)
        return list(tokens)

    @classmethod
    def forget(cls, group: str) -> None:
        """Drop what is known of a group whose rollouts have all ended."""
        cls._media.forget(group)
        cls._tokens.forget(group)


register(AGENT)(SeededAgentLoop)  # as a decorator it would hide the class from type checkers


class RolloutFailed(RuntimeError):
    """A rollout that gave no answer; verl logs it, and leaves the row's group out of the batch."""


@lru_cache(maxsize=8)  # a vocabulary of 150,000 words takes 50 ms
def banned_ids(processor: Any) -> tuple[int, ...]:
    """Ids of the tokens that must not be in an answer."""
    return tuple(banned_tokens(processor).values())


class ForbiddenToken(ValueError):
    """The engine sampled a special token in spite of the ban."""

    def __init__(self, tokens: Sequence[int]):
        super().__init__(f"the engine sampled special tokens that are banned, ids {', '.join(map(str, tokens))}")
        self.tokens = list(tokens)


def _check_answer(output: AgentLoopOutput, banned: Sequence[int]) -> None:
    if found := sorted(set(output.response_ids) & set(banned)):
        raise ForbiddenToken(found)


def _without_stop_iteration(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            raise ValueError("the prompt has more image placeholders than images") from error

    return guarded
