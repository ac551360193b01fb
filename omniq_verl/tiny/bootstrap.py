"""Teach a tiny model to write plans and to reason along them, which a general model can already do.

This module builds templated answers to the prompts of ``omniq_verl.cot.prompts``. They replace the generator's
pretraining. They teach neither the question that is trained later nor any numbers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from omniq_verl.cot.prompts import ask_for_plan, ask_for_reasoning
from omniq_verl.tasks import IMAGE_PLACEHOLDER, LEVELS, task_of

STEPS = ("noise", "blur", "compression", "light")
PLAN_EVERY = 6
"""Number of rows per plan that is taught: there are few plans and many images."""
SLIP = 0.2
"""Share of answers that are off by one level, unless the scale ends there, because real models are uncertain, too."""


def records(rows: Iterator[tuple[Mapping[str, Any], str]], seed: int) -> Iterator[dict[str, Any]]:
    """Yield records for verl's SFT trainer.

    Args:
        rows: rows from ``Row.record``, each with the distortion of its image ("slight noise").
        seed: seed of the plans' order and of the wrong levels.
    """
    for number, (row, seen) in enumerate(rows):
        rng = np.random.default_rng([seed, number])
        plan = write_plan(rng)
        if number % PLAN_EVERY == 0:
            # The record has an image although no plan depends on it: verl's collator rejects batches in which only some
            # rows have one (verl/utils/dataset/dataset_utils.py:70).
            yield _record(row, [{"role": "user", "content": IMAGE_PLACEHOLDER + ask_for_plan(row)[0]["content"]}], plan)
        yield _record(row, ask_for_reasoning(row, plan), _reasoning(row, seen, rng))


def write_plan(rng: np.random.Generator) -> str:
    """Return the steps in random order."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(rng.permutation(STEPS), 1))


def _reasoning(row: Mapping[str, Any], seen: str, rng: np.random.Generator) -> str:
    ref = LEVELS.index(task_of(row["extra_info"]).score_scale.level(row["extra_info"]["score"]))
    if rng.random() < SLIP:
        ref = int(np.clip(ref + rng.choice([-1, 1]), 0, len(LEVELS) - 1))
    return f"<think>{seen}, {LEVELS[ref]} quality</think><answer>{LEVELS[ref]}</answer>"


def _record(row: Mapping[str, Any], messages: list[dict[str, str]], answer: str) -> dict[str, Any]:
    return {
        "messages": [*messages, {"role": "assistant", "content": answer}],
        "images": row["images"],
        "extra_info": {"id": row["extra_info"]["id"]},
    }
