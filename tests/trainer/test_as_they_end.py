"""Coroutines whose results come as they end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from omniq_verl.trainer.as_they_end import as_they_end


async def after(seconds: float, result: Any = None) -> Any:
    await asyncio.sleep(seconds)
    if isinstance(result, BaseException):
        raise result
    return result


def ended(*coroutines: Coroutine[Any, Any, Any]) -> list[list[tuple[int, Any]]]:
    async def run() -> list[Any]:
        return [part async for part in as_they_end(coroutines)]

    return asyncio.run(asyncio.wait_for(run(), timeout=5))


def test_results_come_in_the_order_in_which_they_end():
    assert ended(after(0.1, "slow"), after(0, "quick"), after(0.05, "medium")) == [
        [(1, "quick")],
        [(2, "medium")],
        [(0, "slow")],
    ]


def test_results_that_end_together_come_together():
    async def run() -> list[Any]:
        step = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, step.set)  # as the engine's step ends several answers
        return [part async for part in as_they_end(step.wait() for _ in range(16))]

    assert asyncio.run(run()) == [[(number, True) for number in range(16)]]


def test_nothing_to_run_yields_nothing():
    assert ended() == []


def test_one_that_fails_has_its_error_and_the_others_go_on():
    error = ValueError("the prompt is too long")
    found = dict(one for part in ended(after(0.02, "a"), after(0, error), after(0.02, "b")) for one in part)
    assert found == {0: "a", 1: error, 2: "b"}


class Unreadable(Exception):
    def __init__(self, code: int, text: str):
        super().__init__(f"{text} ({code})")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unreadable(3, "the engine is dead"), "Unreadable: the engine is dead (3)"),
        (asyncio.CancelledError(), "cancelled"),
    ],
    ids=["cannot be sent to another process", "cancelled"],
)
def test_an_error_that_cannot_be_sent_keeps_its_text(error, said):
    ((_, found),) = ended(after(0, error))[0]
    assert isinstance(found, RuntimeError)
    assert said in str(found)


def test_those_that_still_run_are_cancelled_when_nobody_listens():
    cancelled = []

    async def endless(number: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async def run() -> None:
        parts = as_they_end([after(0, "first"), endless(1), endless(2)])
        assert await anext(parts) == [(0, "first")]
        await parts.aclose()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert cancelled == [1, 2]
