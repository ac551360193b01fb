"""How a batch whose size a filter has changed is cut into mini-batches of equal size."""

import math


def mini_batch_size(rows: int, largest: int) -> int:
    """Rows of each of the fewest equal mini-batches that are no larger than ``largest``.

    Raises:
        ValueError: ``rows`` does not divide so; ``batch_multiple`` says what to pad to.
    """
    count = math.ceil(rows / largest)
    if rows % count:
        raise ValueError(f"{rows} rows cannot be cut into {count} equal mini-batches")
    return rows // count


def batch_multiple(rows: int, largest: int, unit: int) -> int:
    """What the number of rows must be a multiple of, so that equal mini-batches of whole units come out.

    Padding to it adds fewer rows than that, where verl pads to whole mini-batches.

    Args:
        rows: rows at hand.
        largest: rows of a mini-batch, a multiple of ``unit``.
        unit: rows of the smallest piece, e.g. one for each data-parallel rank.
    """
    return math.ceil(rows / largest) * unit
