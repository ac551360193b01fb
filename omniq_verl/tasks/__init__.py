"""Questions to a model: wording, answer format, scale and levels, one object per task.

Training data, evaluation, scoring and serving all take their prompts from here, so they cannot drift apart. This
package depends on no framework.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from omniq_verl.tasks.labels import read_scale, read_truth, shown
from omniq_verl.tasks.omniquality_r import AESTHETIC, ALIGNMENT, DEGRADATION, TECHNICAL
from omniq_verl.tasks.outside_text import (
    ForbiddenText,
    check_text,
    forbidden_tokens,
    harmless,
    messages_fault,
    text_fault,
)
from omniq_verl.tasks.q_insight import (
    Q_INSIGHT_COMPARISON,
    Q_INSIGHT_COMPARISON_REFERENCE,
    Q_INSIGHT_DEGRADATION,
    Q_INSIGHT_SCORE,
    comparison_task,
)
from omniq_verl.tasks.registry import (
    IMAGE_TASKS,
    TASKS,
    find_task,
    image_task,
    known_tasks,
    names_by_number,
    outside_marks,
    task_names,
    task_number,
)
from omniq_verl.tasks.task import (
    CHOICES,
    DISTORTIONS,
    IMAGE_PLACEHOLDER,
    LEVELS,
    SEVERITIES,
    Scale,
    Task,
    chat_turns,
)

__all__ = [
    "AESTHETIC",
    "ALIGNMENT",
    "CHOICES",
    "DEGRADATION",
    "DISTORTIONS",
    "IMAGE_PLACEHOLDER",
    "IMAGE_TASKS",
    "LEVELS",
    "Q_INSIGHT_COMPARISON",
    "Q_INSIGHT_COMPARISON_REFERENCE",
    "Q_INSIGHT_DEGRADATION",
    "Q_INSIGHT_SCORE",
    "SCALES",
    "SEVERITIES",
    "TASKS",
    "TECHNICAL",
    "ForbiddenText",
    "Scale",
    "Task",
    "chat_turns",
    "check_text",
    "comparison_task",
    "find_task",
    "forbidden_tokens",
    "harmless",
    "image_task",
    "known_tasks",
    "messages_fault",
    "names_by_number",
    "outside_marks",
    "read_truth",
    "scale_of",
    "shown",
    "task_names",
    "task_number",
    "task_of",
    "task_on",
    "text_fault",
]

SCALES = {"1-5": Scale(1.0, 5.0), "0-5": Scale(0.0, 5.0)}
"""Scales of scores, by the names used in commands. OmniQuality-R's code uses 0 to 5."""


def scale_of(name: str | Scale | None) -> Scale | None:
    """Return the scale with a name in ``SCALES``, or a given scale itself; None means each task's own.

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(name, Scale):
        return name
    if name is not None and name not in SCALES:
        raise ValueError(f"unknown scale {name!r}; known: {', '.join(SCALES)}")
    return None if name is None else SCALES[name]


@lru_cache(maxsize=256)
def task_on(name: str, scale: Scale | None) -> Task:
    """Return a task on the given scale; None: on its own.

    Raises:
        ValueError: the task is unknown, or a scale is given for a task without a score.
    """
    task = find_task(name)
    if scale is None:
        return task
    if task.scale is None:
        raise ValueError(f"the task {name} has no score and therefore no scale")
    return replace(task, scale=scale)


def task_of(info: Mapping[str, Any] | None) -> Task:
    """Return the task named in a row's ``extra_info``, on the row's scale.

    Raises:
        ValueError: ``task`` is missing or unknown, or the scale is invalid; the message names the field.
    """
    info = info if isinstance(info, Mapping) else {}
    name = info.get("task")
    if not isinstance(name, str):
        raise ValueError(f"extra_info.task is {shown(name)}. Fix: name one of {', '.join(task_names())}")
    find_task(name, "extra_info.task")
    return task_on(name, read_scale(info))
