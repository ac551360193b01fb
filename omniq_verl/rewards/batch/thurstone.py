"""Thurstone's model of comparisons and the fidelity of a predicted preference, shared by several rewards."""

import numpy as np
from scipy.special import ndtr


def comparison_probability(
    score: np.ndarray, other: np.ndarray, variance: np.ndarray, other_variance: np.ndarray, gamma: float
) -> np.ndarray:
    """Probability that the first of two normally distributed qualities is higher.

    ``Phi((score - other) / sqrt(variance + other_variance + gamma))``.
    Source: Thurstone 1927, case III, qualities uncorrelated; gamma: VisualQuality-R1 (arXiv 2505.14460), sec. 3.

    Args:
        score: mean, or one draw, of the first quality; all arguments broadcast.
        other: mean, or one draw, of the second quality.
        variance: variance of the first.
        other_variance: variance of the second.
        gamma: positive; keeps the root above 0 if all scores of both images are equal.
    """
    return ndtr((score - other) / np.sqrt(variance + other_variance + gamma))


def preference(target: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return 1 if the first label is higher, 0 if it is lower, 0.5 if both are equal."""
    return (1.0 + np.sign(target - other)) / 2


def fidelity(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Agreement of two probabilities of an event: ``sqrt(p q) + sqrt((1 - p)(1 - q))``, from 0 to 1.

    Source: Tsai et al. 2007 (FRank), as VisualQuality-R1 uses it (arXiv 2505.14460, sec. 3).
    """
    return np.sqrt(true * predicted) + np.sqrt((1 - true) * (1 - predicted))


def mean_over_others(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Mean of each row over the groups that are not its own; 0 if there is no other group.

    Args:
        values: value of each rollout against each group, ``[n, G]``.
        member: index of each rollout's group, ``[n]``.
    """
    others = values.shape[1] - 1
    if others == 0:
        return np.zeros(len(values))
    own = np.arange(values.shape[1])[None, :] == member[:, None]
    return np.where(own, 0.0, values).sum(axis=1) / others
