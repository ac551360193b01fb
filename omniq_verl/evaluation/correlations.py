"""Agreement between predicted scores and labels."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

Numbers = Sequence[float] | np.ndarray
"""Numbers ``[N]``."""
COEFFICIENTS = ("plcc", "srcc", "krcc")


def correlations(pred: Numbers, target: Numbers) -> dict[str, float | int | None]:
    """Return PLCC, SRCC, KRCC, RMSE and the number of pairs.

    An undefined correlation (fewer than three pairs, or one side constant) is None, never NaN. PLCC is Pearson's
    coefficient of the raw scores, as in these papers. SRCC and KRCC (tau-b) use average ranks for ties.

    Args:
        pred: predicted scores ``[N]``.
        target: labels ``[N]``, in the same order.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    x, y = checked_pairs(pred, target)
    defined = len(x) >= 3 and np.ptp(x) > 0 and np.ptp(y) > 0
    return {
        "plcc": _number(stats.pearsonr(x, y)[0]) if defined else None,
        "srcc": _number(float(stats.spearmanr(x, y)[0])) if defined else None,
        "krcc": _number(stats.kendalltau(x, y)[0]) if defined else None,
        "rmse": float(np.sqrt(np.mean((x - y) ** 2))) if len(x) else None,
        "n": len(x),
    }


def checked_pairs(pred: Numbers, target: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides as float64 ``[N]``.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    x, y = np.asarray(pred, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"pred and target need the same length, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("pred and target must be finite. Fix: drop the answers that could not be parsed")
    return x, y


def _number(value: float) -> float | None:
    # A spread near the smallest representable number gives NaN.
    return float(value) if math.isfinite(value) else None
