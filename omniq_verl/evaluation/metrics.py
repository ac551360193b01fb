"""One line an image -> the figures of each data set and group."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from omniq_verl.evaluation.correlations import COEFFICIENTS, correlations
from omniq_verl.evaluation.intervals import LEVEL, RESAMPLES, correlation_intervals, mean_interval
from omniq_verl.evaluation.judging import NO_DISTORTION
from omniq_verl.evaluation.logistic import CURVES, fit_curve
from omniq_verl.tasks import DISTORTIONS, SEVERITIES

REFUSED = "refused"
"""A confusion matrix's last column: answers that could not be read."""
IN_MEANS = (*COEFFICIENTS, "class_accuracy", "level_accuracy")


def all_metrics(
    images: pd.DataFrame, judged: pd.DataFrame, by: Sequence[str] = (), resamples: int = RESAMPLES
) -> dict[str, Any]:
    """``sets``: the figures of each data set (and of its groups), ``mean``: their plain means over the sets, of those
    figures that are defined in all.

    Args:
        images: of ``judging.per_image``.
        judged: of ``judging.judge_answers``.
        by: columns of ``images`` or keys of its ``details`` to make groups by.
        resamples: of the bootstrap intervals.

    Raises:
        ValueError: ``by`` names what no row has.
    """
    groups = {name: group_names(images, name) for name in by}
    sets = {}
    for name, mine in images.groupby("set", sort=False):
        sets[name] = set_metrics(mine, judged[judged.key.isin(mine.key)], resamples)
        for key, names in groups.items():
            of_group = mine.groupby(names[mine.index], sort=True)
            found = {str(value): _group(some, judged, resamples) for value, some in of_group}
            if found:
                sets[name].setdefault("groups", {})[key] = found
    return {"sets": sets, "mean": _means(list(sets.values()))}


def group_names(images: pd.DataFrame, key: str) -> pd.Series:
    """The group of each image; missing where it has none.

    Raises:
        ValueError: no image has one.
    """
    if key in images.columns and key != "details":
        return images[key]
    names = images.details.map(lambda text: json.loads(text or "{}").get(key))
    if names.isna().all():
        known = sorted({name for text in images.details.head(1000) for name in json.loads(text or "{}")})
        raise ValueError(f"no row has {key!r} to make groups by; its details have {', '.join(known) or 'nothing'}")
    return names


def _group(images: pd.DataFrame, judged: pd.DataFrame, resamples: int) -> dict[str, Any]:
    return set_metrics(images, judged[judged.key.isin(images.key)], resamples)


def set_metrics(images: pd.DataFrame, judged: pd.DataFrame, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The figures of images that were asked one task; answers that could not be read are counted apart.

    Returns:
        ``data_source``, ``task``, ``images``, ``scored`` (images with a parsed answer), ``answers``, ``status``
        (answers by parse status). Of a score: ``plcc``, ``srcc``, ``krcc``, ``rmse`` over the scored images and
        ``level_accuracy`` over all, each with ``value``, ``low``, ``high``; ``mae``; ``spread`` (mean over images);
        ``fits`` (agreement after each curve of ``logistic.CURVES``). Of a distortion: ``class_accuracy`` over all
        images, ``level_accuracy`` over those with a distortion, both of each class in ``classes``, ``confusion``, and
        ``level_confusion`` of those with the right class. An accuracy of no image has the value None.
    """
    first = images.iloc[0]
    figures = {
        "data_source": first.data_source,
        "task": first.task,
        "images": len(images),
        "scored": int((images.parsed > 0).sum()),
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
    return {
        **{name: {"value": values[name], **asdict(bounds[name])} for name in (*COEFFICIENTS, "rmse")},
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
    """Answers by label (outer) and by what was said (inner), for each name, "other" and "refused"."""
    known = said.where(said.isin(names) | said.isna(), "other").fillna(REFUSED)
    table = pd.crosstab(target, known).reindex(index=[*names], columns=[*names, "other", REFUSED], fill_value=0)
    return {label: {column: int(number) for column, number in row.items()} for label, row in table.iterrows()}


def _accuracy(right: pd.Series, resamples: int) -> dict[str, float | None]:
    right = right.dropna()
    value = float(right.mean()) if len(right) else None
    return {"value": value, **asdict(mean_interval(right.to_numpy(float), resamples))}


def _means(sets: list[dict[str, Any]]) -> dict[str, float]:
    found = {name: [one[name]["value"] for one in sets if name in one] for name in IN_MEANS}
    return {name: float(np.mean(values)) for name, values in found.items() if values and None not in values}
