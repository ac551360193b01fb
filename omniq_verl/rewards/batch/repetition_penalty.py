"""A penalty for answers that repeat themselves."""

import numpy as np

from omniq_verl.rewards.batch.checks import check_count
from omniq_verl.rewards.batch.rollouts import Rollouts


def repetition_penalty(rollouts: Rollouts, size: int = 3) -> np.ndarray:
    """Negative share of word n-grams that have already occurred in the answer.

    ``distinct / all - 1``: 0 if no sequence of ``size`` words occurs twice. Words are separated by white space and
    compared in lower case. An answer with fewer words than ``size`` has no n-gram and no penalty.

    Source: repetition penalties on n-grams, as in Yeo et al. 2025 (arXiv 2502.03373); this form is ours.

    Args:
        rollouts: the rollouts of one draw.
        size: number of words in an n-gram.

    Returns:
        Penalties from -1 (exclusive) to 0, ``[N]``; answers without a score are included.

    Raises:
        ValueError: size is not a whole number of at least 1.
    """
    check_count(size=size)
    return np.array([_penalty(text.lower().split(), size) for text in rollouts.texts])


def _penalty(words: list[str], size: int) -> float:
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return len(set(grams)) / len(grams) - 1 if grams else 0.0
