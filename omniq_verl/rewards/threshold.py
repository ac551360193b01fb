"""The score reward that is all or nothing."""


def threshold_reward(pred: float, target: float, epsilon: float = 0.35) -> float:
    """1.0 if ``|pred - target| < epsilon``, otherwise 0.0; a distance of exactly epsilon earns nothing.

    Source: Q-Insight sec. 3.2; epsilon = 0.35 from its sec. 4.1.

    Args:
        pred: predicted score.
        target: label, on the same scale.
        epsilon: in units of the scale.

    Raises:
        ValueError: epsilon is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    return float(abs(pred - target) < epsilon)
