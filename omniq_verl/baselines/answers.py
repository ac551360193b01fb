"""Answers without reasoning, as the baselines of the papers' tables learn them.

``score`` (Qwen-SFT): the number alone, behind the row's own question. ``level`` (Q-Align, Wu et al. 2023): one of the
five level words in a fixed sentence; the score is the expected level of the word's distribution
(``omniq_verl.tasks.expected_level``). ``soft`` (DeQA-Score, You et al. 2025): the same sentence with each word,
weighted by the soft label ``p``. With the model's probabilities ``q`` of the words, the weighted cross-entropy is

    - sum_i p_i ln q_i = KL(p || q) + H(p),

whose gradient is that of DeQA's KL divergence, as the entropy ``H(p)`` is constant. The tokens before the word are the
same in all of an image's records, and their weights sum to 1. The softmax is over the whole vocabulary, not over the
five words alone: that teaches, as well, to answer with one of them.
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
"""Shares of a soft label below this have no record of their own; the others are scaled to sum to 1. Ours."""


def answers_of(info: Mapping[str, Any], kind: str, decimals: int = 2) -> list[tuple[str, float]]:
    """The answers to learn for a row, with their weights, which sum to 1.

    Args:
        info: a row's ``extra_info``.
        kind: of ``KINDS``.
        decimals: of ``score``.
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
    """Q-Align's answer, e.g. "The quality of the image is good."."""
    return f"{level_stem(task)} {level}."


def deviation_of(info: Mapping[str, Any]) -> float | None:
    """Standard deviation (population) of a row's ratings, in units of its scale; None where the row has none.

    Read from ``details``: ``votes`` (AVA: how many rated 1, 2, ...), ``ratings`` (EvalMuse) or ``standard_deviation``
    (KonIQ). All are in units of the raw label and are stretched as the label map stretches it.
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
    """A prepared row as records of verl's SFT trainer.

    The question of ``score`` is the row's own. Those of ``level`` and ``soft`` leave out how to answer.

    Args:
        row: with ``prompt``, ``images`` and ``extra_info``.
        kind: of ``KINDS``.
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
