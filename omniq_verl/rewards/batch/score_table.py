"""Closeness of answers to another model's scores of the same images, as a second judge for the drift alarm."""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from omniq_verl.data.tables import score_in, table_rows
from omniq_verl.rewards.batch.rollouts import Rollouts


def closeness(rollouts: Rollouts, path: str) -> np.ndarray:
    """Return ``1 - |pred - s| / (high - low)`` in [0, 1] for each rollout; s is the other model's score of its image.

    A rollout gets 0 if its score could not be parsed or its task has no scale. Ours.

    Args:
        rollouts: the rollouts of a step.
        path: table (.csv, .jsonl or .parquet) with the columns ``id`` (as in the training rows) and ``score`` (on the
            task's scale).

    Raises:
        ValueError: the table cannot be read, or has no score for an image.
    """
    scores = _scores(str(Path(path).expanduser()))
    if missing := [image for image in rollouts.images if image not in scores]:
        raise ValueError(f"{path}: it has no score for {missing[0]!s:.80}. Fix: score all images of the training set")
    other = np.array([scores[image] for image in rollouts.images])
    found = 1 - np.abs(rollouts.pred - other) / (rollouts.high - rollouts.low)
    return np.where(np.isfinite(found), np.clip(found, 0.0, 1.0), 0.0)


@lru_cache(maxsize=4)
def _scores(path: str) -> dict[str, float]:
    scores: dict[str, float] = {}
    for row in table_rows(Path(path), ["id", "score"]):
        name, score = _name(row["id"]), _finite(row["score"])
        if name is None or score is None:
            what = f"the score of {row['id']!r:.60} is {row['score']!r:.60}" if name else f"an id is {row['id']!r:.60}"
            raise ValueError(f"{path}: {what}. Fix: give each image its id and one finite score")
        if name in scores:
            raise ValueError(f"{path}: the id {name:.60} is there twice. Fix: give each id one finite score")
        scores[name] = score
    return scores


def _name(cell: Any) -> str | None:
    """Return an id as text; None if it is neither text nor a whole number."""
    return str(cell) if isinstance(cell, (str, int)) and not isinstance(cell, bool) and cell != "" else None


def _finite(cell: Any) -> float | None:
    try:
        score = score_in(cell)
    except ValueError:
        return None
    return score if score is not None and math.isfinite(score) else None
