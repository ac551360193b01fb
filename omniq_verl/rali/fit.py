"""Scores from cosines to basis vectors, and the fit of vectors and scores to labels (RALI sec. 4, equation 3)."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from omniq_verl.rali.compress import Basis, Projection

logger = logging.getLogger(__name__)


class BasisScorer(nn.Module):
    """Equation 3: ``w = softmax(cos(U^T E, mu_i) / temperature)``, score = sum of ``w_i f_i``.

    A score is a weighted mean of the ``f_i``, so it is between the smallest and the largest of them. At temperature 1
    the ratio of two weights is at most e^2, so scores as spread as the labels need ``f_i`` far beyond the scale; the
    fit finds them. An embedding of zeros has cosine 0 to all vectors, so its score is the plain mean of the ``f_i``.

    Args:
        projection: maps embeddings to their compressed form.
        basis: vectors and scores.
        temperature: 1.0 in the paper (equation 3 has none).

    Raises:
        ValueError: the temperature is not above 0, or the shapes do not match.
    """

    mean_D: torch.Tensor

    def __init__(self, projection: Projection, basis: Basis, temperature: float = 1.0):
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"the temperature must be a finite number > 0, got {temperature}")
        if projection.matrix_DM.shape[1] != basis.vectors_KM.shape[1]:
            raise ValueError(
                f"vectors of size {basis.vectors_KM.shape[1]}, but a projection to {projection.matrix_DM.shape[1]}"
            )
        if len(basis.scores_K) != len(basis.vectors_KM):
            raise ValueError(f"{len(basis.vectors_KM)} vectors but {len(basis.scores_K)} scores")
        self.temperature = temperature
        self.register_buffer("mean_D", _as_float(projection.mean_D))
        self.projection_DM = nn.Parameter(_as_float(projection.matrix_DM))
        self.vectors_KM = nn.Parameter(_as_float(basis.vectors_KM))
        self.scores_K = nn.Parameter(_as_float(basis.scores_K))

    def forward(self, embeddings_BD: torch.Tensor) -> torch.Tensor:
        """Scores ``[B]``, float32, on the scale of the labels, for embeddings ``[B, D]``."""
        projected = (embeddings_BD.float() - self.mean_D) @ self.projection_DM
        cosines = functional.normalize(projected, dim=1) @ functional.normalize(self.vectors_KM, dim=1).T
        return (cosines / self.temperature).softmax(dim=1) @ self.scores_K


def _as_float(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


@dataclass(frozen=True)
class Fit:
    """Settings of the fit of vectors and scores."""

    epochs: int = 30
    """Passes over all images; our choice, as the paper gives no number. 0: no fit, as in case 5 of table 4 and the
    crosses of table A.5."""
    batch: int = 128
    """Images per step; our choice."""
    learning_rate: float = 3e-2
    """Learning rate of AdamW: sec. 5.1."""
    weight_decay: float = 0.0
    """Our choice: weight decay would pull the basis scores towards 0, which is not a score."""
    temperature: float = 1.0
    """Temperature of the softmax; equation 3."""
    projection: bool = False
    """Also fit the projection; our addition. The paper fits only vectors and scores."""
    seed: int = 0
    """Seed of the order of images."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1 or self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(f"epochs and weight_decay must be >= 0, batch >= 1, learning_rate > 0; got {self}")


def trained_parameters(scorer: BasisScorer, settings: Fit) -> list[nn.Parameter]:
    """The fitted parameters: K * M + K numbers, and D * M more with the projection."""
    return [scorer.vectors_KM, scorer.scores_K, *([scorer.projection_DM] if settings.projection else [])]


def fit_basis(
    scorer: BasisScorer, embeddings_LD: np.ndarray, labels_L: np.ndarray, settings: Fit
) -> Iterator[dict[str, float]]:
    """Fit in place by the squared error (our choice), one epoch at a time.

    The learning rate falls to 0 along half a cosine (our choice).

    Yields:
        For each epoch ``epoch``, ``loss`` (mean over its steps, each before its update), and ``lowest`` and
        ``highest`` of the basis scores.

    Raises:
        ValueError: the number of labels differs from the number of embeddings.
        FloatingPointError: a loss was not finite.
    """
    if len(embeddings_LD) != len(labels_L):
        raise ValueError(f"{len(embeddings_LD)} embeddings but {len(labels_L)} labels")
    embeddings, labels = _as_float(embeddings_LD), _as_float(labels_L)
    if len(labels) and (labels == labels[0]).all():
        logger.warning("all labels are %g: every image will get about this score", float(labels[0]))
    parameters = trained_parameters(scorer, settings)
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    steps = max(settings.epochs * -(-len(labels) // settings.batch), 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = np.random.default_rng(settings.seed)
    for epoch in range(settings.epochs):
        losses = []
        for chosen in torch.from_numpy(order.permutation(len(labels))).split(settings.batch):
            losses.append(_step(scorer, optimizer, parameters, embeddings[chosen], labels[chosen]))
            schedule.step()
        lowest, highest = (float(end) for end in torch.aminmax(scorer.scores_K.detach()))
        yield {"epoch": epoch, "loss": float(np.mean(losses)), "lowest": lowest, "highest": highest}


def _step(
    scorer: BasisScorer,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    embeddings_BD: torch.Tensor,
    labels_B: torch.Tensor,
) -> float:
    loss = functional.mse_loss(scorer(embeddings_BD), labels_B)
    if not torch.isfinite(loss):
        raise FloatingPointError(
            "the fit's loss is not finite. Fix: use a smaller learning rate or a higher temperature"
        )
    # Not .backward(): parameters that are not fitted get no gradient.
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach())
