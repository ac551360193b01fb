"""Answers with several numbers, such as quality, aesthetics and structure, which are parsed and rewarded one by one.

UniPercept (arXiv 2512.21675) gives three such numbers for an image. The form of the answer and the mean of the
numbers' rewards are ours.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omniq_verl.rewards.parsing import Parsed, Status, parse_response
from omniq_verl.tasks import Scale

PREFIX = "head/"
"""Prefix of the keys of ``compute_score`` for one number: ``head/<name>/pred``, ``/target`` and ``/accuracy``."""


def parse_heads(text: str, heads: Sequence[str], scale: Scale) -> Parsed:
    """Parse the numbers of a JSON answer ``{"quality": 3.2, ...}`` into ``fields``: either all of them or none.

    Args:
        text: the response.
        heads: names of the numbers; other keys are ignored, except that a ``rating`` has to be a number.
        scale: bounds of each number, inclusive.
    """
    parsed = parse_response(text, "json")
    if parsed.fields is None:
        return parsed
    found = {head: _number(parsed.fields.get(head)) for head in heads}
    if any(math.isnan(value) for value in found.values()):
        return Parsed(Status.NOT_A_NUMBER, reasoning=parsed.reasoning)
    if not all(scale.contains(value) for value in found.values()):
        return Parsed(Status.OUT_OF_RANGE, reasoning=parsed.reasoning)
    return Parsed(Status.OK, None, parsed.reasoning, found)


def judge_heads(
    numbers: Mapping[str, float] | None,
    labels: Mapping[str, float],
    heads: Sequence[str],
    reward: Callable[[float, float], float],
) -> dict[str, float]:
    """Return the parts of the reward: each number's accuracy, and their mean as ``accuracy``.

    Args:
        numbers: the answer's numbers; None if it has none.
        labels: at least one label, by head. A number without a label is parsed but not rewarded.
        heads: the task's heads.
        reward: function from a predicted score and its label to a number from 0 to 1.
    """
    parts: dict[str, float] = {}
    for head in heads:
        pred, target = (numbers or {}).get(head, math.nan), float(labels.get(head, math.nan))
        known = not math.isnan(pred) and not math.isnan(target)
        lost = 0.0 if head in labels else math.nan
        parts[f"{PREFIX}{head}/pred"], parts[f"{PREFIX}{head}/target"] = pred, target
        parts[f"{PREFIX}{head}/accuracy"] = reward(pred, target) if known else lost
    earned = sum(parts[f"{PREFIX}{head}/accuracy"] for head in labels)
    return {"accuracy": earned / len(labels), **parts}


def heads_among(keys: Sequence[str]) -> list[str]:
    """Return the names of the numbers to which keys of ``compute_score`` belong, sorted."""
    return sorted({key.split("/")[1] for key in keys if key.startswith(PREFIX)})


def _number(value: Any) -> float:
    """Convert a number, or a text that is one; NaN for anything else."""
    if isinstance(value, str):
        parsed = parse_response(f"<answer>{value}</answer>", scale=Scale(-1e12, 1e12))
        return math.nan if parsed.score is None else parsed.score
    return value if isinstance(value, float) else math.nan
