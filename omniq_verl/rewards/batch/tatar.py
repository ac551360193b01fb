"""TATAR's rewards: closeness to the label for quality, a ranking of answers for aesthetics."""

from collections.abc import Sequence

import numpy as np

from omniq_verl.rewards.batch.checks import check_positive
from omniq_verl.rewards.batch.rollouts import Rollouts, summed_up
from omniq_verl.rewards.batch.thurstone import comparison_probability, fidelity, preference


def tatar(
    rollouts: Rollouts, sigma: float = 0.8, gamma: float = 1e-6, ranked_tasks: Sequence[str] = ("aesthetic",)
) -> np.ndarray:
    """Gaussian reward where a task asks for quality, fidelity of comparisons between answers where it is ranked.

    Quality: ``exp(-(q - label)^2 / (2 sigma^2))``. Aesthetics: the score ``q_k(i)`` is compared with every score
    ``q_l(j)`` of the other images, ``p = Phi((q_k(i) - q_l(j)) / sqrt(var_i + var_j + gamma))``; the reward is the mean
    fidelity of ``p`` to the labels' order, first over an image's answers, then over images. It differs from
    ``visualquality_r1`` in that an answer meets each answer of another image and not their mean.

    Source: TATAR (arXiv 2603.19779) has a Gaussian reward for quality and a Thurstone-style ranking of completions for
    aesthetics. The formula of the ranking and both defaults are our reading; the paper's may differ.

    Args:
        rollouts: of one draw.
        sigma: width of the Gaussian, in units of the scale.
        gamma: added to the variances, in squared units of the scale.
        ranked_tasks: names of the tasks that are ranked.

    Returns:
        Rewards from 0 to 1, ``[N]``; 0 for an answer without a score, and for a ranked one without another image.

    Raises:
        ValueError: sigma or gamma is not positive, or ranked_tasks is no list of names.
    """
    check_positive(sigma=sigma, gamma=gamma)
    if isinstance(ranked_tasks, str):
        raise ValueError(f"ranked_tasks is {ranked_tasks!r}, not a list of names. Fix: write [{ranked_tasks}]")
    rewards = np.zeros(len(rollouts))
    for rows in rollouts.comparable():
        if rollouts.tasks[rows[0]] in ranked_tasks:
            rewards[rows] = _ranked(rollouts, rows, gamma)
        else:
            rewards[rows] = np.exp(-(((rollouts.pred[rows] - rollouts.target[rows]) / sigma) ** 2) / 2)
    return rewards


def _ranked(rollouts: Rollouts, rows: np.ndarray, gamma: float) -> np.ndarray:
    of = summed_up(rollouts, rows)
    images = len(of.mean)
    if images == 1:
        return np.zeros(len(rows))
    scores, own, variance = rollouts.pred[rows], of.member, of.variance[of.member]
    predicted = comparison_probability(scores[:, None], scores[None, :], variance[:, None], variance[None, :], gamma)
    true = preference(of.target[own][:, None], of.target[own][None, :])
    agreement = np.where(own[:, None] == own[None, :], 0.0, fidelity(true, predicted))
    answers = np.bincount(own)
    return (agreement / answers[own][None, :]).sum(axis=1) / (images - 1)
