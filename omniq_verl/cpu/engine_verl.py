"""verl's FSDP engine, registered for the CPU."""

import dataclasses

from torch import nn
from verl.workers.engine.base import EngineRegistry

from omniq_verl.trainer.freeze_verl import register
from omniq_verl.trainer.packed_engine_verl import PackedFSDPEngine


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device=["cpu"])
class CpuFSDPEngineWithLMHead(PackedFSDPEngine):
    """FSDP2 on gloo. FSDP1 is left out: its ``sync_module_states`` needs an accelerator."""

    def _build_fsdp_module(self, module: nn.Module) -> nn.Module:
        # verl offloads a forward-only (reference) model to pinned host memory (transformer_impl.py:462).
        # Here it is in host memory anyway, and pinning needs an accelerator.
        config = self.engine_config
        self.engine_config = dataclasses.replace(config, forward_only=False, offload_policy=False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            self.engine_config = config


register(CpuFSDPEngineWithLMHead, ["cpu"])
