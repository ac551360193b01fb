"""All-or-nothing score reward."""

_ROUNDING = 1e-9


def threshold_reward(pred: float, target: float, epsilon: float = 0.35) -> float:
    """Return 1.0 if ``|pred - target| < epsilon``, otherwise 0.0. A distance of exactly epsilon earns nothing.

    Source: Q-Insight sec. 3.3; epsilon = 0.35 from its sec. 4.1.

    Args:
        pred: predicted score.
        target: label, on the same scale.
        epsilon: threshold, in units of the scale.

    Raises:
        ValueError: epsilon is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    # 4.35 and 4.00 are exactly 0.35 apart, but slightly less in floating point.
    return float(epsilon - abs(pred - target) > _ROUNDING)
