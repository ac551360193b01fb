"""verl's FSDP2 engine for training one part: set VERL_ENGINE_VENDOR to ``omniq_vision`` or ``omniq_language``."""

from typing import TYPE_CHECKING, Any

import torch.distributed
from torch import nn
from verl.workers.engine.base import BaseEngine, EngineRegistry

from omniq_verl.trainer.freeze import PARTS, count_parameters, train_part

if TYPE_CHECKING:  # it is mixed into an engine
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine as _Engine
else:
    _Engine = object


class _OnePart(_Engine):
    part: str

    def _build_module(self) -> nn.Module:
        if self._is_lora:  # verl adds the adapters afterwards, to the whole model
            raise ValueError(f"training only the {self.part} part does not support LoRA. Fix: model.lora_rank=0")
        module = super()._build_module()
        trained = train_part(module, self.part)
        if torch.distributed.get_rank() == 0:
            print(f"{self.part} only: {trained:,} of {count_parameters(module):,} parameters are trained", flush=True)
        return module


OTHERS = ("fsdp", "fsdp_turbo", "veomni", "torchtitan", "automodel", "megatron")
"""verl's other strategies (0.9.1)."""


class _Rejecting:
    """Registered for other strategies. Otherwise verl would use its own engine, which trains the whole model."""

    def __init__(self, *_args: Any, **_kwargs: Any):
        raise ValueError("training one part of the model needs FSDP2. Fix: engine.strategy=fsdp2")


def register(engine: type[BaseEngine], devices: list[str]) -> None:
    """Register, in addition to ``engine``, one engine for each part; runs use them only if the variable is set.

    Args:
        engine: verl's engine for these devices.
        devices: verl's names of the devices.
    """
    for part in PARTS:
        built = type(f"{part.capitalize()}{engine.__name__}", (_OnePart, engine), {"part": part})
        EngineRegistry.register("language_model", ["fsdp2"], devices, f"omniq_{part}")(built)
        rejecting = type(f"Rejecting{built.__name__}", (_Rejecting, engine), {})
        EngineRegistry.register("language_model", list(OTHERS), devices, f"omniq_{part}")(rejecting)
