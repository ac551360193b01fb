"""Answers without reasoning, for training the baselines of the papers' tables.

``score`` (Qwen-SFT): the number alone, after the row's own question. ``level`` (Q-Align, Wu et al. 2023): one of the
five level words in a fixed sentence; the score is the expected level of the word's distribution
(``omniq_verl.tasks.expected_level``). ``soft`` (DeQA-Score, You et al. 2025): one such sentence for each word, weighted
by the soft label ``p``. If the model gives the words the probabilities ``q``, the weighted cross-entropy is

    - sum_i p_i ln q_i = KL(p || q) + H(p),

Its gradient is that of DeQA's KL divergence, because the entropy ``H(p)`` is constant. The tokens before the word are
the same in all records of an image, and the weights of these records sum to 1. The softmax is over the whole
vocabulary, not over the five words alone, so the model also learns to answer with one of the words.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from omniq_verl.tasks import LEVELS, Task, task_of
from omniq_verl.tasks.expected_level import level_stem, soft_levels

KINDS = ("score", "level", "soft")
SMALLEST = 0.01
"""Shares of a soft label below this get no separate record; the others are scaled to sum to 1. Ours."""


def answers_of(info: Mapping[str, Any], kind: str, decimals: int = 2) -> list[tuple[str, float]]:
    """Return the answers to learn for a row with their weights. The weights sum to 1.

    Args:
        info: a row's ``extra_info``.
        kind: one of ``KINDS``.
        decimals: number of decimals of the kind ``score``.
    """
    task, score = task_of(info), info["score"]
    if kind == "score":
        return [(f"<answer>{score:.{decimals}f}</answer>", 1.0)]
    if kind == "level":
        return [(sentence(task, task.score_scale.level(score)), 1.0)]
    shares = soft_levels(score, deviation_of(info), task.score_scale)
    shares = np.where(shares < SMALLEST, 0.0, shares)
    shares /= shares.sum()
    return [(sentence(task, word), float(share)) for word, share in zip(LEVELS, shares, strict=True) if share]


def sentence(task: Task, level: str) -> str:
    """Return Q-Align's answer, e.g. "The quality of the image is good."."""
    return f"{level_stem(task)} {level}."


def deviation_of(info: Mapping[str, Any]) -> float | None:
    """Return the standard deviation (population) of a row's ratings, in units of its scale; None if the row has none.

    It is computed from ``details``: ``votes`` (AVA: the number of votes for 1, 2, ...), ``ratings`` (EvalMuse) or
    ``standard_deviation`` (KonIQ). All are in units of the raw label and are scaled like the label itself.
    """
    try:
        details = json.loads(info.get("details") or "{}")
    except (ValueError, RecursionError):
        return None
    raw = _raw_deviation(details) if isinstance(details, dict) else None
    low, high = info.get("raw_low"), info.get("raw_high")
    if raw is None or not math.isfinite(raw) or low is None or high is None or not low < high:
        return None
    scale = task_of(info).score_scale
    return raw * (scale.high - scale.low) / (high - low)


def _raw_deviation(details: Mapping[str, Any]) -> float | None:
    votes, ratings, given = (details.get(name) for name in ("votes", "ratings", "standard_deviation"))
    if isinstance(votes, list) and votes and sum(votes) > 0:
        return float(np.sqrt(np.cov(np.arange(1, len(votes) + 1), fweights=votes, ddof=0)))
    if isinstance(ratings, list) and len(ratings) > 1:
        return float(np.std(ratings))
    return float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) else None


def records_of(row: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Convert a prepared row to records for verl's SFT trainer.

    The question of ``score`` is the row's own. The questions of ``level`` and ``soft`` do not say how to answer.

    Args:
        row: a row with ``prompt``, ``images`` and ``extra_info``.
        kind: one of ``KINDS``.
    """
    info = row["extra_info"]
    for number, (answer, weight) in enumerate(answers_of(info, kind)):
        yield {
            "messages": [*_question(row, kind), {"role": "assistant", "content": answer}],
            "images": row["images"],
            "extra_info": {"id": info["id"], "task": info["task"], "path": number, "weight": weight},
        }


def _question(row: Mapping[str, Any], kind: str) -> list[dict[str, str]]:
    turns = [dict(turn) for turn in row["prompt"]]
    if kind == "score":
        return turns
    task = task_of(row["extra_info"])
    return [{**turn, "content": task.without_rule(turn["content"])} for turn in turns if turn["role"] != "system"]
