"""Pairwise accuracy as a reward: how many other images an answer ranks correctly against its own."""

import numpy as np

from omniq_verl.rewards.batch.checks import check_positive
from omniq_verl.rewards.batch.rollouts import Rollouts, summed_up


def pairwise_accuracy(rollouts: Rollouts, tie: float = 0.5) -> np.ndarray:
    """Share of the other images' answers that this answer orders as the labels do.

    For answer ``k`` of image ``i`` and another image ``j`` with another label: the share of ``j``'s answers that lie on
    the right side of ``q_k(i)``, equal scores counting ``tie``. The reward is the mean over those images; images with
    the same label are left out, because either order is right.

    Source: the accuracy of pairwise comparisons (Kendall's tau, rescaled), a plain form of the ranking rewards. Ours.

    Args:
        rollouts: of one draw.
        tie: what an equal score is worth, from 0 to 1.

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
