"""What every adapter needs: scores of a batch as numbers, and a decision on images that have none."""

from collections.abc import Sequence
from typing import Any, Protocol

from omniq_verl.scoring.scorer import Score


class AnyScorer(Protocol):
    """``Scorer``, ``RaliScorer`` or ``Client``."""

    def score(self, images: Any, task: Any = ..., prompt: Any = ...) -> Any:
        """Scores of images, in their order."""


class NoScore(RuntimeError):
    """An image has no score, and the caller did not say what stands for it."""


def numbers_of(scores: Sequence[Score], unread: float | None) -> list[float]:
    """The score of each image.

    Args:
        scores: of a scorer.
        unread: stands for an image that has none; None: that is an error.

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
