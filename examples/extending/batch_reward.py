"""A reward that compares answers with one another, named by ``reward.batch_reward=batch_reward:agreement``."""

import numpy as np

from omniq_verl.rewards.batch import Rollouts


def agreement(rollouts: Rollouts, reach: float = 1.0) -> np.ndarray:
    """How close an answer's score is to the median of its group: 1 at the median, 0 at a distance of ``reach``.

    Args:
        rollouts: of one draw of prompts.
        reach: in units of the scale.

    Returns:
        Rewards from 0 to 1, one per rollout; 0 for an answer without a score.
    """
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable(labelled=False):
        for group in np.unique(rollouts.groups[rows]):
            members = rows[rollouts.groups[rows] == group]
            distance = np.abs(rollouts.pred[members] - np.median(rollouts.pred[members]))
            rewards[members] = np.clip(1 - distance / reach, 0, 1)
    return rewards
