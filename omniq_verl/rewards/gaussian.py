"""The Gaussian score reward."""

import math


def gaussian_reward(pred: float, target: float, sigma: float = 0.8) -> float:
    """Closeness of a predicted score to its target: ``exp(-(pred - target)^2 / (2 sigma^2))``, 1 at the target.

    Source: OmniQuality-R sec. 3.3; sigma = 0.8 from its sec. 4.1 and table 8.

    Args:
        pred: predicted score.
        target: label, on the same scale.
        sigma: width in units of the scale; at this distance the reward is 0.61.

    Raises:
        ValueError: sigma is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    distance = (pred - target) / sigma
    return math.exp(-distance * distance / 2)
