"""What a tiny model has to be taught before it can write plans and reason by them, as a general model can by itself.

Answers from templates to the very prompts of ``omniq_verl.cot.prompts``. It stands in for the pretraining of the
generator; it does not teach the question that is trained later, nor any number.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from omniq_verl.cot.prompts import ask_for_plan, ask_for_reasoning
from omniq_verl.tasks import IMAGE_PLACEHOLDER, LEVELS, task_of

STEPS = ("noise", "blur", "compression", "light")
PLAN_EVERY = 6
"""Rows between two that teach a plan: there are few plans, and many images."""
SLIP = 0.2
"""Share of the answers moved by a level, unless the scale ends there: the model is to doubt, as real ones do."""


def records(rows: Iterator[tuple[Mapping[str, Any], str]], seed: int) -> Iterator[dict[str, Any]]:
    """Rows for verl's SFT trainer.

    Args:
        rows: a row as ``Row.record`` makes it, and what is wrong with its image ("slight noise").
        seed: of the plans' order and the slips.
    """
    for number, (row, seen) in enumerate(rows):
        rng = np.random.default_rng([seed, number])
        plan = write_plan(rng)
        if number % PLAN_EVERY == 0:
            # With an image that no plan depends on: verl's collator takes no batch in which some rows have one and
            # others none (verl/utils/dataset/dataset_utils.py:70).
            yield _record(row, [{"role": "user", "content": IMAGE_PLACEHOLDER + ask_for_plan(row)[0]["content"]}], plan)
        yield _record(row, ask_for_reasoning(row, plan), _reasoning(row, seen, rng))


def write_plan(rng: np.random.Generator) -> str:
    """The steps in some order."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(rng.permutation(STEPS), 1))


def _reasoning(row: Mapping[str, Any], seen: str, rng: np.random.Generator) -> str:
    ref = LEVELS.index(task_of(row["extra_info"]).scale.level(row["extra_info"]["score"]))
    if rng.random() < SLIP:
        ref = int(np.clip(ref + rng.choice([-1, 1]), 0, len(LEVELS) - 1))
    return f"<think>{seen}, {LEVELS[ref]} quality</think><answer>{LEVELS[ref]}</answer>"


def _record(row: Mapping[str, Any], messages: list[dict[str, str]], answer: str) -> dict[str, Any]:
    return {
        "messages": [*messages, {"role": "assistant", "content": answer}],
        "images": row["images"],
        "extra_info": {"id": row["extra_info"]["id"]},
    }
