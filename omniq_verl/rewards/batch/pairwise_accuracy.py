"""Pairwise accuracy as a reward: the share of other images that an answer ranks correctly against its own image."""

import numpy as np

from omniq_verl.rewards.batch.checks import check_positive
from omniq_verl.rewards.batch.rollouts import Rollouts, summed_up


def pairwise_accuracy(rollouts: Rollouts, tie: float = 0.5) -> np.ndarray:
    """Share of the other images' answers that are on the right side of this answer's score.

    Answer ``k`` of image ``i`` is compared with each image ``j`` that has another label: the accuracy is the share of
    ``j``'s answers whose scores are on the same side of ``q_k(i)`` as ``j``'s label is of ``i``'s. An equal score
    counts ``tie``. The reward is the mean over these images. Images with the same label are left out, because either
    order is right.

    Source: ours. The accuracy of pairwise comparisons (Kendall's tau, rescaled) is a plain form of the ranking rewards.

    Args:
        rollouts: the rollouts of one draw.
        tie: value of an equal score, from 0 to 1.

    Returns:
        Rewards from 0 to 1, ``[N]``; 0 for an answer without a score, and if no image has another label. They depend
        only on the order of scores and of labels.

    Raises:
        ValueError: tie is outside its range.
    """
    if tie != 0:
        check_positive(tie=tie)
    if tie > 1:
        raise ValueError(f"tie must be at most 1, got {tie}. Fix: set reward.batch_settings.tie=0.5")
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable():
        of, scores = summed_up(rollouts, rows), rollouts.pred[rows]
        labels = of.target[of.member]
        order = np.sign(scores[:, None] - scores[None, :]) * np.sign(labels[:, None] - labels[None, :])
        right = np.where(order > 0, 1.0, np.where(order == 0, tie, 0.0))
        counted = labels[:, None] != labels[None, :]
        weight = counted / np.bincount(of.member)[of.member][None, :]  # each image counts once
        images = weight.sum(axis=1)
        rewards[rows] = np.divide((right * weight).sum(axis=1), images, out=np.zeros(len(rows)), where=images > 0)
    return rewards
