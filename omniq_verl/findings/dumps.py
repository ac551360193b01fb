"""Answers that a training run has saved: those of validation and, if requested, of rollouts."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from omniq_verl.rewards.parsing import reasoning_of
from omniq_verl.tasks import known_tasks

FOLDERS = ("validation", "rollouts")
"""Folders in a run's folder: ``trainer.validation_data_dir`` of our recipes, and the place to look for rollouts."""


def dump_files(folder: Path) -> dict[int, Path]:
    """Return the file of each step, ``STEP.jsonl``, in the order of the steps."""
    files = {int(path.stem): path for path in folder.glob("*.jsonl") if path.stem.isdecimal()}
    return dict(sorted(files.items()))


def read_dump(path: Path) -> pd.DataFrame:
    """Read the answers of one step.

    Returns:
        One row per answer with the columns ``image`` (a key that all answers to one image share), ``reward``, ``score``
        and ``target`` (NaN: none), ``words`` (number in the whole answer), ``reasoning`` ("" if there is none),
        ``repeated`` (see ``repeated_share``), and ``low`` and ``high`` of the task's scale.

    Raises:
        ValueError: a line is not what verl writes; the message names file and line. An incomplete last line is skipped.
    """
    lines = [_line(record) for record in _records(path)]
    if not lines:
        raise ValueError(f"{path} has no answers. Fix: give the folder of a run whose validation has run")
    return pd.DataFrame(lines)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):  # incomplete because the run was killed
                return
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("output"), str) or "score" not in found:
            what = "is no answer as verl writes it (output, score)"
            raise ValueError(f"{path}, line {number} {what}. Fix: give a folder of trainer.validation_data_dir")
        yield found


def _line(record: Mapping[str, Any]) -> dict[str, Any]:
    text = record["output"]
    low, high = _scale(str(record.get("task")))
    return {
        "image": _image(record),
        "reward": _number(record["score"]),
        "score": _number(record.get("pred")),
        "target": _number(record.get("target")),
        "words": len(text.split()),
        "reasoning": reasoning_of(text) or "",
        "repeated": repeated_share(text),
        "low": low,
        "high": high,
    }


@lru_cache(maxsize=256)
def _scale(task: str) -> tuple[float, float]:
    """Return the ends of a task's scale; NaN if the task is unknown. A name never causes an import."""
    scale = known_tasks()[task].scale if task in known_tasks() else None
    return (scale.low, scale.high) if scale else (math.nan, math.nan)


def _image(record: Mapping[str, Any]) -> str:
    """Return what answers to one image share: the first part of our agent loop's ``uid``, else question and label."""
    uid = record.get("uid")
    return uid.partition("_")[0] if isinstance(uid, str) and uid else f"{record.get('gts')} {record.get('input')}"


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return math.nan


def repeated_share(text: str, length: int = 3) -> float:
    """Return the share of phrases that the answer already used earlier, in [0, 1); 0 if it is too short for a phrase.

    Args:
        text: an answer.
        length: number of words in a phrase.
    """
    words = text.split()
    phrases = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return 1 - len(set(phrases)) / len(phrases) if phrases else 0.0
