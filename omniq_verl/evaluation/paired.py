"""Is one run better than another on the same images? Paired tests of correlations and of absolute errors. Pure.

Two runs over the same images make related mistakes, so that their intervals may overlap although one is clearly better:
images are resampled together, and the difference has its own interval (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 13 and 16).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from omniq_verl.evaluation.correlations import checked_pairs, correlations
from omniq_verl.evaluation.intervals import LEVEL, Ranks, draws, percentiles, weighted_pearson

STATISTICS = ("plcc", "srcc")
TESTS = (*STATISTICS, "mae")
_LABELS_DIFFER = 1e-6
"""Beyond what a label loses on its way through 32 bits."""


@dataclass(frozen=True)
class PairedDifference:
    """What the first prediction's correlation has over the second's, on the same images."""

    statistic: str
    n: int
    """Images."""
    a: float | None
    b: float | None
    difference: float | None
    """a - b, in [-2, 2]; None where one of them is not defined."""
    low: float | None
    high: float | None
    """The interval of the difference."""
    p: float | None
    """Two-sided, not corrected for other comparisons."""
    resamples: int
    """Those that went into interval and p; a resample in which a side is constant is left out, at most 5% of them."""
    reason: str | None
    """Why something is None."""


@dataclass(frozen=True)
class ErrorDifference:
    """What the first prediction's mean absolute error has over the second's, on the same images."""

    n: int
    a: float | None
    b: float | None
    difference: float | None
    """a - b, in the unit of the target; below 0 the first errs less."""
    p: float | None
    """Two-sided, of Wilcoxon's signed-rank test; not corrected for other comparisons."""
    reason: str | None
    """Why something is None."""


def paired_difference(
    pred_a: Sequence[float],
    pred_b: Sequence[float],
    target: Sequence[float],
    statistic: str = "srcc",
    resamples: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> PairedDifference:
    """Difference of two correlations with the same targets, its percentile interval and p-value.

    Each resample takes the same images of both predictions and of the target; ranks are taken anew in it. p is twice
    the smaller of two shares, of the resamples with a difference of at most 0 and of at least 0, one added to both
    numbers: never 0, and 1 for equal predictions.

    Args:
        pred_a: scores of the first run ``[N]``.
        pred_b: scores of the second ``[N]``, in the same order.
        target: labels ``[N]``.
        statistic: ``"srcc"`` or ``"plcc"``.
        resamples: from 1; 2,000 is ours.
        level: of the interval, within (0, 1).
        seed: the same seed gives the same result.

    Raises:
        ValueError: another statistic, a number out of its range, lengths that differ, a value that is not finite.
    """
    if statistic not in STATISTICS or resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"statistic one of {', '.join(STATISTICS)}, resamples from 1, level within (0, 1); "
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


def absolute_error_difference(
    pred_a: Sequence[float], pred_b: Sequence[float], target: Sequence[float]
) -> ErrorDifference:
    """Difference of the mean absolute errors, and Wilcoxon's signed-rank test on the errors image by image.

    Images with equal errors are left out of the test (Wilcoxon's own rule); if all are, p is 1. There is no test of
    fewer than three images.

    Args:
        pred_a: scores of the first run ``[N]``.
        pred_b: scores of the second ``[N]``, in the same order.
        target: labels ``[N]``.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    pairs = [checked_pairs(pred, target) for pred in (pred_a, pred_b)]
    # Without rounding, errors that are equal on paper (3.5 and 2.9 of 3.2) differ in their last bit and are no ties.
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
    """The p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979); None stays None.

    Below 0.05 in what comes back holds for all of them together: the chance of one or more false finds is at most 0.05.
    """
    given = sorted((p, ref) for ref, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for before, (p, ref) in enumerate(given):
        largest = max(largest, min(1.0, p * (len(given) - before)))
        corrected[ref] = largest
    return corrected


def resamples_for(comparisons: int) -> int:
    """So many that p can get to 0.01 after the correction: 2 / resamples is the least it is before."""
    return max(2000, 200 * comparisons)


def join_images(first: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """The images of two runs side by side, those of one alone too: ``target_first``, ``score_first``, ``score_other``.

    Args:
        first: ``target`` and ``score`` (NaN: none), indexed by data source, task and key, each once.
        other: likewise.
        names: of the runs, for the message.

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
            "only runs over the same labels on the same scale can be compared"
        )
    return images


def compare_scores(images: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """All tests over the images of one set that both runs scored.

    Args:
        images: of ``join_images``.
        resamples: of each bootstrap.

    Returns:
        ``images`` (both scored), ``only_first`` and ``only_other`` (scored by one alone), and the tests as dicts:
        ``plcc`` and ``srcc`` of ``PairedDifference``, ``mae`` of ``ErrorDifference``.
    """
    by_first, by_other = images.score_first.notna(), images.score_other.notna()
    both = images[by_first & by_other]
    sides = [both[column].to_numpy(float) for column in ("score_first", "score_other", "target_first")]
    return {
        "images": len(both),
        "only_first": int((by_first & ~by_other).sum()),
        "only_other": int((by_other & ~by_first).sum()),
        **{name: asdict(paired_difference(*sides, statistic=name, resamples=resamples)) for name in STATISTICS},
        "mae": asdict(absolute_error_difference(*sides)),
    }


def _reason(pred_a: Sequence[float], pred_b: Sequence[float], target: Sequence[float]) -> str:
    if len(target) < 3:
        return "fewer than three images"
    sides = {"targets": target, "scores of the first": pred_a, "scores of the second": pred_b}
    return "constant " + " and ".join(name for name, side in sides.items() if np.ptp(side) == 0)


def _resampled(sides: Sequence[np.ndarray], statistic: str, resamples: int, seed: int) -> np.ndarray:
    """The differences ``[resamples]``; NaN where a side is constant."""
    found, ranks = [], [Ranks(side) for side in sides]
    for counts in draws(len(sides[0]), resamples, seed):
        a, b, target = sides if statistic == "plcc" else (side.among(counts) for side in ranks)
        found.append(weighted_pearson(a, target, counts) - weighted_pearson(b, target, counts))
    return np.concatenate(found)
