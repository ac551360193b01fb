"""Equal mini-batches out of a number of rows that a filter has changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniq_verl.trainer.mini_batches import cut_batch


def padded(rows: int, multiple: int) -> int:
    return rows + -rows % multiple


@pytest.mark.parametrize(
    ("rows", "largest", "ranks", "micro", "forward", "count", "total", "reason"),
    [
        (256, 256, 1, 1, (1,), 1, 256, "a whole mini-batch"),
        (208, 256, 1, 1, (1,), 1, 208, "three groups dropped: one smaller mini-batch, no padding"),
        (208, 256, 2, 1, (1,), 1, 208, "two ranks share it"),
        (207, 256, 2, 1, (1,), 1, 208, "one row more, so that they share evenly"),
        (400, 256, 2, 1, (1,), 2, 400, "two mini-batches of two ranks each"),
        (1024, 256, 4, 1, (1,), 4, 1024, "nothing was dropped"),
        (1024, 256, 4, 8, (128, 128), 4, 1024, "micro-batches of the forward passes need not divide a mini-batch"),
        (152, 64, 2, 1, (24, 24), 3, 192, "they divide a rank's share of the batch"),
        (100, 256, 1, 8, (1,), 1, 104, "micro-batches of the update divide the mini-batch"),
    ],
)
def test_worked_by_hand(rows, largest, ranks, micro, forward, count, total, reason):
    cut = cut_batch(rows, largest, ranks, micro, forward)
    assert (cut.mini_batches, padded(rows, cut.multiple)) == (count, total), reason


SIZES = st.integers(1, 32)


@given(st.integers(1, 3000), st.integers(1, 64), st.integers(1, 8), SIZES, SIZES, SIZES)
def test_all_shares_are_equal_and_whole(rows, per_rank, ranks, micro, old, reference):
    largest = per_rank * ranks * micro  # verl asks for that much
    cut = cut_batch(rows, largest, ranks, micro, (old, reference))
    total = padded(rows, cut.multiple)
    size = total // cut.mini_batches
    assert total % cut.mini_batches == 0
    assert size % (ranks * micro) == 0
    assert (total // ranks) % old == (total // ranks) % reference == 0
    assert cut.mini_batches == -(-rows // largest)  # as many updates as verl makes of these rows


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 16), st.integers(1, 6))
def test_a_batch_that_verl_takes_as_it_is_is_not_padded(per_rank, ranks, micro, count):
    largest = per_rank * ranks * micro
    rows = largest * count
    forward = rows // ranks  # any divisor of a rank's share; here the largest
    assert padded(rows, cut_batch(rows, largest, ranks, micro, (forward,)).multiple) == rows


@given(st.integers(1, 3000), st.integers(1, 64), st.integers(1, 8))
def test_micro_batches_by_tokens_take_hardly_any_padding(rows, per_rank, ranks):
    cut = cut_batch(rows, per_rank * ranks, ranks)
    assert padded(rows, cut.multiple) - rows < cut.mini_batches * ranks
