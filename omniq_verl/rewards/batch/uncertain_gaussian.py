"""A Gaussian reward whose width is the standard deviation of the ratings."""

import numpy as np

from omniq_verl.rewards.batch.checks import check_positive
from omniq_verl.rewards.batch.rollouts import Rollouts


def uncertain_gaussian(
    rollouts: Rollouts, sigma: float = 0.8, factor: float = 1.0, least: float = 0.2, most: float = 2.0
) -> np.ndarray:
    """``exp(-(q - label)^2 / (2 s^2))``, where ``s`` is ``factor`` times the standard deviation of the image's ratings.

    ``s`` is limited to the range from ``least`` to ``most``. If a data set has no standard deviations, ``s`` is
    ``sigma``, and the reward is that of OmniQuality-R.

    Source: the Gaussian of OmniQuality-R sec. 3.3; taking its width from the ratings is ours.

    Args:
        rollouts: the rollouts of one draw.
        sigma: width for data sets without standard deviations, in units of the scale.
        factor: width divided by the standard deviation.
        least: smallest width.
        most: largest width.

    Returns:
        Rewards from 0 to 1, ``[N]``; 0 for an answer without a score, and if there is no label.

    Raises:
        ValueError: a setting is not positive, or least is above most.
    """
    check_positive(sigma=sigma, factor=factor, least=least, most=most)
    if least > most:
        raise ValueError(f"least is {least} and most is {most}. Fix: set reward.batch_settings.least to at most {most}")
    width = np.where(rollouts.rated(), np.clip(factor * rollouts.label_std, least, most), sigma)
    rewards = np.exp(-(((rollouts.pred - rollouts.target) / width) ** 2) / 2)
    return np.nan_to_num(rewards)
