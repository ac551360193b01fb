"""Weight of each kept image in the SFT data.

verl's SFT trainer has no weights, so an image's weight is its number of records. With one record per right path, an
image with one right path in eight would have one record, and an image with seven would have seven, so easy images would
weigh the most. Fig. 2 of OmniQuality-R says "emphasizing hard cases" but gives no formula; this one is ours.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from omniq_verl.preparation.readers import draw

EMPHASES = ("hard", "even", "right")
Path = TypeVar("Path")


def count_records(right: int, paths: int, most: int, emphasis: str) -> int:
    """Return the number of records of an image.

    ``hard``: ``most`` times the share of wrong paths, rounded (halves upwards), and at least 1. With eight paths and
    ``most`` 4, images with 1 to 7 right paths have 4, 3, 3, 2, 2, 1 and 1 records.
    ``even``: ``most`` for every image. ``right``: one for each right path, up to ``most``.

    Args:
        right: number of right paths, at least 1.
        paths: number of all paths.
        most: maximum number of records of an image.
        emphasis: one of ``EMPHASES``.
    """
    if emphasis == "right":
        return min(right, most)
    if emphasis == "even":
        return most
    # Use integers: as floats, 9 records times 1 - 5/6 are 1.4999999999999996.
    return max(1, (2 * most * (paths - right) + paths) // (2 * paths))


def spread(distinct: Sequence[Path], records: int) -> list[Path]:
    """Return the given number of paths: each distinct path once, then again from the first if there are too few."""
    return [distinct[number % len(distinct)] for number in range(records)] if distinct else []


def draw_weighted(weights: Iterable[tuple[str, float]], count: int, seed: int) -> set[str]:
    """Draw keys without replacement, with chances in proportion to their weights.

    Each key has the random number ``u ** (1 / weight)``, and the keys with the largest numbers are drawn (Efraimidis
    and Spirakis 2006). The draw depends on the keys and weights, not on their order, and a smaller draw is part of a
    larger one.

    Args:
        weights: keys with weights above 0.
        count: number of keys to draw; all keys are drawn if there are fewer.
        seed: seed of the draw.
    """
    numbers = [(math.log(max(draw(seed, "emphasis", key), 2.0**-64)) / weight, key) for key, weight in weights]
    return {key for _, key in sorted(numbers, reverse=True)[:count]}
