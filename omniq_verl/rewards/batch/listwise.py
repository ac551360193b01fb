"""The correlation over a whole step (PLCC or SRCC) as a reward: each answer in turn replaces its image's mean."""

import numpy as np

from omniq_verl.data.digits import without_rounding_errors
from omniq_verl.rewards.batch.rollouts import Groups, Rollouts, summed_up

KINDS = ("plcc", "srcc")


def listwise(rollouts: Rollouts, kind: str = "plcc") -> np.ndarray:
    """Correlation of scores and labels over the images, as if this answer were its image's only one.

    For answer ``k`` of image ``i``, the score of image ``i`` is ``q_k(i)``, and the score of any other image is the
    mean of its answers. If ``r`` is the correlation of these scores with the labels, the reward is ``(1 + r) / 2``. If
    all scores are equal, ``r`` counts as 0.

    Source: rewards from PLCC and SRCC over a batch, as in listwise ranking. Replacing a mean by one answer at a time is
    ours: a single correlation would be the same for all answers and teach nothing.

    Args:
        rollouts: the rollouts of one draw.
        kind: ``plcc`` (Pearson), or ``srcc`` (Spearman, ties by their mean rank).

    Returns:
        Rewards from 0 to 1, ``[N]``; 0 for an answer without a score, and for fewer than three images or equal labels.

    Raises:
        ValueError: kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}. Fix: set reward.batch_settings.kind to one of {', '.join(KINDS)}")
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable():
        of = summed_up(rollouts, rows)
        if len(of.mean) < 3 or np.ptp(of.target) == 0:
            continue
        rewards[rows] = (1 + _correlations(_one_answer_each(rollouts.pred[rows], of), of.target, kind)) / 2
    return rewards


def _one_answer_each(scores: np.ndarray, of: Groups) -> np.ndarray:
    """Return the images' scores ``[n, G]``: each row has the means, except for the image of the row's own answer."""
    table = np.repeat(of.mean[None, :], len(scores), axis=0)
    table[np.arange(len(scores)), of.member] = scores
    return without_rounding_errors(table)


def _correlations(table: np.ndarray, target: np.ndarray, kind: str) -> np.ndarray:
    """Return the correlation of each row with the labels, ``[n]``; 0 for a row of equal scores."""
    if kind == "srcc":
        table, target = _ranks(table), _ranks(target[None, :])[0]
    scores, labels = table - table.mean(axis=1, keepdims=True), target - target.mean()
    norm = np.linalg.norm(scores, axis=1) * np.linalg.norm(labels)
    flat = np.ptp(table, axis=1) == 0
    return np.clip(np.divide(scores @ labels, norm, out=np.zeros(len(table)), where=~flat & (norm > 0)), -1, 1)


def _ranks(table: np.ndarray) -> np.ndarray:
    """Return the ranks within each row; equal values share the mean of their ranks."""
    from scipy.stats import rankdata

    return rankdata(table, axis=1)
