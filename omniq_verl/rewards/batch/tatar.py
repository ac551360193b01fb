"""TATAR's rewards: closeness to the label for quality, a ranking of answers for aesthetics."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from omniq_verl.rewards.batch.checks import check_positive
from omniq_verl.rewards.batch.rollouts import Rollouts, summed_up
from omniq_verl.tasks import TASKS


def tatar(
    rollouts: Rollouts,
    sigma: float = 0.8,
    tau: float = 0.08,
    margin: float = 0.12,
    gamma: float = 1e-6,
    ranked_tasks: Sequence[str] = ("aesthetic",),
) -> np.ndarray:
    """Gaussian reward for tasks that ask for quality; agreement with soft preferences for those that are ranked.

    Quality: ``exp(-(q - label)^2 / (2 sigma^2))``. Aesthetics, with scores and labels ``y`` mapped to 0 to 1 and ``S``
    the logistic function: answer ``k`` of image ``i`` prefers its image to image ``j`` with
    ``p_k(i, j) = S((q_k(i) - mean_j) / sqrt(var_i + var_j + gamma))``, the labels with ``S((y_i - y_j) / tau)``. The
    cross-entropy of the two is averaged over ``j`` with the weights ``exp(-|y_i - y_j| / margin)``, which favour close
    pairs, and the reward is ``1 - mean / -ln(gamma)``; ``p_k`` is limited to the range from ``gamma`` to ``1 - gamma``.

    Source: TATAR (arXiv 2603.19779): a Gaussian for quality, a Thurstone-style ranking of completions for aesthetics.
    The form of the ranking, tau, margin and gamma are those of ``rank_reward_thurstone`` in the authors' code. The
    function registered there, ``rank_reward``, compares single answers and uses no variances. The code also has a sigma
    that grows with the error, a Gaussian for aesthetics on top of the ranking, and limits on the number of words; these
    are left out. ``sigma`` is OmniQuality-R's.

    Args:
        rollouts: the rollouts of one draw.
        sigma: width of the Gaussian, in units of the scale.
        tau: temperature of the labels' preferences, as a share of the scale.
        margin: label distance over which the weight of a pair falls by a factor e, as a share of the scale.
        gamma: added to the variances, as a squared share of the scale; also the smallest probability, below 0.5.
        ranked_tasks: names of the tasks that are ranked; other wordings of them (``code_aesthetic``) are included.

    Returns:
        Rewards from 0 to 1, ``[N]``; 0 for an answer without a score, and for a ranked answer if there is no other
        image.

    Raises:
        ValueError: a number is outside its range, or ranked_tasks is not a list of names.
    """
    check_positive(sigma=sigma, tau=tau, margin=margin, gamma=gamma)
    if gamma >= 0.5:
        raise ValueError(f"gamma must be below 0.5, got {gamma}. Fix: set reward.batch_settings.gamma=1e-6")
    if isinstance(ranked_tasks, str):
        raise ValueError(f"ranked_tasks is {ranked_tasks!r}, not a list of names. Fix: write [{ranked_tasks}]")
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable():
        if _is_ranked(str(rollouts.tasks[rows[0]]), ranked_tasks):
            rewards[rows] = _ranked(rollouts, rows, tau, margin, gamma)
        else:
            rewards[rows] = np.exp(-(((rollouts.pred[rows] - rollouts.target[rows]) / sigma) ** 2) / 2)
    return rewards


def _is_ranked(task: str, ranked_tasks: Sequence[str]) -> bool:
    return task in ranked_tasks or (task in TASKS and TASKS[task].like in ranked_tasks)


def _ranked(rollouts: Rollouts, rows: np.ndarray, tau: float, margin: float, gamma: float) -> np.ndarray:
    of, low = summed_up(rollouts, rows), rollouts.low[rows[0]]
    span = rollouts.high[rows[0]] - low  # comparable rollouts share one scale
    own, variance = of.member, of.variance / span**2
    ahead = (rollouts.pred[rows][:, None] - of.mean[None, :]) / span
    predicted = expit(ahead / np.sqrt(variance[own][:, None] + variance[None, :] + gamma))
    apart = (of.target[own][:, None] - of.target[None, :]) / span
    entropy = _cross_entropy(expit(apart / tau), np.clip(predicted, gamma, 1 - gamma))
    weight = np.exp(-np.abs(apart) / margin)
    weight[np.arange(len(rows)), own] = 0.0
    total = weight.sum(axis=1)
    mean = np.divide((weight * entropy).sum(axis=1), total, out=np.full(len(rows), np.inf), where=total > 0)
    return np.clip(1 + mean / np.log(gamma), 0, 1)


def _cross_entropy(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return -(true * np.log(predicted) + (1 - true) * np.log(1 - predicted))
