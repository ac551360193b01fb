"""Scores by cosines to basis vectors, and the fit of vectors and scores to labels: RALI sec. 4, equation 3."""

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

    A score is a mean of the ``f_i``, so it lies between the least and the largest of them. At temperature 1 no weight
    is more than e^2 times another: scores as far apart as labels need ``f_i`` far beyond the scale, which the fit
    finds. An embedding of zeros has cosine 0 to all: its score is the plain mean of the ``f_i``.

    Args:
        projection: from embeddings to their compressed form.
        basis: vectors and scores.
        temperature: 1.0 is the paper's (equation 3 has none).

    Raises:
        ValueError: the temperature is not above 0, or the sizes do not fit together.
    """

    def __init__(self, projection: Projection, basis: Basis, temperature: float = 1.0):
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"the temperature is a number above 0, got {temperature}")
        if projection.matrix_DM.shape[1] != basis.vectors_KM.shape[1]:
            raise ValueError(f"vectors of {basis.vectors_KM.shape[1]}, projected to {projection.matrix_DM.shape[1]}")
        if len(basis.scores_K) != len(basis.vectors_KM):
            raise ValueError(f"{len(basis.vectors_KM)} vectors with {len(basis.scores_K)} scores")
        self.temperature = temperature
        self.register_buffer("mean_D", _as_float(projection.mean_D))
        self.projection_DM = nn.Parameter(_as_float(projection.matrix_DM))
        self.vectors_KM = nn.Parameter(_as_float(basis.vectors_KM))
        self.scores_K = nn.Parameter(_as_float(basis.scores_K))

    def forward(self, embeddings_BD: torch.Tensor) -> torch.Tensor:
        """Scores ``[B]``, on the scale of the labels, of embeddings ``[B, D]``; in float32."""
        projected = (embeddings_BD.float() - self.mean_D) @ self.projection_DM
        cosines = functional.normalize(projected, dim=1) @ functional.normalize(self.vectors_KM, dim=1).T
        return (cosines / self.temperature).softmax(dim=1) @ self.scores_K


def _as_float(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


@dataclass(frozen=True)
class Fit:
    """How vectors and scores are fitted."""

    epochs: int = 30
    """Over all images; ours, the paper does not say. 0: no fit, as case 5 of table 4 and the crosses of table A.5."""
    batch: int = 128
    """Images of a step; ours."""
    learning_rate: float = 3e-2
    """Of AdamW: sec. 5.1."""
    weight_decay: float = 0.0
    """Ours: it would draw the basis scores towards 0, which is no score."""
    temperature: float = 1.0
    """Of the softmax; equation 3."""
    projection: bool = False
    """Fit the projection as well; ours. The paper names vectors and scores alone."""
    seed: int = 0
    """Of the order of the images."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1 or self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(f"epochs and weight_decay from 0, batch from 1, learning_rate above 0; got {self}")


def trained_parameters(scorer: BasisScorer, settings: Fit) -> list[nn.Parameter]:
    """What the fit changes: K * M + K numbers, and with the projection D * M more."""
    return [scorer.vectors_KM, scorer.scores_K, *([scorer.projection_DM] if settings.projection else [])]


def fit_basis(
    scorer: BasisScorer, embeddings_LD: np.ndarray, labels_L: np.ndarray, settings: Fit
) -> Iterator[dict[str, float]]:
    """Fit in place, by the squared error (ours); an epoch at a time.

    The learning rate falls from its value to 0 by half a cosine (ours).

    Yields:
        Of each epoch ``epoch``, ``loss`` (mean over its steps, before each), ``lowest`` and ``highest`` (of the basis
        scores).

    Raises:
        ValueError: another number of labels than of embeddings.
        FloatingPointError: a loss was not finite.
    """
    if len(embeddings_LD) != len(labels_L):
        raise ValueError(f"{len(embeddings_LD)} embeddings with {len(labels_L)} labels")
    embeddings, labels = _as_float(embeddings_LD), _as_float(labels_L)
    if len(labels) and (labels == labels[0]).all():
        logger.warning("all labels are %g: every image will get about that score", float(labels[0]))
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
        raise FloatingPointError("the fit's loss is not finite. Fix: a smaller learning rate, or a higher temperature")
    # Not .backward(): what is not fitted gets no gradient.
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach())
