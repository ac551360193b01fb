"""Change the vision tower of a model slightly, and restore it exactly."""

from collections.abc import Iterator

import torch
from torch import nn

_FREQUENCY = 1.7
_TOWERS = {"visual", "vision_tower", "vision_model"}
"""Names of the module that encodes images, in models of transformers."""


class VisionPerturbation:
    """Multiplies the weights of a vision tower by different factors until ``undo``.

    A factor depends only on the weight's index within its tensor (or this rank's shard), so replicas stay equal.
    """

    def __init__(self, module: nn.Module, strength: float):
        """Change the weights.

        Args:
            module: the model, sharded or not.
            strength: factors are between ``1 - strength`` and ``1 + strength``.
        """
        self._saved = [(weight, weight.detach().to("cpu", copy=True)) for weight in _vision_weights(module)]
        with torch.no_grad():
            for weight, _ in self._saved:
                angles = torch.arange(weight.numel(), dtype=torch.float32, device=weight.device) * _FREQUENCY
                factors = 1 + strength * torch.cos(angles)
                weight.mul_(factors.to(weight.dtype).view_as(weight))

    @property
    def weights(self) -> int:
        """Number of weights changed in this process."""
        return sum(weight.numel() for weight, _ in self._saved)

    def undo(self) -> None:
        """Restore the weights exactly."""
        with torch.no_grad():
            for weight, saved in self._saved:
                weight.copy_(saved)
        self._saved = []


def _vision_weights(module: nn.Module) -> Iterator[torch.Tensor]:
    """The parameters of the vision tower as plain tensors: this rank's shards of a sharded model."""
    for name, parameter in module.named_parameters():
        if _TOWERS & set(name.split(".")):
            local = getattr(parameter.data, "to_local", None)
            yield parameter.data if local is None else local()
