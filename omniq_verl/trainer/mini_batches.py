"""Split a batch, whose number of rows a filter has changed, into mini-batches of equal size."""

import math
from collections.abc import Iterable
from typing import NamedTuple


class Cut(NamedTuple):
    """How a batch is split."""

    mini_batches: int
    multiple: int
    """The number of rows is padded to a multiple of this."""


def cut_batch(
    rows: int, largest: int, ranks: int, micro_rows: int = 1, forward_micro_rows: Iterable[int] = (1,)
) -> Cut:
    """The fewest equal mini-batches no larger than ``largest``, and the padding they need.

    At most ``multiple`` - 1 rows are padded, whereas verl pads to whole mini-batches.

    Args:
        rows: number of rows.
        largest: largest number of rows of a mini-batch.
        ranks: number of data-parallel ranks.
        micro_rows: rows per micro-batch of the update; divides a rank's share of a mini-batch.
        forward_micro_rows: rows per micro-batch of the forward passes (old and reference log-probabilities); these
            divide a rank's share of the batch.
    """
    count = math.ceil(rows / largest)
    return Cut(count, math.lcm(count * ranks * micro_rows, ranks * math.lcm(*forward_micro_rows)))
