"""How a batch whose number of rows a filter has changed is cut into mini-batches of equal size."""

import math
from collections.abc import Iterable
from typing import NamedTuple


class Cut(NamedTuple):
    """Of a batch."""

    mini_batches: int
    multiple: int
    """What the number of rows has to be padded to."""


def cut_batch(
    rows: int, largest: int, ranks: int, micro_rows: int = 1, forward_micro_rows: Iterable[int] = (1,)
) -> Cut:
    """The fewest equal mini-batches no larger than ``largest``, and the padding that takes.

    Fewer rows are padded than the multiple, where verl pads to whole mini-batches.

    Args:
        rows: rows at hand.
        largest: rows of a mini-batch.
        ranks: data-parallel ranks.
        micro_rows: rows of a micro-batch of the update, which divide a rank's share of a mini-batch.
        forward_micro_rows: of the forward passes (old and reference log-probabilities), which divide its share of the
            batch.
    """
    count = math.ceil(rows / largest)
    return Cut(count, math.lcm(count * ranks * micro_rows, ranks * math.lcm(*forward_micro_rows)))
