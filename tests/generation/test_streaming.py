"""Items are made ahead of their consumer, in order and within bounds; engines that cannot stream get batches."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from generation_builders import Echo
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.generation.request import Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.streaming import Limits, ReadAhead, stream_answers


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 5), st.integers(1, 20), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_everything_is_made_once_in_order_and_no_further_ahead_than_allowed(sizes, items, size, threads):
    begun: list[int] = []
    lock = threading.Lock()

    def make(item: int) -> int:
        with lock:
            begun.append(item)
        return sizes[item]

    with ThreadPoolExecutor(threads) as pool:
        ahead = ReadAhead(pool, make, range(len(sizes)), lambda made: made, Limits(items, size))
        for consumed, made in enumerate(ahead, 1):
            assert made == sizes[consumed - 1]
            assert len(begun) <= consumed + items
    assert sorted(begun) == list(range(len(sizes)))


def test_items_that_wait_are_bounded_by_their_size():
    made: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        ahead = ReadAhead(pool, lambda item: made.append(item) or item, range(100), lambda _: 10, Limits(50, 30))
        for consumed in range(1, 40):
            next(ahead)
            time.sleep(0.002)
            # Three wait, and each thread may have begun one more before it was known that they are so large.
            assert len(made) <= consumed + 3 + 2
        ahead.close()


def test_what_is_raised_is_raised_in_its_turn():
    def make(item: int) -> int:
        if item == 2:
            raise OSError("no such file")
        return item

    with ThreadPoolExecutor(2) as pool:
        ahead = ReadAhead(pool, make, range(5), lambda _: 1, Limits(4, 1))
        assert [next(ahead), next(ahead)] == [0, 1]
        with pytest.raises(OSError, match="no such file"):
            next(ahead)
        assert list(ahead) == [3, 4]


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_an_engine_that_cannot_stream_gets_batches(batch):
    def nothing() -> list[Request]:
        raise ValueError("no such image")

    engine = Echo(EngineSpec("rejects bad"))
    texts = [["a"], ["b", "bad c"], [], ["d"], ["e"]]
    jobs = [partial(list, [Request(text, [{"role": "user", "content": text}]) for text in one]) for one in texts]
    found = list(stream_answers(engine, [*jobs[:3], nothing, *jobs[3:]], Sampling(), batch))
    assert str(found.pop(3)) == "no such image"
    assert [[answers[0].finish_reason for answers in one] for one in found] == [
        ["stop"],
        ["stop", "error"],
        [],
        *[["stop"]] * 2,
    ]
    assert [one[0][0].text for one in found if one] == [f"{text} seed 0 images 0" for text in "abde"]


def test_the_next_batch_is_made_while_this_one_is_answered_and_no_other():
    made: list[int] = []

    def job(number: int) -> list[Request]:
        made.append(number)
        return [Request(str(number), [{"role": "user", "content": "x"}])]

    found = stream_answers(Echo(EngineSpec("")), (partial(job, number) for number in range(9)), Sampling(), 2)
    next(found)
    time.sleep(0.1)
    assert sorted(made) == [0, 1, 2, 3]
    assert len(list(found)) == 8 and sorted(made) == list(range(9))
