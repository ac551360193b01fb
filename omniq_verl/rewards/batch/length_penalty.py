"""A penalty for long answers."""

import numpy as np

from omniq_verl.rewards.batch.checks import check_count
from omniq_verl.rewards.batch.rollouts import Rollouts


def length_penalty(rollouts: Rollouts, limit: int = 768, buffer: int = 256) -> np.ndarray:
    """Penalty that is 0 up to ``limit`` tokens and falls linearly to -1 at ``limit + buffer`` tokens and beyond.

    Source: DAPO (arXiv 2503.14476), eq. 13, with ``limit = L_max - L_cache`` and ``buffer = L_cache``. The defaults are
    ours and fit answers of at most 1,024 tokens.

    Args:
        rollouts: the rollouts of one draw.
        limit: longest answer without a penalty, in tokens.
        buffer: tokens over which the penalty grows.

    Returns:
        Penalties from -1 to 0, ``[N]``; answers without a score are included.

    Raises:
        ValueError: a setting is not a whole number of at least 1.
    """
    check_count(limit=limit, buffer=buffer)
    return -np.clip((rollouts.tokens - limit) / buffer, 0.0, 1.0)
