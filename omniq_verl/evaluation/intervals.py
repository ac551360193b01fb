"""Bootstrap intervals over images: how far a figure would move with other images.

These are percentile intervals: images are drawn with replacement, and the middle ``level`` of the resulting figures is
the interval. A resample is stored as the number of times each image was drawn, so ranks need only one sort in total.

A figure can be undefined in a resample, for example a correlation if all drawn scores are equal. Such resamples are
dropped and counted. If they exceed ``MOST_UNDEFINED`` of all, there is no interval, because the dropped resamples could
be everything outside the bounds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from omniq_verl.evaluation.correlations import COEFFICIENTS, Numbers, checked_pairs

RESAMPLES = 1000
LEVEL = 0.95
MOST_UNDEFINED = 0.05
"""Largest share of undefined resamples for which an interval is given: the share that a 95% interval leaves out. Our
choice."""
_AT_ONCE = 2**21  # about the number of values that fit into the CPU caches


@dataclass(frozen=True)
class Interval:
    """Bounds of a figure; both None if there are too few images or too many undefined resamples."""

    low: float | None = None
    high: float | None = None
    undefined: int = field(default=0, compare=False)
    """Resamples in which the figure is undefined; they are dropped."""


def correlation_intervals(
    pred: Numbers, target: Numbers, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Interval]:
    """Compute bootstrap intervals of ``plcc``, ``srcc``, ``krcc`` and ``rmse``.

    Args:
        pred: predicted scores ``[N]``.
        target: labels ``[N]``.
        resamples: number of resamples; 1,000 is our choice.
        level: share of resamples inside the interval, in (0, 1).
        seed: seed of the draws; the same seed gives the same bounds.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    x, y = checked_pairs(pred, target)
    if len(x) < 3:
        return {name: Interval() for name in (*COEFFICIENTS, "rmse")}
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*COEFFICIENTS, "rmse")}
    ranks_x, ranks_y = Ranks(x), Ranks(y)
    for counts in draws(len(x), resamples, seed):
        found["plcc"].append(weighted_pearson(x, y, counts))
        found["srcc"].append(weighted_pearson(ranks_x.among(counts), ranks_y.among(counts), counts))
        found["krcc"].append(np.array([_kendall(x, y, drawn) for drawn in counts]))
        found["rmse"].append(np.sqrt(counts @ (x - y) ** 2 / len(x)))
    return {name: percentiles(np.concatenate(values), level) for name, values in found.items()}


def mean_interval(values: Numbers, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Interval:
    """Compute the interval of a mean, e.g. of an accuracy given as zeros and ones ``[N]``."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2:
        return Interval()
    means = [counts @ numbers / len(numbers) for counts in draws(len(numbers), resamples, seed)]
    return percentiles(np.concatenate(means), level)


def draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield chunks of resamples: how often each image is drawn, ``[resamples of a chunk, images]``, float64."""
    rng = np.random.default_rng(seed)
    share = np.full(images, 1 / images)
    some = max(1, _AT_ONCE // images)
    for first in range(0, resamples, some):
        yield rng.multinomial(images, share, size=min(some, resamples - first)).astype(np.float64)


class Ranks:
    """Ranks of values ``[N]`` within each resample."""

    def __init__(self, values: np.ndarray):
        _, self._group = np.unique(values, return_inverse=True)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.flatnonzero(np.diff(self._group[self._order], prepend=-1))

    def among(self, counts: np.ndarray) -> np.ndarray:
        """Rank each image's value in every resample, ``[resamples, N]``. Equal values get their mean rank."""
        of_group = np.add.reduceat(counts[:, self._order], self._starts, axis=1)
        return (np.cumsum(of_group, axis=1) - (of_group - 1) / 2)[:, self._group]


def weighted_pearson(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation in every resample ``[resamples]``; NaN if a side is constant.

    Args:
        x: ``[N]`` or ``[resamples, N]``.
        y: ``[N]`` or ``[resamples, N]``.
        counts: ``[resamples, N]``.
    """
    x, y = (side - _mean(side, counts) for side in (x, y))
    spread = np.sqrt(np.sum(counts * x * x, axis=1) * np.sum(counts * y * y, axis=1))
    together = np.sum(counts * x * y, axis=1)
    constant = [(counts > 0).sum(axis=1) < 2, _constant(x, counts), _constant(y, counts), spread == 0]
    return np.where(np.any(constant, axis=0), np.nan, together / np.where(spread > 0, spread, 1))


def _mean(side: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.sum(counts * side, axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)


def _constant(centred: np.ndarray, counts: np.ndarray) -> np.ndarray:
    drawn = counts > 0
    return np.where(drawn, centred, -np.inf).max(axis=1) == np.where(drawn, centred, np.inf).min(axis=1)


def _kendall(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> float:
    times = counts.astype(np.int64)
    drawn_x, drawn_y = np.repeat(x, times), np.repeat(y, times)
    if np.ptp(drawn_x) == 0 or np.ptp(drawn_y) == 0:
        return np.nan
    return stats.kendalltau(drawn_x, drawn_y)[0]


def percentiles(values: np.ndarray, level: float) -> Interval:
    """Return the middle ``level`` of the values ``[resamples]``. NaNs are dropped and counted.

    There is no interval if their share exceeds ``MOST_UNDEFINED``.
    """
    known = values[np.isfinite(values)]
    undefined = len(values) - len(known)
    if undefined > MOST_UNDEFINED * len(values) or not len(known):
        return Interval(undefined=undefined)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), undefined)
