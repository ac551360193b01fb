"""Questions to the generator: first for a plan, without the image, then for reasoning and a level along the plan."""

from collections.abc import Mapping
from typing import Any

from omniq_verl.tasks import IMAGE_PLACEHOLDER, LEVELS, harmless, task_of

PLAN = """You will soon judge an image. The task: {question}

Write the plan of your judgement first: what to look at, in which order, and what would speak for or against the image.
One short numbered step for each. You do not see the image yet, so describe none and judge nothing."""

REASON = """{question}

Go through these steps:
{plan}

Say what you see at each step, in your own words and without mentioning the steps, in <think></think>.
Then give one of the levels {levels} in <answer></answer>."""


def ask_for_plan(row: Mapping[str, Any], _note: str = "") -> list[dict[str, str]]:
    """Ask for a plan from the row's task, without its image (fig. 2 of the paper)."""
    return [{"role": "user", "content": PLAN.format(question=_question(row))}]


def ask_for_reasoning(row: Mapping[str, Any], plan: str) -> list[dict[str, str]]:
    """Ask for reasoning, given the row's task, plan and image."""
    asked = REASON.format(question=_question(row), plan=harmless(plan), levels=", ".join(LEVELS))
    return [{"role": "user", "content": IMAGE_PLACEHOLDER + asked}]


def _question(row: Mapping[str, Any]) -> str:
    info = row["extra_info"]
    task = task_of(info)
    if task.scale is None:
        raise ValueError(
            f"the task {task.name} has no score and therefore no level. Fix: prepare the rows for a task with a score"
        )
    return task.bare_question(info["id"], info["text"])
