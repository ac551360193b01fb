"""DeQA's soft labels as a reward: how likely an answer's level is under the raters' distribution."""

import numpy as np
from scipy.special import ndtr

from omniq_verl.rewards.batch.checks import check_count, check_positive
from omniq_verl.rewards.batch.rollouts import Rollouts


def soft_label(rollouts: Rollouts, levels: int = 5, std: float | None = None) -> np.ndarray:
    """Probability of the answer's level under the ratings' distribution, divided by that of the likeliest level.

    The ratings of an image are assumed to be normally distributed around its label, with their standard deviation. The
    levels are evenly spaced points from the lower to the upper end of the scale, and a score belongs to the nearest
    one. The probability of level ``c`` is ``Phi((c + d/2 - label) / std) - Phi((c - d/2 - label) / std)``, where ``d``
    is the distance between two levels; the outermost levels take the tails. Five levels on the scale 1 to 5 are the
    whole numbers, with ``d = 1``.

    Source: DeQA-Score (arXiv 2501.11561), sec. 3, has this discretised normal as a training target. Its correction of
    the discretised mean is left out. Using it as a reward, where the likeliest level earns 1, is our reading.

    Args:
        rollouts: the rollouts of one draw.
        levels: number of levels, at least 2.
        std: standard deviation of the ratings, in units of the scale, for data sets that have none (see
            ``Rollouts.label_std``).

    Returns:
        Rewards from 0 to 1, ``[N]``; 0 for an answer without a score.

    Raises:
        ValueError: a setting is outside its range, or a row has no standard deviation and ``std`` is not set.
    """
    check_count(2, levels=levels)
    if std is not None:
        check_positive(std=std)
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable():
        spread = _spread(rollouts, rows, std)
        low, high = rollouts.low[rows][:, None], rollouts.high[rows][:, None]
        edges = low + (high - low) * (np.arange(1, levels)[None, :] - 0.5) / (levels - 1)
        below = ndtr((edges - rollouts.target[rows][:, None]) / spread[:, None])
        below = np.hstack([np.zeros((len(rows), 1)), below, np.ones((len(rows), 1))])
        mass = np.diff(below, axis=1)
        level = (rollouts.pred[rows][:, None] >= edges).sum(axis=1)
        rewards[rows] = mass[np.arange(len(rows)), level] / mass.max(axis=1)
    return rewards


_LEAST = 1e-3
"""Smallest standard deviation, in units of the scale; used if all raters agree."""


def _spread(rollouts: Rollouts, rows: np.ndarray, std: float | None) -> np.ndarray:
    found, missing = rollouts.label_std[rows], ~rollouts.rated()[rows]
    if missing.any() and std is None:
        image, source = rollouts.images[rows][missing][0], rollouts.sources[rows][missing][0]
        raise ValueError(
            f"the label of {image!s:.80} of {source} has no standard deviation (extra_info.details). Fix: set"
            " reward.batch_settings.std, or train on a data set that has them"
        )
    return np.maximum(np.where(missing, np.nan if std is None else std, found).astype(float), _LEAST)
