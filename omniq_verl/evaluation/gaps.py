"""Explain gaps in a report's tables: dashes, missing intervals, dropped resamples and images."""

from collections.abc import Iterator, Mapping
from typing import Any

from omniq_verl.evaluation.intervals import MOST_UNDEFINED

NAMES = {"plcc": "PLCC", "srcc": "SRCC", "krcc": "KRCC", "rmse": "RMSE"}
RULE = (
    f"Resamples in which a figure is undefined are dropped; if they are more than {MOST_UNDEFINED:.0%}, there is no"
    " interval."
)
FIGURES = (*NAMES, "class_accuracy", "level_accuracy")


def gaps(metrics: Mapping[str, Any]) -> list[str]:
    """Write one sentence for each figure that a run's tables show as a dash or without an interval.

    Args:
        metrics: content of ``metrics.json``.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for where, figures in _measured(metrics["sets"]):
        for name in FIGURES:
            if reason := gap(figures.get(name), metrics["resamples"]):
                found.setdefault((where, reason), []).append(NAMES.get(name, name.replace("_", " ")))
    sentences = [f"{where}: {', '.join(names)}: {reason}." for (where, reason), names in found.items()]
    return [*sentences, *_ungrouped(metrics["sets"])]


def gap(figure: Mapping[str, Any] | None, resamples: int) -> str | None:
    """Say why a figure is a dash, has no interval, or dropped resamples; None if nothing is missing."""
    if figure is None:
        return None
    if figure["value"] is None:
        return f"undefined (-): {figure.get('why') or 'too few images, or all are equal'}"
    left_out = figure.get("undefined", 0)  # older runs do not have this key
    undefined = f"{left_out} of {resamples} resamples are undefined (all drawn scores or labels equal)"
    if figure["low"] is None:
        if left_out > MOST_UNDEFINED * resamples:
            return f"no interval: {undefined}, more than {MOST_UNDEFINED:.0%}"
        return "no interval: too few images"
    return f"{undefined} and dropped from the interval" if left_out else None


def _measured(sets: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, figures in sets.items():
        yield name, figures
        for key, groups in figures.get("groups", {}).items():
            yield from ((f"{name}, {key} {value}", one) for value, one in groups.items())


def _ungrouped(sets: Mapping[str, Any]) -> Iterator[str]:
    for name, figures in sets.items():
        for key, number in figures.get("ungrouped", {}).items():
            if number:
                yield f"{name} by {key}: {number} of {figures['images']} images have no {key!r} and belong to no group."
