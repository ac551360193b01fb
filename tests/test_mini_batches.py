"""Equal mini-batches out of a number of rows that a filter has changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniq_verl.trainer.mini_batches import batch_multiple, mini_batch_size


@pytest.mark.parametrize(
    ("rows", "largest", "ranks", "multiple", "size", "reason"),
    [
        (256, 256, 1, 1, 256, "a whole mini-batch"),
        (208, 256, 1, 1, 208, "three groups dropped: one smaller mini-batch, no padding"),
        (208, 256, 2, 2, 208, "two ranks share it"),
        (400, 256, 2, 4, 200, "two mini-batches of two ranks each"),
        (1024, 256, 4, 16, 256, "nothing was dropped"),
    ],
)
def test_worked_by_hand(rows, largest, ranks, multiple, size, reason):
    assert batch_multiple(rows, largest, ranks) == multiple, reason
    assert mini_batch_size(rows, largest) == size, reason


def test_rows_that_were_not_padded_are_refused():
    with pytest.raises(ValueError, match="401 rows"):
        mini_batch_size(401, 256)


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 8))
def test_padding_is_little_and_shares_are_equal(rows, per_rank, ranks):
    largest = per_rank * ranks
    multiple = batch_multiple(rows, largest, ranks)
    padded = rows + -rows % multiple
    size = mini_batch_size(padded, largest)
    assert padded - rows < multiple
    assert size <= largest
    assert size % ranks == padded % size == 0
    # As many updates as without the filter's help: no mini-batch is split that would have been whole.
    assert padded // size == -(-rows // largest)
