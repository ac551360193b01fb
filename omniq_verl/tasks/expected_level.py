"""Scores as distributions over the five level words, and back.

Two published methods learn a score through the probabilities of the words in ``LEVELS``. Q-Align (Wu et al. 2023, arXiv
2312.17090) trains on one word and takes the expected level of the answer. DeQA-Score (You et al. 2025, arXiv
2501.11561) trains on a distribution over the words.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omniq_verl.tasks.task import LEVELS, Scale, Task

NEAR, NARROW = 0.1, 0.2
"""In levels: the largest distance between a score and the mean of its soft label, and the smallest deviation that is
used. DeQA's code has both bounds; these values are ours."""

ASPECTS = {"technical": "quality", "aesthetic": "aesthetics", "alignment": "fit to the text"}
"""What a level word describes, by task. "quality" and "aesthetics" are Q-Align's; the phrase for alignment is ours."""


def level_stem(task: Task) -> str:
    """Return the text before the level word in a Q-Align answer, e.g. "The quality of the image is"."""
    return f"The {ASPECTS.get(task.like or task.name, 'quality')} of the image is"


def level_values(scale: Scale) -> NDArray[np.float64]:
    """Return the score of each word of ``LEVELS``, evenly spaced over the scale: 1, 2, 3, 4, 5 on the scale 1 to 5."""
    return np.linspace(scale.low, scale.high, len(LEVELS))


def expected_level(logits: ArrayLike, scale: Scale) -> NDArray[np.float64]:
    """Return Q-Align's score: the level values, weighted by a softmax over only the five words (its eq. 3 and 4).

    Args:
        logits: shape (..., 5), in the order of ``LEVELS`` (worst first). Log-probabilities give the same result.
        scale: scale of the scores.

    Returns:
        Scores of shape (...), within the scale.

    Raises:
        ValueError: the last axis does not hold five finite numbers.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != len(LEVELS) or not np.isfinite(values).all():
        raise ValueError(f"five finite logits are needed, one for each level; the shape is {values.shape}")
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return (weights * level_values(scale)).sum(axis=-1) / weights.sum(axis=-1)


def soft_levels(score: float, deviation: float | None, scale: Scale) -> NDArray[np.float64]:
    """Return DeQA's label: a distribution over the five words whose expected level is the score.

    With a deviation, a level's share is the part of a normal distribution within half a level of its value. The shares
    are corrected by one factor and one summand so that they sum to 1 and their mean is the score (DeQA, sec. 3.2).
    Negative shares become 0, and the others are scaled to sum to 1. If there is no deviation, if it is below
    ``NARROW``, or if the mean would miss the score by more than ``NEAR``, the score is split between its two
    neighbouring levels, as in DeQA's code.

    Args:
        score: a score on the scale.
        deviation: standard deviation of the ratings, in units of the scale; None if it is unknown.
        scale: scale of the score.

    Returns:
        Five shares, worst level first.

    Raises:
        ValueError: the score is outside the scale, or the deviation is negative or not finite.
    """
    if not scale.contains(score):
        raise ValueError(f"score {score} is outside [{scale.low}, {scale.high}]")
    if deviation is not None and not (math.isfinite(deviation) and deviation >= 0):
        raise ValueError(f"a standard deviation must be >= 0, got {deviation}")
    step = (scale.high - scale.low) / (len(LEVELS) - 1)
    position = (score - scale.low) / step
    shares = _corrected(position, deviation / step) if deviation and deviation >= NARROW * step else None
    return _neighbours(position) if shares is None else shares


def _neighbours(position: float) -> NDArray[np.float64]:
    """Interpolate linearly between the two levels next to the position. Positions run from 0 to 4."""
    return np.maximum(0.0, 1.0 - np.abs(np.arange(len(LEVELS)) - position))


def _corrected(position: float, deviation: float) -> NDArray[np.float64] | None:
    """Return the normal distribution's corrected shares; None if their mean misses the position."""
    positions = np.arange(len(LEVELS), dtype=np.float64)
    raw = np.diff([_normal(edge, position, deviation) for edge in np.arange(len(LEVELS) + 1) - 0.5])
    excess = (raw * positions).sum() - positions.mean() * raw.sum()
    # Solve factor * sum(raw) + 5 * summand = 1 and factor * sum(raw * place) + 10 * summand = position. In the middle
    # of the scale the distribution is symmetric and any factor gives the right mean; use the factor that needs no
    # summand.
    in_the_middle = abs(excess) < 1e-9 or abs(position - positions.mean()) < 1e-9
    factor = 1 / raw.sum() if in_the_middle else (position - positions.mean()) / excess
    shares = np.maximum(factor * raw + (1 - factor * raw.sum()) / len(positions), 0.0)
    shares /= shares.sum()
    return shares if abs((shares * positions).sum() - position) <= NEAR else None


def _normal(value: float, mean: float, deviation: float) -> float:
    """Evaluate the normal cumulative distribution function."""
    return 0.5 * (1.0 + math.erf((value - mean) / (deviation * math.sqrt(2.0))))
