"""Correlations with the labels, and their bootstrap intervals over images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from omniq_verl.evaluation.correlations import Numbers, checked_pairs, correlations
from omniq_verl.evaluation.intervals import LEVEL, RESAMPLES, Interval, Ranks, draws, percentiles, weighted_pearson
from omniq_verl.findings.page import as_figure, with_interval

COEFFICIENTS = ("plcc", "srcc")


def agreement(pred: Numbers, target: Numbers, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return PLCC and SRCC with their intervals, in the form of a page's JSON. An undefined value is None.

    Args:
        pred: scores ``[N]``.
        target: labels ``[N]``.
        resamples: bootstrap resamples over images.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    values = correlations(pred, target)
    bounds = correlation_bounds(pred, target, resamples)
    return {name: as_figure(values[name], bounds[name], len(pred)) for name in COEFFICIENTS}


def correlation_bounds(
    pred: Numbers, target: Numbers, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return the intervals of PLCC and SRCC that ``evaluation.intervals.correlation_intervals`` gives.

    Kendall's coefficient takes most of that function's time, so it is left out here.
    """
    return mean_correlation_bounds([pred], target, resamples, seed)


def mean_correlation_bounds(
    preds: Sequence[Numbers] | np.ndarray, target: Numbers, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return intervals of the mean correlation of several predictions. All share the images that a resample draws.

    Args:
        preds: scores of each prediction ``[P, N]``.
        target: labels ``[N]``.
        resamples: bootstrap resamples over images.
        seed: seed of the draws.
    """
    pairs = [checked_pairs(pred, target) for pred in preds]
    if len(target) < 3:
        return {name: Interval() for name in COEFFICIENTS}
    y = pairs[0][1]
    ranks_y, ranks = Ranks(y), [Ranks(x) for x, _ in pairs]
    found: dict[str, list[np.ndarray]] = {name: [] for name in COEFFICIENTS}
    for counts in draws(len(y), resamples, seed):
        found["plcc"].append(np.mean([weighted_pearson(x, y, counts) for x, _ in pairs], axis=0))
        of_y = ranks_y.among(counts)
        found["srcc"].append(np.mean([weighted_pearson(one.among(counts), of_y, counts) for one in ranks], axis=0))
    return {name: percentiles(np.concatenate(values), LEVEL) for name, values in found.items()}


def cell(figure: dict[str, Any], form: str = ".3f") -> str:
    """Format a value from ``agreement`` for a table."""
    return with_interval(figure["value"], Interval(figure["low"], figure["high"]), form)
