"""How close answers are to the scores that another model gave the same images: a second judge for the drift alarm."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from omniq_verl.rewards.batch.rollouts import Rollouts

_READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype={"id": str}),  # 007 is not 7
    ".parquet": pd.read_parquet,
}


def closeness(rollouts: Rollouts, path: str) -> np.ndarray:
    """``1 - |pred - s| / (high - low)`` in [0, 1] for each rollout, with s the other model's score of its image.

    A rollout without a parsed score, or whose task has no scale, gets 0. Ours.

    Args:
        rollouts: of a step.
        path: table (.csv or .parquet) with the columns ``id`` (as in the training rows) and ``score`` (on the task's
            scale).

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
    reader = _READERS.get(Path(path).suffix)
    if reader is None:
        raise ValueError(f"{path}: its type of table is not supported. Fix: use .csv or .parquet")
    try:
        table = reader(path)[["id", "score"]]
        scores = dict(zip(table["id"].astype(str), table["score"].astype(float), strict=True))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: no columns id and score ({error!s:.100}). Fix: write such a table") from error
    if len(scores) < len(table) or not np.isfinite(list(scores.values())).all():
        raise ValueError(f"{path}: an id occurs twice, or a score is not finite. Fix: give each id one finite score")
    return scores
