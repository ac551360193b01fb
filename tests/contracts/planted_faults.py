"""Faults of the kinds that public reports describe, planted into a real run, one at a time.

verl imports this module in all its processes (``VERL_USE_EXTERNAL_MODULES``). A file, ``PLANTED``, names the fault that
acts at the moment, so that one run with real engines shows them all, one after the other.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

from omniq_verl.import_hooks import after_import

FAULTS = (
    "dropped images",
    "swapped images",
    "placeholder sampled",
    "wrong chat template",
    "reward on another scale",
    "vision tower not updated",
    "stale image cache",
    "dummy-loaded weights",  # the last, as nothing restores the buffers
)
HEALTHY = "nothing"


def acting() -> str:
    """The fault that acts now."""
    try:
        return Path(os.environ["PLANTED"]).read_text()
    except (KeyError, OSError):
        return HEALTHY


def choose(fault: str) -> None:
    path = Path(os.environ["PLANTED"])
    path.with_suffix(".new").write_text(fault)
    path.with_suffix(".new").replace(path)


def _plant_server(module: ModuleType) -> None:
    server = module.vLLMHttpServer
    generate, clear = server.generate, server.clear_kv_cache

    async def faulty_generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        fault, images = acting(), kwargs.get("image_data")
        if fault == "dropped images":
            kwargs["image_data"] = None
        elif fault == "swapped images" and images:
            kwargs["image_data"] = getattr(self, "_planted_image", images)
            self._planted_image = images
        output = await generate(self, *args, **kwargs)
        if fault == "placeholder sampled":
            placeholder = self.model_config.tokenizer.convert_tokens_to_ids("<|image_pad|>")
            output.token_ids = [*output.token_ids[:-1], placeholder]
        return output

    async def faulty_clear(self: Any) -> None:
        if acting() == "stale image cache":
            await self.engine.reset_prefix_cache(reset_connector=True)
        else:
            await clear(self)

    server.generate, server.clear_kv_cache = faulty_generate, faulty_clear


def _plant_loop(module: ModuleType) -> None:
    loop = module.AgentLoopBase
    initialise = loop.__init__

    def faulty(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        render = self.continuous_token_builder.build_initial_tokens

        def without_system(messages: list, **settings: Any) -> list:
            if acting() == "wrong chat template":
                messages = [{"role": "system", "content": "You are a pirate."}, *messages]
            return render(messages, **settings)

        self.continuous_token_builder.build_initial_tokens = without_system

    loop.__init__ = faulty


def _plant_reward(module: ModuleType) -> None:
    worker = module.GroupAgentLoopWorker
    compute = worker._compute_score

    async def faulty(self: Any, outputs: list, kwargs: dict) -> None:
        await compute(self, outputs, kwargs)
        if acting() == "reward on another scale":
            outputs[-1].reward_score *= 20

    worker._compute_score = faulty


def _plant_engine(module: ModuleType) -> None:
    engine = module.FSDPEngine
    export = engine.get_per_tensor_param

    def faulty(self: Any, *args: Any, **kwargs: Any) -> Any:
        weights, config = export(self, *args, **kwargs)
        if acting() == "vision tower not updated":
            weights = ((name, weight) for name, weight in weights if "visual" not in name)
        return weights, config

    engine.get_per_tensor_param = faulty


def _plant_worker(module: ModuleType) -> None:
    extension = module.vLLMColocateWorkerExtension
    update = extension.update_weights_from_ipc

    def faulty(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = update(self, *args, **kwargs)
        if acting() == "dummy-loaded weights":  # what vLLM's dummy loader does to buffers, which verl never sends
            for name, buffer in self.model_runner.model.named_buffers():
                if "visual" in name and buffer.is_floating_point():
                    buffer.uniform_(-1e-3, 1e-3)
        return result

    extension.update_weights_from_ipc = faulty


def _plant_trainer(module: ModuleType) -> None:
    """The trainer checks itself once for each fault, and trains after that."""
    trainer = module.OmniqTrainerSync
    fit = trainer.fit

    def check_and_fit(self: Any, agent_loop_manager: Any) -> None:
        self.agent_loop_manager = agent_loop_manager
        folder = Path(self.config.trainer.default_local_dir)
        for fault in (HEALTHY, *FAULTS):
            choose(fault)
            self.checkpoint_manager.update_weights(self.global_steps)
            module.LiveCheck(self).run().save(folder / fault)
            if fault == FAULTS[-2]:
                choose(HEALTHY)
                fit(self, agent_loop_manager)
        choose(HEALTHY)

    trainer.fit = check_and_fit


if "PLANTED" in os.environ:  # not where the tests import it
    after_import("verl.workers.rollout.vllm_rollout.vllm_async_server", _plant_server)
    after_import("verl.experimental.agent_loop.agent_loop", _plant_loop)
    after_import("omniq_verl.trainer.group_rollouts_verl", _plant_reward)
    after_import("verl.workers.engine.fsdp.transformer_impl", _plant_engine)
    after_import("verl.workers.rollout.vllm_rollout.utils", _plant_worker)
    after_import("omniq_verl.trainer.trainer_verl", _plant_trainer)
