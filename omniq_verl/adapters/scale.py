"""Shared by all adapters: the scores of a batch as numbers, and what to do with images that have none."""

from collections.abc import Sequence
from typing import Any, Protocol

from omniq_verl.scoring.scorer import Score


class AnyScorer(Protocol):
    """``Scorer``, ``RaliScorer`` or ``Client``."""

    def score(self, images: Any, task: Any = ..., prompt: Any = ...) -> Any:
        """Score images, in their order."""


class NoScore(RuntimeError):
    """An image has no score, and the caller gave no replacement for it."""


def numbers_of(scores: Sequence[Score], unread: float | None) -> list[float]:
    """Return the score of each image as a number.

    Args:
        scores: results of a scorer.
        unread: replaces a missing score; None: a missing score is an error.

    Raises:
        NoScore: see ``unread``; the message names the image and says why.
    """
    found = []
    for one in scores:
        if one.score is None and unread is None:
            raise NoScore(
                f"{one.image} has no score: {one.error or one.status}. Fix: give a number for it, unread=NUMBER"
            )
        found.append(unread if one.score is None else one.score)
    return found
