"""A batch reward for answers with several numbers, applied to each number."""

import dataclasses
import logging
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from omniq_verl.rewards.batch.hook import BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.rollouts import Rollouts
from omniq_verl.rewards.heads import PREFIX, heads_among

logger = logging.getLogger(__name__)


def per_head(
    rollouts: Rollouts,
    function: str = "visualquality_r1",
    settings: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Apply a batch reward to each number of an answer separately, and average the results. Ours.

    For tasks with a single score, the function itself gives the reward. A number without a label in an answer's row is
    left out of the answer's mean.

    Args:
        rollouts: the rollouts of one draw.
        function: the name of a batch reward, or ``package.module:function``.
        settings: its arguments.
        weights: weights of the numbers in the mean, by name; 1 if not given.

    Returns:
        Rewards ``[N]``, in the function's range.

    Raises:
        ValueError: the function cannot be used, or a weight is negative or not a number.
    """
    chosen, weights = BatchRewardSettings(function, settings or {}), dict(weights or {})
    for head, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ValueError(
                f"the weight of {head} is {weight!r}. Fix: set reward.batch_settings.weights to numbers from 0"
            )
    heads = heads_among(list(rollouts.parts))
    for head in sorted(weights.keys() - set(heads)) if heads else ():
        _warn_once(head, ", ".join(heads))
    earned, total = np.zeros(len(rollouts)), np.zeros(len(rollouts))
    for head in heads:
        pred, target = (rollouts.parts[f"{PREFIX}{head}/{name}"] for name in ("pred", "target"))
        weight = weights.get(head, 1.0) * np.isfinite(target)
        earned += weight * batch_reward(dataclasses.replace(rollouts, pred=pred, target=target), chosen)
        total += weight
    whole = batch_reward(rollouts, chosen)
    return np.where(total > 0, earned / np.where(total > 0, total, 1.0), whole)


@cache
def _warn_once(head: str, heads: str) -> None:
    """Warn about an unknown name. This is not an error, because the next draw may have rows of a task with it."""
    logger.warning(
        "reward.batch_settings.weights names %r, and the answers have %s. Fix: correct the name", head, heads
    )
