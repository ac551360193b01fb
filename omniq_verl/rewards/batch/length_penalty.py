"""A penalty for long answers."""

import numpy as np

from omniq_verl.rewards.batch.checks import check_count
from omniq_verl.rewards.batch.rollouts import Rollouts


def length_penalty(rollouts: Rollouts, limit: int = 768, buffer: int = 256) -> np.ndarray:
    """0 up to ``limit`` tokens, then falling linearly to -1 at ``limit + buffer`` and beyond.

    Source: DAPO (arXiv 2503.14476), eq. 13, with ``limit = L_max - L_cache`` and ``buffer = L_cache``. The defaults fit
    answers of at most 1,024 tokens and are ours.

    Args:
        rollouts: of one draw.
        limit: in tokens.
        buffer: in tokens.

    Returns:
        Penalties from -1 to 0, ``[N]``, for answers with and without a score.

    Raises:
        ValueError: a setting is not a whole number of at least 1.
    """
    check_count(limit=limit, buffer=buffer)
    return -np.clip((rollouts.tokens - limit) / buffer, 0.0, 1.0)
