"""Compute the figures of each data set and group from a table with one row per image."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from omniq_verl.evaluation.answers import BAD_IMAGE, NO_DISTORTION
from omniq_verl.evaluation.correlations import COEFFICIENTS, correlations
from omniq_verl.evaluation.grouping import group_names, in_order
from omniq_verl.evaluation.intervals import LEVEL, RESAMPLES, Interval, correlation_intervals, mean_interval
from omniq_verl.evaluation.logistic import CURVES, fit_curve
from omniq_verl.tasks import DISTORTIONS, SEVERITIES

REJECTED = "rejected"
"""Last column of a confusion matrix: answers that could not be parsed."""
IN_MEANS = (*COEFFICIENTS, "class_accuracy", "level_accuracy")


def all_metrics(
    images: pd.DataFrame, judged: pd.DataFrame, by: Sequence[str] = (), resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Compute the figures of all data sets.

    Returns ``sets``, the figures of each data set and its groups, and ``mean``, plain means over the sets for figures
    that are defined in all of them. A set has ``groups`` and, for each grouping key, ``ungrouped``: the number of
    images without that key.

    Args:
        images: from ``answers.per_image``.
        judged: from ``answers.judge_answers``.
        by: grouping keys; see ``grouping.group_names``.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: no row has a key in ``by``, or a key cannot form groups.
    """
    groups = {name: group_names(images, name) for name in by}
    sets = {}
    for name, mine in images.groupby("set", sort=False):
        sets[name] = set_metrics(mine, judged[judged.key.isin(mine.key)], resamples)
        for key, names in groups.items():
            of_set = names[mine.index]
            if (missing := int(of_set.isna().sum())) < len(mine):
                found = {value: _group(mine[of_set == value], judged, resamples) for value in in_order(of_set)}
                sets[name].setdefault("groups", {})[key] = found
                sets[name].setdefault("ungrouped", {})[key] = missing
    return {"sets": sets, "mean": _means(list(sets.values()))}


def _group(images: pd.DataFrame, judged: pd.DataFrame, resamples: int) -> dict[str, Any]:
    return set_metrics(images, judged[judged.key.isin(images.key)], resamples)


def set_metrics(images: pd.DataFrame, judged: pd.DataFrame, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Compute the figures of images with the same task. Answers that cannot be parsed are counted separately.

    Returns:
        ``data_source``, ``task``, ``images``, ``scored`` (images with a parsed answer), ``bad_images`` (images that
        could not be read), ``unreadable`` (all others without a parsed answer), ``answers``, ``status`` (answers by
        parse status). For scores: ``plcc``, ``srcc``, ``krcc``, ``rmse`` over the scored images, ``level_accuracy``
        over all, ``mae``, ``spread`` (mean over images) and ``fits`` (agreement after each curve of
        ``logistic.CURVES``). For distortions: ``class_accuracy`` over all images, ``level_accuracy`` over those with a
        distortion, both per class in ``classes``, ``confusion``, and ``level_confusion`` over those with the correct
        class. Each figure with an interval has ``value`` (None if undefined, with ``why``), ``n`` (number of images),
        ``low`` and ``high`` (None: no interval) and ``undefined`` (number of resamples that were dropped because it is
        undefined there).
    """
    first = images.iloc[0]
    scored, bad = int((images.parsed > 0).sum()), judged[judged.status == BAD_IMAGE].key.nunique()
    figures = {
        "data_source": first.data_source,
        "task": first.task,
        "images": len(images),
        "scored": scored,
        "bad_images": bad,
        "unreadable": len(images) - scored - bad,
        "answers": int(images.answers.sum()),
        "status": {name: int(number) for name, number in judged.status.value_counts().items()},
        "level_accuracy": _accuracy(images.level_right, resamples),
    }
    asked = _of_scores if images.target.notna().any() else _of_distortions
    return {**figures, **asked(images, judged, resamples)}


def _of_scores(images: pd.DataFrame, _judged: pd.DataFrame, resamples: int) -> dict[str, Any]:
    scored = images[images.score.notna()]
    pred, target = scored.score.to_numpy(float), scored.target.to_numpy(float)
    values, bounds = correlations(pred, target), correlation_intervals(pred, target, resamples, LEVEL)
    why = undefined_reason(pred, target)
    return {
        **{name: figure(values[name], bounds[name], len(pred), why) for name in (*COEFFICIENTS, "rmse")},
        "mae": float(np.abs(pred - target).mean()) if len(pred) else None,
        "spread": float(scored.spread.mean()) if len(scored) else None,
        "fits": {name: asdict(fit_curve(pred, target, name)) for name in CURVES},
    }


def _of_distortions(images: pd.DataFrame, judged: pd.DataFrame, resamples: int) -> dict[str, Any]:
    answers = judged.join(images.set_index("key")[["class_target", "level_target"]], on="key")
    right = answers[answers.distortion == answers.class_target]
    return {
        "class_accuracy": _accuracy(images.class_right, resamples),
        "classes": {name: _of_class(some, resamples) for name, some in images.groupby("class_target")},
        "confusion": confusion(answers.class_target, answers.distortion, (*DISTORTIONS, NO_DISTORTION)),
        "level_confusion": confusion(right.level_target, right.severity, (*SEVERITIES, NO_DISTORTION)),
    }


def _of_class(images: pd.DataFrame, resamples: int) -> dict[str, Any]:
    return {
        "images": len(images),
        "class_accuracy": _accuracy(images.class_right, resamples),
        "level_accuracy": _accuracy(images.level_right, resamples),
    }


def confusion(target: pd.Series, answered: pd.Series, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count answers by label (outer) and by answer (inner), for each name, "other" and "rejected"."""
    known = answered.where(answered.isin(names) | answered.isna(), "other").fillna(REJECTED)
    table = pd.crosstab(target, known).reindex(index=[*names], columns=[*names, "other", REJECTED], fill_value=0)
    return {str(label): {str(column): int(number) for column, number in row.items()} for label, row in table.iterrows()}


def _accuracy(right: pd.Series, resamples: int) -> dict[str, Any]:
    right = right.dropna()
    value = float(right.mean()) if len(right) else None
    return figure(value, mean_interval(right.to_numpy(float), resamples), len(right), "no image has such a label")


def figure(value: float | None, bounds: Interval, n: int, why: str | None) -> dict[str, Any]:
    """Return a figure in the form of ``metrics.json``."""
    return {"value": value, "n": n, **asdict(bounds), "why": why if value is None else None}


def undefined_reason(pred: np.ndarray, target: np.ndarray) -> str | None:
    """Say why a correlation is undefined; None if nothing rules it out."""
    if len(pred) < 3:
        return f"{len(pred) or 'no'} {'image' if len(pred) == 1 else 'images'} scored, but three are needed"
    alike = {"scores": np.ptp(pred) == 0, "labels": np.ptp(target) == 0}
    return " and ".join(f"all {name} are equal" for name, yes in alike.items() if yes) or "too small a spread"


def _means(sets: list[dict[str, Any]]) -> dict[str, float]:
    found = {name: [one[name]["value"] for one in sets if name in one] for name in IN_MEANS}
    return {name: float(np.mean(values)) for name, values in found.items() if values and None not in values}
