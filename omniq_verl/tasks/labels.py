"""Parse and check a row's task and label, for rewards, evaluation and every reader of prepared rows."""

import json
import math
from collections.abc import Mapping
from typing import Any

from omniq_verl.tasks.task import Scale, Task

_LONGEST = 80  # maximum characters of a wrong value in an error message
_EXAMPLES = {
    "score": {"score": 3.2},
    "scores": {"scores": {"quality": 3.2, "aesthetics": 4.0}},
    "choice": {"choice": "first"},
    "degradation": {"distortion_class": "blur", "severity": "slight"},
}
"""An example label of each kind, for error messages."""


def shown(value: object) -> str:
    """Format a wrong value as one short line, for error messages."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def read_scale(info: Mapping[str, Any]) -> Scale | None:
    """Return the scale in ``scale_low`` and ``scale_high``; None if the row has none (None, or NaN from pandas).

    Raises:
        ValueError: only one end is set, or the ends are not two finite numbers in ascending order.
    """
    bounds: dict[str, Any] = {name: info.get(name) for name in ("scale_low", "scale_high")}
    missing = [name for name, value in bounds.items() if value is None or value != value]
    if len(missing) == 2:
        return None
    if missing or not all(is_number(value) for value in bounds.values()):
        named = " and ".join(f"{name} is {shown(value)}" for name, value in bounds.items())
        raise ValueError(f"extra_info.{named}. Fix: write two numbers, or remove both")
    low, high = map(float, bounds.values())
    if not low < high:
        raise ValueError(f"extra_info.scale_low is {low:g}, which is not below scale_high, {high:g}. Fix: correct them")
    return Scale(low, high)


def read_truth(task: Task, text: object) -> dict[str, Any]:
    """Parse and check a row's label.

    Args:
        task: the row's task, on the row's scale.
        text: the row's ``reward_model.ground_truth``: ``{"score": s}``, ``{"scores": {head: s}}``, ``{"choice": c}``
            or ``{"distortion_class": c, "severity": s}`` as JSON.

    Raises:
        ValueError: the text is not such an object, or the label does not fit the task.
    """
    example = json.dumps(_EXAMPLES[task.asks_for])
    try:
        truth = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        truth = None
    if not isinstance(truth, dict):
        raise ValueError(f"reward_model.ground_truth is {shown(text)}, not a JSON object as text. Fix: write {example}")
    if fault := task.label_fault(truth):
        raise ValueError(f"reward_model.ground_truth: {fault}. Fix: write a label like {example}, or drop the row")
    return truth


def is_number(value: object) -> bool:
    """Return True for a finite number that is not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
