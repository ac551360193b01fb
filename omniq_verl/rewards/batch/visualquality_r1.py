"""VisualQuality-R1's reward: does an answer's score rank its image among the others as the labels do?"""

import numpy as np

from omniq_verl.rewards.batch.checks import check_positive
from omniq_verl.rewards.batch.rollouts import Rollouts, summed_up
from omniq_verl.rewards.batch.thurstone import comparison_probability, fidelity, mean_over_others, preference


def visualquality_r1(rollouts: Rollouts, gamma: float = 1e-6) -> np.ndarray:
    """Mean fidelity of an answer's comparisons with all other images of its data source.

    The score ``q`` of answer ``k`` to image ``i`` is compared with the mean of each other image ``j``:
    ``p_k(i, j) = Phi((q_k(i) - mean_j) / sqrt(var_i + var_j + gamma))``. The reward is the mean over ``j`` of
    ``sqrt(p p_k) + sqrt((1 - p)(1 - p_k))``, where ``p`` is 1, 0.5 or 0 if ``i`` has the higher, the same or the lower
    label. An answer without a score earns 0 and counts in no mean or variance. If a data source has a single image in
    the step, all its answers earn 0, because there is nothing to compare it with.

    Source: VisualQuality-R1 (arXiv 2505.14460), sec. 3; gamma from the authors' code. That code also adds 1e-6 under
    the roots of the fidelity and gives an answer without a score a random score; both are left out here. Using the
    population variance, over the answers with a score, is our reading.

    Args:
        rollouts: the rollouts of one draw.
        gamma: added to the variances, in squared units of the scale.

    Returns:
        Rewards from 0 to 1, ``[N]``. They depend only on the order of the labels.

    Raises:
        ValueError: gamma is not positive.
    """
    check_positive(gamma=gamma)
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable():
        of = summed_up(rollouts, rows)
        scores, own = rollouts.pred[rows][:, None], of.member
        predicted = comparison_probability(
            scores, of.mean[None, :], of.variance[own][:, None], of.variance[None, :], gamma
        )
        true = preference(of.target[own][:, None], of.target[None, :])
        rewards[rows] = mean_over_others(fidelity(true, predicted), own)
    return rewards
