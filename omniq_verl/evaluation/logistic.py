"""Logistic curves fitted to scores before computing PLCC and RMSE, as VQEG does."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import expit

from omniq_verl.evaluation.correlations import Numbers, checked_pairs, correlations


def logistic4(x: np.ndarray, top: float, bottom: float, middle: float, width: float) -> np.ndarray:
    """``(b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2``: VQEG FR-TV phase II (2003), four parameters."""
    return (top - bottom) * expit((x - middle) / abs(width)) + bottom


def logistic5(x: np.ndarray, b1: float, b2: float, b3: float, b4: float, b5: float) -> np.ndarray:
    """``b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5``: Sheikh, Sabir, Bovik (2006), equation 14."""
    return b1 * (0.5 - expit(-b2 * (x - b3))) + b4 * x + b5


CURVES = {"logistic4": logistic4, "logistic5": logistic5}


@dataclass(frozen=True)
class Fit:
    """A fitted curve and the agreement after it; all None if it could not be fitted, with ``why``."""

    parameters: list[float] | None = None
    plcc: float | None = None
    rmse: float | None = None
    why: str | None = None


def fit_curve(pred: Numbers, target: Numbers, name: str = "logistic4") -> Fit:
    """Fit a curve from scores to labels by least squares.

    Args:
        pred: predicted scores ``[N]``.
        target: labels ``[N]``.
        name: key of ``CURVES``.

    Raises:
        ValueError: lengths differ, a value is not finite, or the curve is unknown.
    """
    if name not in CURVES:
        raise ValueError(f"unknown curve {name!r}; known: {', '.join(CURVES)}")
    x, y = checked_pairs(pred, target)
    if len(x) < 6 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Fit(why=f"{len(x)} pairs, or one side constant: too little data for {name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # it warns about the covariance, which is not used
            found, _ = curve_fit(CURVES[name], x, y, _start(x, y, name), maxfev=20_000)
    except RuntimeError as error:
        return Fit(why=f"{name} could not be fitted ({error})")
    agreement = correlations(CURVES[name](x, *found), y)
    return Fit(list(map(float, found)), agreement["plcc"], agreement["rmse"])


def _start(x: np.ndarray, y: np.ndarray, name: str) -> list[float]:
    width = float(np.std(x)) or 1.0
    rising = 1.0 if np.corrcoef(x, y)[0, 1] >= 0 else -1.0
    low, high = (y.min(), y.max())[:: int(rising)]
    if name == "logistic4":
        return [float(high), float(low), float(np.mean(x)), width]
    slope = rising * np.std(y) / width
    return [float(high - low), 1 / width, float(np.mean(x)), float(slope * 0.1), float(np.mean(y))]
