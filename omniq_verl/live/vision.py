"""Change the vision tower of a model slightly, and restore it exactly."""

from collections.abc import Iterator

import torch
from torch import nn

_FREQUENCY = 1.7
_TOWERS = {"visual", "vision_tower", "vision_model"}
"""Names of the module that encodes images, in models of transformers."""


class VisionPerturbation:
    """Multiplies the weights of a vision tower by different factors until ``undo``.

    A factor depends only on the weight's index within its tensor (or this rank's shard), so replicas stay equal. The
    weights may move between devices in between.
    """

    def __init__(self, module: nn.Module, strength: float):
        """Change the weights.

        Args:
            module: the model, sharded or not.
            strength: factors are between ``1 - strength`` and ``1 + strength``.
        """
        _finish_copies()
        self._module = module
        # By name: where weights are offloaded, each move to or from the GPU replaces the tensors themselves.
        self._saved = {name: weight.to("cpu", copy=True) for name, weight in _vision_weights(module)}
        with torch.no_grad():
            for _, weight in _vision_weights(module):
                angles = torch.arange(weight.numel(), dtype=torch.float32, device=weight.device) * _FREQUENCY
                factors = 1 + strength * torch.cos(angles)
                weight.mul_(factors.to(weight.dtype).view_as(weight))

    @property
    def weights(self) -> int:
        """Number of weights changed in this process."""
        return sum(weight.numel() for weight in self._saved.values())

    def undo(self) -> None:
        """Restore the weights exactly."""
        _finish_copies()
        with torch.no_grad():
            for name, weight in _vision_weights(self._module):
                if name in self._saved:
                    weight.copy_(self._saved[name])
        self._saved = {}


def _finish_copies() -> None:
    """Wait for the GPU: verl offloads weights with copies that may still be under way when it returns."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _vision_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values of the vision tower's parameters; plain tensors, this rank's shards of a sharded model."""
    for name, parameter in module.named_parameters():
        if _TOWERS & set(name.split(".")):
            local = getattr(parameter.data, "to_local", None)
            yield name, parameter.data if local is None else local()
