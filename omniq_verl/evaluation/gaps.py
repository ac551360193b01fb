"""What is not in a report's tables, and why: dashes, missing intervals, resamples and images that were left out."""

from collections.abc import Iterator, Mapping
from typing import Any

from omniq_verl.evaluation.intervals import MOST_UNDEFINED

NAMES = {"plcc": "PLCC", "srcc": "SRCC", "krcc": "KRCC", "rmse": "RMSE"}
RULE = (
    f"A resample in which a figure is undefined is left out; with more than {MOST_UNDEFINED:.0%} of such resamples"
    " there is no interval."
)
FIGURES = (*NAMES, "class_accuracy", "level_accuracy")


def gaps(metrics: Mapping[str, Any]) -> list[str]:
    """One sentence for everything that the tables of a run show as a dash or without an interval.

    Args:
        metrics: of ``metrics.json``.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for where, figures in _measured(metrics["sets"]):
        for name in FIGURES:
            if reason := gap(figures.get(name), metrics["resamples"]):
                found.setdefault((where, reason), []).append(NAMES.get(name, name.replace("_", " ")))
    said = [f"{where}: {', '.join(names)}: {reason}." for (where, reason), names in found.items()]
    return [*said, *_ungrouped(metrics["sets"])]


def gap(figure: Mapping[str, Any] | None, resamples: int) -> str | None:
    """Why a figure is a dash or has no interval, or what its interval leaves out; None: nothing is missing."""
    if figure is None:
        return None
    if figure["value"] is None:
        return f"not defined (-), {figure.get('why') or 'too few images, or all alike'}"
    left_out = figure.get("undefined", 0)  # runs from before they were counted have none
    undefined = f"{left_out} of {resamples} resamples are undefined (all drawn scores or labels equal)"
    if figure["low"] is None:
        if left_out > MOST_UNDEFINED * resamples:
            return f"no interval, as {undefined}, more than {MOST_UNDEFINED:.0%}"
        return "no interval, as there are too few images"
    return f"{undefined} and left out of the interval" if left_out else None


def _measured(sets: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, figures in sets.items():
        yield name, figures
        for key, groups in figures.get("groups", {}).items():
            yield from ((f"{name}, {key} {value}", one) for value, one in groups.items())


def _ungrouped(sets: Mapping[str, Any]) -> Iterator[str]:
    for name, figures in sets.items():
        for key, number in figures.get("ungrouped", {}).items():
            if number:
                yield f"{name} by {key}: {number} of {figures['images']} images have no {key!r} and are in no group."
