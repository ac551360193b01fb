"""verl's FSDP2 engine for one part of the model; VERL_ENGINE_VENDOR chooses: ``omniq_vision``, ``omniq_language``."""

from torch import nn
from verl.workers.engine.base import BaseEngine, EngineRegistry

from omniq_verl.trainer.parts import PARTS, train_part


class _OnePart:
    part: str

    def _build_module(self) -> nn.Module:
        module = super()._build_module()
        train_part(module, self.part)
        return module


def register(engine: type[BaseEngine], devices: list[str]) -> None:
    """Register, beside ``engine``, one for each part; a run has them only where its recipe sets the variable.

    Args:
        engine: verl's for these devices.
        devices: as verl calls them.
    """
    for part in PARTS:
        built = type(f"{part.capitalize()}{engine.__name__}", (_OnePart, engine), {"part": part})
        EngineRegistry.register("language_model", ["fsdp2"], devices, f"omniq_{part}")(built)
