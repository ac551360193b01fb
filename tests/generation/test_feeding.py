"""An engine is fed in order, within bounds, and in a way that does not depend on the speed of the threads."""

import gc
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import pytest

from omniq_verl.generation.feeding import Feeder, Room
from omniq_verl.generation.request import Answer, Request

PIXELS = 100
ROOM = Room(most=1000, joining=300, ahead=500, jobs_ahead=6, each=0)


class Steps:
    """An engine whose requests take as many steps as their text says; logs what is in it at each step."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None):
        self.inside: dict[str, list] = {}
        self.log: list[list[str]] = []
        self.fail_at, self.error = fail_at, error

    def add(self, request_id: str, prepared: str) -> None:
        assert request_id not in self.inside
        if "rejected" in prepared:
            raise ValueError("too long")
        self.inside[request_id] = [int(prepared.split()[1]), prepared]

    def step(self) -> list[tuple[str, list[Answer]]]:
        if len(self.log) == self.fail_at:
            raise self.error
        self.log.append([text for _, text in self.inside.values()])
        for one in self.inside.values():
            one[0] -= 1
        done = [request_id for request_id, (left, _) in self.inside.items() if left == 0]
        return [(request_id, [Answer(self.inside.pop(request_id)[1])]) for request_id in reversed(done)]

    def drop(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            del self.inside[request_id]


class Preparing:
    """Prepares requests after a pause; counts how many are prepared and not yet taken out of the stream."""

    def __init__(self, pause: Callable[[], float] = lambda: 0.0):
        self.pause, self.lock, self.made = pause, threading.Lock(), 0

    def __call__(self, requests: Sequence[Request]) -> tuple[list, int]:
        time.sleep(self.pause())
        with self.lock:
            self.made += 1
        return [ValueError("no image") if "bad" in one.key else one.key for one in requests], PIXELS * len(requests)


def job(*keys: str) -> Callable[[], list[Request]]:
    return partial(list, [Request(key, []) for key in keys])


def keys(number: int) -> list[str]:
    steps = random.Random(number)
    return [f"r{index} {steps.randint(1, 9)}" for index in range(number)]


def texts(outcome: list[list[Answer]]) -> list[str]:
    return [answers[0].text for answers in outcome]


def test_outcomes_come_in_the_order_of_the_jobs_whatever_ends_first():
    asked = keys(50)
    found = list(Feeder(Steps(), 4, room=ROOM).stream(map(job, asked), Preparing()))
    assert [texts(outcome) for outcome in found] == [[key] for key in asked]


def test_who_shares_a_step_does_not_depend_on_how_long_preparation_takes():
    engines = []
    for seed in range(4):
        pauses = random.Random(seed)
        engines.append(Steps())
        preparing = Preparing(lambda pauses=pauses: pauses.choice([0, 0, 0.004]))
        list(Feeder(engines[-1], 1 + seed, room=ROOM).stream(map(job, keys(40)), preparing))
    assert all(engine.log == engines[0].log for engine in engines)
    assert len(engines[0].log[0]) == 3, "joining: 300 pixels, before the first step, too"
    assert max(map(len, engines[0].log)) == 10, "most: 1,000 pixels"
    assert min(map(len, engines[0].log[5:-9])) >= 7, "earlier requests are still answered when later ones join"


def test_no_more_is_prepared_than_there_is_room_for():
    engine, preparing = Steps(), Preparing()
    most = 0
    for taken, _ in enumerate(Feeder(engine, 3, room=ROOM).stream(map(job, keys(60)), preparing), 1):
        most = max(most, preparing.made - taken - len(engine.inside))
        time.sleep(0.002)
    # Five wait (500 pixels), three more may have been begun before; ten that are finished wait for an earlier one.
    assert 0 < most <= 5 + 3 + 10


def test_a_rejected_request_and_a_job_without_any_cost_only_themselves():
    def nothing() -> list[Request]:
        raise ValueError("no such file")

    jobs = [job("a 2", "bad 1", "b 1"), nothing, job("rejected 1"), job(), job("c 3")]
    found = list(Feeder(Steps(), 2, room=ROOM).stream(jobs, Preparing()))
    assert str(found[0][1]) == "no image" and texts([found[0][0], found[0][2]]) == ["a 2", "b 1"]
    assert str(found[1]) == "no such file" and isinstance(found[1], ValueError)
    assert str(found[2][0]) == "too long" and found[3] == [] and texts(found[4]) == ["c 3"]


def test_a_job_larger_than_all_room_is_asked_nevertheless():
    many = [f"r{index} 1" for index in range(30)]
    found = list(Feeder(Steps(), 2, room=ROOM).stream([job(*many), job("last 1")], Preparing()))
    assert [texts(outcome) for outcome in found] == [many, ["last 1"]]


@pytest.mark.parametrize("error", [RuntimeError("core died"), KeyboardInterrupt()])
def test_a_failed_engine_ends_every_stream_at_once(error):
    feeder = Feeder(Steps(fail_at=3, error=error), 2, room=ROOM)
    with pytest.raises(type(error)):
        list(feeder.stream(map(job, keys(40)), Preparing()))
    with pytest.raises(RuntimeError, match=r"failed before \((core died|KeyboardInterrupt)\)\. Fix: open the model"):
        list(feeder.stream([job("a 1")], Preparing()))


def test_what_preparation_raises_beyond_a_rejection_is_raised_and_leaves_the_engine_empty():
    def prepare(requests: Sequence[Request]) -> tuple[list, int]:
        if requests[0].key == "r7 1":
            raise MemoryError("no room")
        return [requests[0].key], PIXELS

    engine = Steps()
    feeder = Feeder(engine, 2, room=ROOM)
    with pytest.raises(MemoryError):
        list(feeder.stream([job(f"r{index} {1 if index == 7 else 50}") for index in range(20)], prepare))
    assert engine.inside == {}
    assert texts(next(feeder.stream([job("next 2")], Preparing()))) == ["next 2"]


def test_a_stream_that_is_left_takes_its_requests_out_of_the_engine():
    engine = Steps()
    feeder = Feeder(engine, 2, room=ROOM)
    with closing(feeder.stream(map(job, keys(40)), Preparing())) as outcomes:
        next(outcomes)
        assert engine.inside
    assert engine.inside == {}
    found = feeder.stream(map(job, keys(40)), Preparing())
    next(found)
    del found
    gc.collect()
    assert engine.inside == {}
    assert [texts(one) for one in feeder.stream(map(job, keys(40)), Preparing())] == [[key] for key in keys(40)]


def test_two_streams_of_one_engine_get_their_own_answers():
    feeder = Feeder(Steps(), 2, room=ROOM)
    first = feeder.stream(map(job, keys(30)), Preparing())
    found = [next(first) for _ in range(3)]
    between = list(feeder.stream([job(f"x{index} 4") for index in range(30)], Preparing()))
    found += list(first)
    assert [texts(outcome) for outcome in found] == [[key] for key in keys(30)]
    assert [texts(outcome) for outcome in between] == [[f"x{index} 4"] for index in range(30)]


def test_a_stream_that_others_leave_no_room_gets_some():
    feeder = Feeder(Steps(), 2, room=ROOM)
    first = feeder.stream([job("quick 1"), *(job(f"x{index} 30") for index in range(20))], Preparing())
    next(first)
    while feeder._held < ROOM.most:
        feeder._admit(iter([feeder._prepare(Preparing(), job(f"y{feeder._held} 40"))]), deque())
    assert [texts(one) for one in feeder.stream([job("late 2")], Preparing())] == [["late 2"]]


def test_many_jobs_with_nothing_to_ask_do_not_pile_up():
    def nothing() -> list[Request]:
        raise ValueError("no such file")

    taken: list[int] = []
    jobs = (taken.append(index) or nothing for index in range(1000))
    next(
        Feeder(Steps(), 2, room=Room(most=1000, joining=300, ahead=500, jobs_ahead=6, each=10)).stream(
            jobs, Preparing()
        )
    )
    assert len(taken) <= 300 // 10 + 6


def test_streams_of_several_threads_share_an_engine():
    engine = Steps()
    feeder, found = Feeder(engine, 2, room=ROOM), {}

    def run(name: str) -> None:
        found[name] = list(feeder.stream([job(f"{name} {1 + index % 7}") for index in range(60)], Preparing()))

    threads = [threading.Thread(target=run, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for name, outcomes in found.items():
        assert [texts(one) for one in outcomes] == [[f"{name} {1 + index % 7}"] for index in range(60)]
    assert engine.inside == {} and len(found) == 4
