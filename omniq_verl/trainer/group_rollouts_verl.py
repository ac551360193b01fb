"""verl's agent loop manager, with an image processed and sent once for its group and rewards computed on the spot.

The recipe names it: ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``. verl hands all rollouts of a prompt
to one worker, and runs the image processor twice more for each finished answer, first to ask another process for its
reward (``experimental/agent_loop/agent_loop.py:981``) and then for its row (``trainer/ppo/v1/agent_loop_tq.py:188``),
which carries pixels and the encoded image. Here:

- ``_run_agent_loop`` copies one agent for each rollout, where verl lets Hydra build it from the whole configuration,
  which takes 4 ms (``experimental/agent_loop/agent_loop.py:685``).
- The agent's client puts messages of rollouts together (``omniq_verl.trainer.batched_requests_verl``).
- ``_compute_multi_modal_inputs`` returns what the prompt's tokenisation left (``omniq_verl.trainer.prompt_inputs``).
- ``_row`` continues the prompt's positions over an answer; verl computes both for each answer
  (``experimental/agent_loop/agent_loop.py:920``).
- ``_compute_score`` calls this package's reward, which takes microseconds, without another process, and reports where
  a reward function fails.
- ``_agent_loop_postprocess`` puts rows together that end together (``omniq_verl.trainer.batched_puts_verl``); verl puts
  each by itself (``trainer/ppo/v1/agent_loop_tq.py:222``).
- Pixels are stored once for a group (``omniq_verl.trainer.group_pixels_verl``), and rows carry no image.
"""

import gc
from copy import copy
from functools import cached_property
from typing import Any

import hydra
import ray
import torch
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, ToolListWrap
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.profiler import simple_timer
from verl.utils.rollout_trace import rollout_trace_attr

from omniq_verl.live.failures_verl import report_failure
from omniq_verl.trainer.batched_puts_verl import BatchedPuts
from omniq_verl.trainer.batched_requests_verl import batched
from omniq_verl.trainer.group_pixels import why_rewards_are_remote, why_rows_carry_pixels, without_images
from omniq_verl.trainer.group_pixels_verl import drop_unused_pixels
from omniq_verl.trainer.prompt_inputs import PIXELS_GO, PROMPT_INPUTS, PixelsGo, positions_with_answer
from omniq_verl.trainer.seeded_agent_loop_verl import AGENT, DRAW, SeededAgentLoop

VerlWorker: Any = AgentLoopWorkerTQ.__ray_actor_class__  # pyright: ignore[reportAttributeAccessIssue]  Ray sets it
"""verl's worker before Ray made an actor class of it, which cannot be a base class."""


class GroupAgentLoopWorker(VerlWorker):
    """verl's worker; ``reward`` computes a reward here, or is None where verl's reward workers do."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.reward = get_custom_reward_fn(self.config) if why_rewards_are_remote(self.config) is None else None
        self._puts = BatchedPuts()
        self._once = why_rows_carry_pixels(self.config) is None
        # Modules, tokenizer and processor stay. Python would search them for garbage again and again, for up to a
        # second, in which every rollout of the worker stands still.
        gc.collect()
        gc.freeze()

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        # Nobody reads the pixels of validation rows. The task of a prompt has a context of its own.
        PIXELS_GO.set((PixelsGo.NOWHERE if trajectory["validate"] else PixelsGo.ONCE) if self._once else PixelsGo.ROWS)
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory=trajectory, trace=trace)
        finally:
            SeededAgentLoop.forget(prompt["uid"])

    async def _run_agent_loop(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], *, agent_name: str, **kwargs: Any
    ) -> None:
        trace = kwargs.pop("trace", True)
        if agent_name != AGENT:
            return await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **kwargs
            )
        with rollout_trace_attr(**trajectory, name="agent_loop", trace=trace):
            output = await copy(self._agent).run(sampling_params, **kwargs)
            return await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)

    @cached_property
    def _agent(self) -> SeededAgentLoop:
        return hydra.utils.instantiate(
            {"_target_": f"{SeededAgentLoop.__module__}.{SeededAgentLoop.__name__}"},
            trainer_config=DictConfigWrap(self.config),
            server_manager=batched(self.llm_client),
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
            tools=ToolListWrap(self.tools),
        )

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        if isinstance(output, list) or self.distillation_enabled:
            return await super()._agent_loop_postprocess(output, validate, **kwargs)
        await self._compute_score([output], kwargs=kwargs)
        row = self._row(output, kwargs)
        key = f"{kwargs['uid']}_{kwargs['session_id']}_0"
        await self._puts.put_row("val" if validate else "train", key, row, tag_of(row))

    def _row(self, output: AgentLoopOutput, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The row of an answer, as verl makes it (``trainer/ppo/v1/agent_loop_tq.py:185``)."""
        ids = torch.tensor([*output.prompt_ids, *output.response_ids], dtype=torch.int64)
        inputs, positions = self._inputs_and_positions(output, ids)
        row = {**output.as_dict(), **kwargs, "input_ids": ids, "position_ids": positions, "multi_modal_inputs": inputs}
        row.pop("multi_modal_data", None)
        row.pop(DRAW, None)
        row["loss_mask"] = row["response_mask"]
        if self._once:
            known = PROMPT_INPUTS.get()
            messages = {} if known is None else known.messages
            # The data set puts images into the messages of its own column as well.
            for name in {"raw_prompt", self.config.data.prompt_key} & row.keys():
                if name not in messages:
                    messages[name] = without_images(row[name])
                row[name] = messages[name]
        return row

    def _inputs_and_positions(self, output: AgentLoopOutput, ids: torch.Tensor) -> tuple[dict, torch.Tensor]:
        """As verl computes them; the prompt's are computed for the first row of a group, and rows share the inputs."""
        known = PROMPT_INPUTS.get()
        if known is None:
            inputs = self._compute_multi_modal_inputs(output, ids)
            return inputs, self._compute_position_ids(ids[None], torch.ones_like(ids)[None], inputs)[0]
        if known.of_rows is None:
            inputs, prompt = dict(known.inputs), ids[None, : len(output.prompt_ids)]
            known.of_rows = inputs, self._compute_position_ids(prompt, torch.ones_like(prompt), inputs)[0]
        inputs, positions = known.of_rows
        return inputs, positions_with_answer(positions, len(output.response_ids))

    def _compute_multi_modal_inputs(self, output: AgentLoopOutput, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        known = PROMPT_INPUTS.get()
        # A copy: verl removes the token types from it.
        return super()._compute_multi_modal_inputs(output, input_ids) if known is None else dict(known.inputs)

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        try:
            await self._score(outputs, kwargs)
        except Exception as error:  # verl would drop the answer and train on the others
            row = str((kwargs.get("extra_info") or {}).get("id"))
            key = f"{kwargs.get('uid')}_{kwargs.get('session_id')}"
            await report_failure(key, row, kwargs.get("data_source"), error, reward=True)
            raise

    async def _score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        last = outputs[-1]
        if self.reward is None or last.reward_score is not None:
            return await super()._compute_score(outputs, kwargs)
        timing: dict[str, float] = {}
        with simple_timer("compute_score", timing):
            result = self.reward(
                data_source=kwargs["data_source"],
                solution_str=self.tokenizer.decode(last.response_ids, skip_special_tokens=True),
                ground_truth=kwargs["reward_model"]["ground_truth"],
                extra_info=kwargs["extra_info"],
            )
        last.reward_score, last.extra_fields["reward_extra_info"] = result["score"], result
        last.metrics.compute_score = timing["compute_score"]


def tag_of(row: dict[str, Any]) -> dict[str, Any]:
    """What verl's replay buffer and trainer know of a row without reading it."""
    prompt, response, extra = len(row["prompts"]), len(row["responses"]), row["extra_fields"]
    return {
        "status": "success",
        "prompt_len": prompt,
        "response_len": response,
        "seq_len": prompt + response,
        "global_steps": row["global_steps"],
        "min_global_steps": extra.get("min_global_steps"),
        "max_global_steps": extra.get("max_global_steps"),
    }


class GroupAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with our workers."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupAgentLoopWorker)

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Hand out prompts as verl does, after the pixels of groups that are gone have been removed."""
        drop_unused_pixels()
        super().generate_sequences(prompts)
