"""Several batch rewards combined."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omniq_verl.rewards.batch.hook import BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.rollouts import Rollouts

_KEYS = {"function", "weight", "settings"}


def together(rollouts: Rollouts, parts: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The weighted sum of several batch rewards, such as a ranking and a length penalty.

    Args:
        rollouts: the rollouts of one draw.
        parts: one ``{function: NAME, weight: 1.0, settings: {}}`` per batch reward; weight and settings are optional.

    Returns:
        The weighted sum, ``[N]``.

    Raises:
        ValueError: there is no part, or a part is invalid.
    """
    if isinstance(parts, (str, Mapping)) or not parts or not all(map(_is_part, parts)):
        raise ValueError(
            f"parts is {parts!r:.80}. Fix: list functions, such as"
            " [{function: visualquality_r1}, {function: length_penalty, weight: 0.1}]"
        )
    chosen = [
        BatchRewardSettings(part["function"], part.get("settings", {}), part.get("weight", 1.0)) for part in parts
    ]
    return np.sum([one.weight * batch_reward(rollouts, one) for one in chosen], axis=0)


def _is_part(part: object) -> bool:
    return isinstance(part, Mapping) and "function" in part and set(part) <= _KEYS
