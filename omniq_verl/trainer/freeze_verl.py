"""verl's FSDP2 engine for one part of the model; VERL_ENGINE_VENDOR chooses: ``omniq_vision``, ``omniq_language``."""

from typing import Any

import torch.distributed
from torch import nn
from verl.workers.engine.base import BaseEngine, EngineRegistry

from omniq_verl.trainer.freeze import PARTS, count_parameters, train_part


class _OnePart:
    part: str

    def _build_module(self) -> nn.Module:
        if self._is_lora:  # verl adds the adapters afterwards, to all of the model
            raise ValueError(f"training the {self.part} part alone knows no LoRA. Fix: model.lora_rank=0")
        module = super()._build_module()
        trained = train_part(module, self.part)
        if torch.distributed.get_rank() == 0:
            print(f"{self.part} alone: {trained:,} of {count_parameters(module):,} parameters are trained", flush=True)
        return module


OTHERS = ("fsdp", "fsdp_turbo", "veomni", "torchtitan", "automodel", "megatron")
"""verl's other strategies (0.9.1)."""


class _Rejecting:
    """Stands where verl, asked for an engine that is not registered, would give its own, which trains all of it."""

    def __init__(self, *_args: Any, **_kwargs: Any):
        raise ValueError("one part of the model is trained with FSDP2 only. Fix: engine.strategy=fsdp2")


def register(engine: type[BaseEngine], devices: list[str]) -> None:
    """Register, beside ``engine``, one for each part; a run has them only where its recipe sets the variable.

    Args:
        engine: verl's for these devices.
        devices: as verl calls them.
    """
    for part in PARTS:
        built = type(f"{part.capitalize()}{engine.__name__}", (_OnePart, engine), {"part": part})
        EngineRegistry.register("language_model", ["fsdp2"], devices, f"omniq_{part}")(built)
        rejecting = type(f"Rejecting{built.__name__}", (_Rejecting, engine), {})
        EngineRegistry.register("language_model", list(OTHERS), devices, f"omniq_{part}")(rejecting)
