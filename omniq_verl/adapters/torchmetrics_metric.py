"""A scorer as a ``torchmetrics.Metric``: the mean score over all images of all processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics import Metric  # pyright: ignore[reportMissingImports]  of the user

from omniq_verl.adapters.scale import AnyScorer
from omniq_verl.adapters.tensor_metric import TensorMetric


class MeanScore(Metric):
    """Mean score of the images that have one; ``unread`` counts the others.

    Args:
        scorer: any kind of scorer.
        task: a task with a score.
        settings: arguments of ``torchmetrics.Metric``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: torch.Tensor
    images: torch.Tensor
    unread: torch.Tensor

    def __init__(self, scorer: AnyScorer, task: str = "technical", **settings: Any):
        super().__init__(**settings)
        self._metric = TensorMetric(scorer, task)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("unread", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, images: torch.Tensor, prompt: str | Sequence[str] | None = None) -> None:
        """Score a batch ``[N, 3, H, W]`` of floats in [0, 1]."""
        scores = self._metric(images, prompt=prompt)
        read = scores[~scores.isnan()]
        self.total += read.double().sum()
        self.images += len(read)
        self.unread += len(scores) - len(read)

    def compute(self) -> torch.Tensor:
        """Return the mean, float32; NaN if no image has a score."""
        return (self.total / self.images).float()
