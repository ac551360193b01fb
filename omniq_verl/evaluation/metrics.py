"""One line an image -> the figures of each data set and group."""

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
"""A confusion matrix's last column: answers that could not be read."""
IN_MEANS = (*COEFFICIENTS, "class_accuracy", "level_accuracy")


def all_metrics(
    images: pd.DataFrame, judged: pd.DataFrame, by: Sequence[str] = (), resamples: int = RESAMPLES
) -> dict[str, Any]:
    """``sets``: the figures of each data set (and of its groups), ``mean``: their plain means over the sets, of those
    figures that are defined in all.

    A set has ``groups`` and, for images that are in no group of a key, ``ungrouped``: how many they are.

    Args:
        images: of ``judging.per_image``.
        judged: of ``judging.judge_answers``.
        by: what to make groups by; see ``grouping.group_names``.
        resamples: of the bootstrap intervals.

    Raises:
        ValueError: ``by`` names what no row has, or what makes no groups.
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
    """The figures of images that were asked one task; answers that could not be read are counted apart.

    Returns:
        ``data_source``, ``task``, ``images``, ``scored`` (images with a parsed answer), ``bad_images`` (those that
        could not be read), ``unreadable`` (all others without a parsed answer), ``answers``, ``status`` (answers by
        parse status). Of a score: ``plcc``, ``srcc``, ``krcc``, ``rmse`` over the scored images and
        ``level_accuracy`` over all; ``mae``; ``spread`` (mean over images);
        ``fits`` (agreement after each curve of ``logistic.CURVES``). Of a distortion: ``class_accuracy`` over all
        images, ``level_accuracy`` over those with a distortion, both of each class in ``classes``, ``confusion``, and
        ``level_confusion`` of those with the right class. Each figure with an interval has ``value`` (None where it is
        not defined, with ``why``), ``n`` (images it is over), ``low`` and ``high`` (None: no interval) and
        ``undefined`` (resamples it is not defined in, which the interval leaves out).
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


def confusion(target: pd.Series, said: pd.Series, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Answers by label (outer) and by what was said (inner), for each name, "other" and "rejected"."""
    known = said.where(said.isin(names) | said.isna(), "other").fillna(REJECTED)
    table = pd.crosstab(target, known).reindex(index=[*names], columns=[*names, "other", REJECTED], fill_value=0)
    return {label: {column: int(number) for column, number in row.items()} for label, row in table.iterrows()}


def _accuracy(right: pd.Series, resamples: int) -> dict[str, Any]:
    right = right.dropna()
    value = float(right.mean()) if len(right) else None
    return figure(value, mean_interval(right.to_numpy(float), resamples), len(right), "no image has such a label")


def figure(value: float | None, bounds: Interval, n: int, why: str | None) -> dict[str, Any]:
    """A figure as ``metrics.json`` has it."""
    return {"value": value, "n": n, **asdict(bounds), "why": why if value is None else None}


def undefined_reason(pred: np.ndarray, target: np.ndarray) -> str | None:
    """Why a correlation of these is not defined; None where nothing speaks against it."""
    if len(pred) < 3:
        return f"{len(pred) or 'no'} {'image' if len(pred) == 1 else 'images'} scored, and three are needed"
    alike = {"scores": np.ptp(pred) == 0, "labels": np.ptp(target) == 0}
    return " and ".join(f"all {name} are equal" for name, yes in alike.items() if yes) or "too small a spread"


def _means(sets: list[dict[str, Any]]) -> dict[str, float]:
    found = {name: [one[name]["value"] for one in sets if name in one] for name in IN_MEANS}
    return {name: float(np.mean(values)) for name, values in found.items() if values and None not in values}
