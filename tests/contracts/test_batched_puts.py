"""Rows that go into TransferQueue together. The queue itself is in test_group_rollouts_run.py."""

import asyncio
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def puts() -> ModuleType:
    import omniq_verl.trainer.batched_puts_verl as module

    return module


@pytest.fixture
def sent(puts, monkeypatch) -> list[dict[str, Any]]:
    """What reaches TransferQueue, where a put takes a while and a key named "bad" fails."""
    found: list[dict[str, Any]] = []

    async def put(**given: Any) -> None:
        found.append(given)
        await asyncio.sleep(0.01)
        if "bad" in given["keys"]:
            raise OSError("the queue is gone")

    monkeypatch.setattr(puts.tq, "async_kv_batch_put", put)
    return found


def row(length: int, **more: Any) -> dict[str, Any]:
    return {"ids": torch.arange(length), "places": torch.arange(4 * length).view(4, length), "uid": "a", **more}


def put_all(puts: ModuleType, rows: list[tuple[str, str, dict[str, Any]]]) -> list[Any]:
    async def run() -> list[Any]:
        batched = puts.BatchedPuts()
        waiting = [batched.put_row(partition, key, one, {"tag": key}) for partition, key, one in rows]
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), timeout=5)

    return asyncio.run(run())


def test_rows_that_come_together_go_together(puts, sent):
    put_all(puts, [("train", str(number), row(number + 1)) for number in range(16)])
    (only,) = sent
    assert only["keys"] == [str(number) for number in range(16)]
    assert only["tags"] == [{"tag": str(number)} for number in range(16)]
    for number in range(16):
        assert torch.equal(only["fields"]["ids"][number], torch.arange(number + 1))
        assert torch.equal(only["fields"]["places"][number], row(number + 1)["places"])


def test_values_that_rows_share_are_wrapped_once_and_stay_what_they_are(puts):
    shared, messages = {"score": 3.0}, [{"role": "user"}]
    rows = [{"reward": shared, "messages": messages, "own": {"row": number}} for number in range(3)]
    found = puts.columns(rows)
    assert found.get("reward").tolist() == [shared] * 3
    assert found.get("messages").tolist() == [messages] * 3
    assert found.get("own").tolist() == [{"row": number} for number in range(3)]
    assert len({id(one) for one in found.get("reward").tensordicts}) == 1
    assert len({id(one) for one in found.get("own").tensordicts}) == 3


def test_rows_that_come_during_a_put_wait_for_it_and_then_go_together(puts, sent):
    async def run() -> None:
        batched = puts.BatchedPuts()

        async def later(number: int) -> None:
            await asyncio.sleep(0.002 * number)
            await batched.put_row("train", str(number), row(3), {})

        await asyncio.gather(*map(later, range(4)))

    asyncio.run(run())
    assert [one["keys"] for one in sent] == [["0"], ["1", "2", "3"]]


def test_partitions_and_rows_with_other_fields_stay_apart(puts, sent):
    put_all(
        puts, [("train", "a", row(2)), ("val", "b", row(2)), ("train", "c", row(2, extra=1)), ("train", "d", row(5))]
    )
    assert sorted((one["partition_id"], one["keys"]) for one in sent) == [
        ("train", ["a", "d"]),
        ("train", ["c"]),
        ("val", ["b"]),
    ]


def test_an_error_reaches_the_rows_of_its_put_and_no_other(puts, sent):
    results = put_all(puts, [("train", "good", row(2)), ("val", "bad", row(2)), ("val", "with it", row(3))])
    assert [type(result) for result in results] == [type(None), OSError, OSError]


def test_a_rollout_that_is_cancelled_does_not_take_the_others_along(puts, sent):
    async def run() -> list[Any]:
        batched = puts.BatchedPuts()
        tasks = [asyncio.create_task(batched.put_row("train", key, row(2), {})) for key in "abc"]
        await asyncio.sleep(0.001)
        tasks[1].cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=5)

    assert [type(result) for result in asyncio.run(run())] == [type(None), asyncio.CancelledError, type(None)]


def test_a_batch_of_equal_rows_is_as_verl_stacks_it(puts):
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    rows = [row(3), row(3)]
    ours, expected = puts.columns(rows), list_of_dict_to_tensordict(rows)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ("ids", "places"))
    assert ours["uid"] == expected["uid"]
