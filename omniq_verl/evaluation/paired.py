"""Paired tests of whether one run is better than another on the same images, by correlation and absolute error.

Two runs on the same images make related mistakes, so their intervals may overlap although one is clearly better.
Therefore images are resampled together, and the difference gets its own interval (Efron and Tibshirani, An Introduction
to the Bootstrap, 1993, chapters 13 and 16). All functions are pure.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from omniq_verl.evaluation.correlations import Numbers, checked_pairs, correlations
from omniq_verl.evaluation.intervals import LEVEL, Ranks, draws, percentiles, weighted_pearson

STATISTICS = ("plcc", "srcc")
TESTS = (*STATISTICS, "mae")
_LABELS_DIFFER = 1e-6
"""Tolerance above the rounding error of labels stored in 32 bits."""


@dataclass(frozen=True)
class PairedDifference:
    """The first prediction's correlation minus the second's, on the same images."""

    statistic: str
    n: int
    """Number of images."""
    a: float | None
    b: float | None
    difference: float | None
    """a - b, in [-2, 2]; None if one of them is undefined."""
    low: float | None
    high: float | None
    """Bounds of the interval of the difference."""
    p: float | None
    """Two-sided p-value, not corrected for multiple comparisons."""
    resamples: int
    """Resamples used for interval and p. Those with a constant side are dropped, up to 5%."""
    reason: str | None
    """Why a value is None."""


@dataclass(frozen=True)
class ErrorDifference:
    """The first prediction's mean absolute error minus the second's, on the same images."""

    n: int
    a: float | None
    b: float | None
    difference: float | None
    """a - b, in units of the target. Below 0, the first has the smaller error."""
    p: float | None
    """Two-sided p of Wilcoxon's signed-rank test, not corrected for multiple comparisons."""
    reason: str | None
    """Why a value is None."""


def paired_difference(
    pred_a: Numbers,
    pred_b: Numbers,
    target: Numbers,
    statistic: str = "srcc",
    resamples: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> PairedDifference:
    """Return the difference of two correlations with the same targets, with its percentile interval and p-value.

    Each resample draws the same images for both predictions and the target, and computes new ranks. p is twice the
    smaller of two shares: that of the resamples with a difference <= 0, and that of those with a difference >= 0, with
    one added to both counts. It is never 0, and it is 1 for equal predictions.

    Args:
        pred_a: scores of the first run ``[N]``.
        pred_b: scores of the second run ``[N]``, in the same order.
        target: labels ``[N]``.
        statistic: ``"srcc"`` or ``"plcc"``.
        resamples: number of resamples, >= 1; 2,000 is our choice.
        level: level of the interval, in (0, 1).
        seed: the same seed gives the same result.

    Raises:
        ValueError: the statistic is unknown, a number is out of range, lengths differ, or a value is not finite.
    """
    if statistic not in STATISTICS or resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"statistic must be one of {', '.join(STATISTICS)}, resamples >= 1, level in (0, 1); "
            f"got {statistic!r}, {resamples}, {level}"
        )
    a, b = correlations(pred_a, target)[statistic], correlations(pred_b, target)[statistic]
    n = len(target)
    if a is None or b is None:
        return PairedDifference(statistic, n, a, b, None, None, None, None, 0, _reason(pred_a, pred_b, target))
    sides = [np.asarray(side, np.float64) for side in (pred_a, pred_b, target)]
    differences = _resampled(sides, statistic, resamples, seed)
    bounds, known = percentiles(differences, level), differences[~np.isnan(differences)]
    if bounds.low is None:
        why = f"in {len(differences) - len(known)} of {len(differences)} resamples all scores or labels are equal"
        return PairedDifference(statistic, n, a, b, a - b, None, None, None, len(known), why)
    smaller = int(min((known <= 0).sum(), (known >= 0).sum()))
    p = min(1.0, 2 * (smaller + 1) / (len(known) + 1))
    return PairedDifference(statistic, n, a, b, a - b, bounds.low, bounds.high, p, len(known), None)


def absolute_error_difference(pred_a: Numbers, pred_b: Numbers, target: Numbers) -> ErrorDifference:
    """Return the difference of the mean absolute errors, and Wilcoxon's signed-rank test on the errors by image.

    Images with equal errors are dropped from the test (Wilcoxon's rule); if all are equal, p is 1. There is no test for
    fewer than three images.

    Args:
        pred_a: scores of the first run ``[N]``.
        pred_b: scores of the second run ``[N]``, in the same order.
        target: labels ``[N]``.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    pairs = [checked_pairs(pred, target) for pred in (pred_a, pred_b)]
    # Without rounding, equal errors (3.5 and 2.9 for 3.2) differ in the last bit and are not recognised as ties.
    errors = [np.round(np.abs(scores - labels), 9) for scores, labels in pairs]
    n = len(target)
    if n == 0:
        return ErrorDifference(0, None, None, None, None, "no image")
    a, b = (float(error.mean()) for error in errors)
    if n < 3:
        return ErrorDifference(n, a, b, a - b, None, "fewer than three images")
    apart = errors[0] - errors[1]
    p = float(stats.wilcoxon(apart).pvalue) if apart.any() else 1.0
    return ErrorDifference(n, a, b, a - b, p, None)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for multiple tests (Holm, Scandinavian Journal of Statistics 6, 1979); None stays None.

    If all corrected values below 0.05 are called significant, the chance of one or more false ones is at most 0.05.
    """
    given = sorted((p, ref) for ref, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for before, (p, ref) in enumerate(given):
        largest = max(largest, min(1.0, p * (len(given) - before)))
        corrected[ref] = largest
    return corrected


def resamples_for(comparisons: int) -> int:
    """Return the number of resamples with which the corrected p can reach 0.01; the smallest raw p is 2 / resamples."""
    return max(2000, 200 * comparisons)


def join_images(first: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """Join the images of both runs (outer join): ``target_first``, ``score_first``, ``score_other``.

    Args:
        first: ``target`` and ``score`` (NaN: none), uniquely indexed by data source, task and key.
        other: the same for the other run.
        names: names of the runs, for the error message.

    Raises:
        ValueError: the runs have different labels for an image.
    """
    images = first.add_suffix("_first").join(other.add_suffix("_other"), how="outer")
    apart = images[(images.target_first - images.target_other).abs() > _LABELS_DIFFER]
    if len(apart):
        source, _, key = apart.index[0]
        raise ValueError(
            f"{key} of {source} has the label {apart.iloc[0].target_first:g} in {names[0]} and "
            f"{apart.iloc[0].target_other:g} in {names[1]} ({len(apart)} images differ); "
            "only runs with the same labels on the same scale can be compared"
        )
    return images


def compare_scores(images: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """Run all tests over the images of a set that both runs scored.

    Args:
        images: from ``join_images``.
        resamples: number of bootstrap resamples.

    Returns:
        ``images`` (scored by both), ``only_first`` and ``only_other`` (scored by only one), and the tests as dicts:
        ``plcc`` and ``srcc`` as ``PairedDifference``, ``mae`` as ``ErrorDifference``.
    """
    by_first, by_other = images.score_first.notna(), images.score_other.notna()
    both = images[by_first & by_other]
    first, other, target = (both[column].to_numpy(float) for column in ("score_first", "score_other", "target_first"))
    return {
        "images": len(both),
        "only_first": int((by_first & ~by_other).sum()),
        "only_other": int((by_other & ~by_first).sum()),
        **{name: asdict(paired_difference(first, other, target, name, resamples)) for name in STATISTICS},
        "mae": asdict(absolute_error_difference(first, other, target)),
    }


def _reason(pred_a: Numbers, pred_b: Numbers, target: Numbers) -> str:
    if len(target) < 3:
        return "fewer than three images"
    sides = {"targets": target, "scores of the first": pred_a, "scores of the second": pred_b}
    return "constant " + " and ".join(name for name, side in sides.items() if np.ptp(side) == 0)


def _resampled(sides: Sequence[np.ndarray], statistic: str, resamples: int, seed: int) -> np.ndarray:
    """Return the differences ``[resamples]``; NaN if a side is constant."""
    found, ranks = [], [Ranks(side) for side in sides]
    for counts in draws(len(sides[0]), resamples, seed):
        a, b, target = sides if statistic == "plcc" else (side.among(counts) for side in ranks)
        found.append(weighted_pearson(a, target, counts) - weighted_pearson(b, target, counts))
    return np.concatenate(found)
