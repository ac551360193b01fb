"""How much each kept image weighs in the SFT data.

verl's SFT trainer has no weights, so an image's weight is its number of records. An image of which one path in eight is
right would have one record, and one of which seven are right would have seven: the easy images would weigh the most.
Fig. 2 of OmniQuality-R says "emphasizing hard cases" and gives no formula; this one is ours.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from omniq_verl.preparation.readers import draw

EMPHASES = ("hard", "even", "right")
Path = TypeVar("Path")


def count_records(right: int, paths: int, most: int, emphasis: str) -> int:
    """Records of an image.

    ``hard``: ``most`` times the share of wrong paths, rounded (halves upwards), and at least 1. With eight paths and
    ``most`` 4, images with 1 to 7 right paths have 4, 3, 3, 2, 2, 1 and 1 records.
    ``even``: ``most`` for every image. ``right``: one for each right path, up to ``most``.

    Args:
        right: right paths, from 1.
        paths: all paths.
        most: records of an image at the most.
        emphasis: of ``EMPHASES``.
    """
    if emphasis == "right":
        return min(right, most)
    if emphasis == "even":
        return most
    # Whole numbers: 9 records times 1 - 5/6 are 1.4999999999999996 as floats.
    return max(1, (2 * most * (paths - right) + paths) // (2 * paths))


def spread(distinct: Sequence[Path], records: int) -> list[Path]:
    """So many records of an image's right paths: each path once, then again from the first, if there are too few."""
    return [distinct[number % len(distinct)] for number in range(records)] if distinct else []


def draw_weighted(weights: Iterable[tuple[str, float]], count: int, seed: int) -> set[str]:
    """Draw keys without replacement, with chances in proportion to their weights.

    Each key has the random number ``u ** (1 / weight)``, and the greatest are taken (Efraimidis and Spirakis 2006). The
    choice depends on the keys and weights, not on their order, and a smaller number is part of a greater one.

    Args:
        weights: keys with weights above 0.
        count: how many; all, where there are fewer.
        seed: of the draw.
    """
    numbers = [(math.log(max(draw(seed, "emphasis", key), 2.0**-64)) / weight, key) for key, weight in weights]
    return {key for _, key in sorted(numbers, reverse=True)[:count]}
