"""Scoring without reasoning: which texts represent the scores of a task, after a forced beginning of an answer."""

from functools import lru_cache
from typing import Any

from omniq_verl.generation.expectation import ScoreTexts, numerals
from omniq_verl.generation.request import reads_scores
from omniq_verl.rewards.parsing import SCORE_KEY
from omniq_verl.tasks import Task

MODES = ("reason", "direct")
"""``reason``: the model thinks and answers; ``direct``: the expectation of its score behind a forced ``<answer>``."""
BOTH = "both"
"""A server's or an evaluation's name for both of them."""
DECIMALS = 2
"""Digits behind the point of a score; Q-Insight's prompt asks for two (its table 1)."""


@lru_cache(maxsize=64)
def score_texts(task: Task, decimals: int = DECIMALS) -> ScoreTexts:
    """The numbers of a task's scale as an answer of its format has them.

    Raises:
        ValueError: the task asks for no number.
    """
    if task.scale is None:
        raise ValueError(
            f"the task {task.name} asks for no number, so it has no expected value. Fix: leave out --mode direct"
        )
    values = numerals(task.scale.low, task.scale.high, decimals)
    if task.answer_format == "json":
        start = f'<answer>{{"{SCORE_KEY}": '
        return ScoreTexts(values, start, ("}", ",", "\n"), f"{start.replace('{', '{{')}{{}}}}}}</answer>")
    return ScoreTexts(values, "<answer>", ("</answer>",))


def check_mode(mode: str) -> None:
    """Raises:
    ValueError: there is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}. Fix: use {' or '.join(MODES)}")


def check_reads_scores(engine: Any, kind: str) -> None:
    """Raises:
    ValueError: the engine only generates text.
    """
    if not reads_scores(engine):
        raise ValueError(
            f"the engine {kind} returns no probabilities, which --mode direct needs. Fix: use --engine vllm or hf, or"
            " leave out --mode direct"
        )
