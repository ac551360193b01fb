"""EvoQuality's reward: the model's own votes replace the labels."""

import numpy as np

from omniq_verl.rewards.batch.checks import check_positive
from omniq_verl.rewards.batch.rollouts import Groups, Rollouts, summed_up
from omniq_verl.rewards.batch.thurstone import comparison_probability, fidelity, mean_over_others


def evoquality(rollouts: Rollouts, gamma: float = 1e-6) -> np.ndarray:
    """Fidelity of an answer's comparisons to the majority of all answers; uses no label.

    Every answer of image ``i`` is compared with every answer of image ``j``. Each such pair votes for the image with
    the higher score, or for neither if the scores are equal. The majority is the pseudo-label ``p``: 1, 0, or 0.5 in a
    tie. The reward is that of ``visualquality_r1`` with this ``p``.

    Source: EvoQuality (arXiv 2509.25787): majority votes as pseudo-labels, fidelity reward, GRPO, two rounds. The paper
    asks its model to compare pairs of images before each round. In our reading, the votes come from the scores of the
    step's own answers, so no second question is needed. A round is then one run, and the second run starts from the
    model of the first.

    Args:
        rollouts: the rollouts of one draw; their labels are not used.
        gamma: added to the variances, in squared units of the scale.

    Returns:
        Rewards from 0 to 1, ``[N]``; 0 for an answer without a score, and if there is no other image to compare with.

    Raises:
        ValueError: gamma is not positive.
    """
    check_positive(gamma=gamma)
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable(labelled=False):
        of, scores = summed_up(rollouts, rows), rollouts.pred[rows]
        predicted = comparison_probability(
            scores[:, None], of.mean[None, :], of.variance[of.member][:, None], of.variance[None, :], gamma
        )
        true = majority(scores, of)[of.member]
        rewards[rows] = mean_over_others(fidelity(true, predicted), of.member)
    return rewards


def majority(scores: np.ndarray, of: Groups) -> np.ndarray:
    """Return pseudo-labels ``[G, G]``: 1 if more pairs of answers prefer the first group, 0 the second, 0.5 neither.

    Args:
        scores: score of each answer, ``[n]``.
        of: the answers' groups.
    """
    groups = len(of.mean)
    wins = np.zeros((groups, groups))
    np.add.at(wins, (of.member[:, None], of.member[None, :]), np.sign(scores[:, None] - scores[None, :]))
    return (1.0 + np.sign(wins)) / 2
