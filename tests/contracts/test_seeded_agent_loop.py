"""Rollouts that can be repeated. The file that imports verl into the tests' own process."""

import asyncio
import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omniq_verl.tiny.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["a good photograph"], 300)
BANNED = {
    TOKENIZER.convert_tokens_to_ids(token)
    for token in TOKENIZER.all_special_tokens
    if token not in ("<|im_end|>", "<|endoftext|>")  # these end an answer, or pad it
}


@pytest.fixture(scope="module")
def loops() -> ModuleType:
    import omniq_verl.trainer.seeded_agent_loop_verl as module

    return module


def agent(loops: ModuleType, seed: int = 7) -> Any:
    """An agent loop without servers and models."""
    loop = object.__new__(loops.SeededAgentLoop)
    loop.rollout_config = SimpleNamespace(seed=seed)
    loop.processor, loop.tokenizer = None, TOKENIZER
    return loop


def row(**changes: Any) -> dict[str, Any]:
    """What verl tells a rollout about itself (verl/trainer/ppo/v1/agent_loop_tq.py)."""
    return {
        "uid": "a",
        "global_steps": 3,
        "extra_info": {"id": "koniq/5"},
        "data_source": "koniq",
        "session_id": 2,
        "raw_prompt": [],
        **changes,
    }


# Seeds


def test_seeds_differ_over_runs_steps_rows_and_sessions(loops):
    seeds = {
        loops.rollout_seed(run, step, f"koniq/{number}", session)
        for run in range(2)
        for step in range(10)
        for number in range(20)
        for session in range(16)
    }
    assert len(seeds) == 2 * 10 * 20 * 16
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_seeds_are_the_same_on_every_machine(loops):
    assert loops.rollout_seed(run_seed=0, step=1, row="koniq/2", session=3) == 557746789


def test_digits_do_not_move_from_one_number_to_the_next(loops):
    assert loops.rollout_seed(0, 1, "11", 1) != loops.rollout_seed(0, 11, "1", 1)


@pytest.fixture
def requests(loops, monkeypatch) -> list[dict]:
    """The sampling settings that reach verl's own agent loop."""
    found = []

    async def run(self, sampling_params, priority=0, **kwargs):
        found.append({"sampling": sampling_params, "priority": priority, "row": kwargs})
        return SimpleNamespace(response_ids=[1, 2])

    monkeypatch.setattr(loops.SingleTurnAgentLoop, "run", run)
    return found


def test_a_rollout_is_sampled_with_its_own_seed(loops, requests):
    given = {"temperature": 1.0, "top_p": 1.0}
    output = asyncio.run(agent(loops).run(given, priority=4, **row()))
    seed = loops.rollout_seed(run_seed=7, step=3, row="koniq/5", session=2)
    sampling = requests[0]["sampling"]
    assert sampling.pop("logit_bias") == dict.fromkeys(BANNED, -100.0)
    assert requests == [{"sampling": {"temperature": 1.0, "top_p": 1.0, "seed": seed}, "priority": 4, "row": row()}]
    assert (output.response_ids, given) == ([1, 2], {"temperature": 1.0, "top_p": 1.0})


def test_a_row_that_a_later_draw_of_a_step_brings_again_is_answered_anew(loops, requests):
    for kwargs in (row(), row(omniq_draw=0), row(omniq_draw=1), row(omniq_draw=2)):
        asyncio.run(agent(loops).run({}, **kwargs))
    first, same, second, third = (request["sampling"]["seed"] for request in requests)
    assert first == same and len({first, second, third}) == 3


def test_numbers_from_numpy_give_the_same_seed(loops, requests):
    numbers = row(global_steps=np.int64(3), extra_info={"id": np.str_("koniq/5")}, session_id=np.int32(2))
    for kwargs in (row(), numbers):
        asyncio.run(agent(loops).run({}, **kwargs))
    assert requests[0]["sampling"] == requests[1]["sampling"]


# Failures


@pytest.fixture
def failures(loops, monkeypatch) -> list[tuple]:
    """What is reported to the trainer; TransferQueue itself is there in the tests of whole runs."""
    found: list[tuple] = []

    async def report(*failure: Any) -> None:
        found.append(failure)

    monkeypatch.setattr(loops, "report_failure", report)
    return found


def answering(loops, monkeypatch, answer: Any) -> None:
    async def run(self, sampling_params, priority=0, **kwargs):
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(response_ids=answer)

    monkeypatch.setattr(loops.SingleTurnAgentLoop, "run", run)


def test_a_rollout_that_fails_names_its_row_and_tells_the_trainer(loops, monkeypatch, failures):
    error = OSError("the image is broken")
    answering(loops, monkeypatch, error)
    with pytest.raises(loops.RolloutFailed, match=r"row koniq/5 of koniq failed \(the image is broken\)"):
        asyncio.run(agent(loops).run({}, **row()))
    assert failures == [("a_2", "koniq/5", "koniq", error)]


@pytest.mark.parametrize("token", sorted(BANNED))
def test_no_answer_with_a_banned_token_is_trained_on(loops, monkeypatch, failures, token):
    answering(loops, monkeypatch, [5, token, 6])
    with pytest.raises(loops.RolloutFailed, match=f"ids {token}"):
        asyncio.run(agent(loops).run({}, **row()))
    assert failures[0][3].tokens == [token]


@pytest.mark.parametrize("fails", [False, True], ids=["stored", "lost"])
def test_a_rollout_ends_when_the_pixels_of_its_group_are_stored(loops, monkeypatch, failures, fails):
    from omniq_verl.trainer.prompt_inputs import PROMPT_INPUTS, PromptInputs

    stored = []

    async def store() -> None:
        await asyncio.sleep(0.01)
        if fails:
            raise OSError("the queue is gone")
        stored.append("pixels")

    async def roll_out(session: int) -> list[str]:
        await agent(loops).run({}, **row(session_id=session))
        return list(stored)

    async def ask() -> list[Any]:
        PROMPT_INPUTS.set(PromptInputs({}, stored=asyncio.create_task(store())))
        return await asyncio.gather(*map(roll_out, range(3)), return_exceptions=True)

    answering(loops, monkeypatch, [1, 2])
    found = asyncio.run(ask())
    if fails:
        assert all(isinstance(one, loops.RolloutFailed) and "the queue is gone" in str(one) for one in found)
        assert [failure[0] for failure in failures] == ["a_0", "a_1", "a_2"]
    else:
        assert found == [["pixels"]] * 3


def test_an_answer_may_end_as_answers_do(loops, requests, monkeypatch):
    answering(loops, monkeypatch, [5, TOKENIZER.eos_token_id])
    assert asyncio.run(agent(loops).run({}, **row())).response_ids == [5, TOKENIZER.eos_token_id]


def test_a_processor_that_runs_out_of_images_is_an_error_and_no_endless_wait(loops):
    def build(messages: list) -> list:
        return [next(iter(messages))]  # StopIteration, as Qwen2.5-VL's processor raises it

    async def ask() -> None:
        guarded = loops._without_stop_iteration(build)
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, guarded, []), timeout=10)

    with pytest.raises(ValueError, match="more image placeholders than images"):
        asyncio.run(ask())


# Once per group


def counted(calls: list, key: str, result: Any = None):
    async def compute() -> Any:
        calls.append(key)
        await asyncio.sleep(0)
        return result

    return compute


def test_concurrent_callers_of_a_group_share_one_result(loops):
    calls: list[str] = []
    media = object()

    async def ask() -> list:
        once = loops.OncePerGroup()
        return await asyncio.gather(*(once.get("a", counted(calls, "a", media)) for _ in range(16)))

    assert asyncio.run(ask()) == [media] * 16
    assert calls == ["a"]


def test_a_later_caller_gets_the_same_result(loops):
    calls: list[str] = []

    async def ask() -> list:
        once = loops.OncePerGroup()
        return [await once.get("a", counted(calls, "a", 1)), await once.get("a", counted(calls, "a", 2))]

    assert asyncio.run(ask()) == [1, 1]


def test_groups_do_not_share(loops):
    calls: list[str] = []

    async def ask() -> list:
        once = loops.OncePerGroup()
        return await asyncio.gather(*(once.get(key, counted(calls, key, key)) for key in "abab"))

    assert asyncio.run(ask()) == list("abab")
    assert sorted(calls) == ["a", "b"]


def test_the_oldest_group_is_forgotten_when_there_are_too_many(loops):
    calls: list[str] = []

    async def ask() -> None:
        once = loops.OncePerGroup(capacity=2)
        for key in "abc" + "cb" + "a":
            await once.get(key, counted(calls, key))

    asyncio.run(ask())
    assert calls == ["a", "b", "c", "a"]


def test_a_group_that_is_forgotten_while_it_is_computed_still_gets_its_result(loops):
    calls: list[str] = []

    async def ask() -> list:
        once = loops.OncePerGroup(capacity=1)
        return await asyncio.gather(*(once.get(key, counted(calls, key, key)) for key in "abc"))

    assert asyncio.run(ask()) == list("abc")


def test_an_error_reaches_all_callers_of_the_group_and_no_other(loops):
    async def fail() -> None:
        raise OSError("no such image")

    async def ask() -> list:
        once = loops.OncePerGroup()
        bad = [once.get("a", fail) for _ in range(3)]
        return await asyncio.gather(*bad, once.get("b", counted([], "b", 1)), return_exceptions=True)

    results = asyncio.run(ask())
    assert [type(result) for result in results] == [OSError, OSError, OSError, int]


def test_a_caller_that_is_cancelled_does_not_take_the_others_along(loops):
    async def ask() -> list:
        once = loops.OncePerGroup()
        callers = [asyncio.ensure_future(once.get("a", counted([], "a", 1))) for _ in range(3)]
        await asyncio.sleep(0)
        callers[0].cancel()
        return await asyncio.gather(*callers, return_exceptions=True)

    results = asyncio.run(ask())
    assert [type(result) for result in results] == [asyncio.CancelledError, int, int]


# Image and tokens


@pytest.mark.parametrize(
    ("method", "result"), [("process_multi_modal_info", {"images": ["pixels"]}), ("ct_build_initial_tokens", [1, 2, 3])]
)
def test_image_and_tokens_of_a_group_are_prepared_once_and_are_each_rollout_s_own(loops, monkeypatch, method, result):
    calls: list[str] = []

    async def prepare(self, messages: list, **kwargs: Any) -> Any:
        return await counted(calls, self._group, result)()

    monkeypatch.setattr(loops.SingleTurnAgentLoop, method, prepare)
    monkeypatch.setattr(loops.SeededAgentLoop, "_media", loops.OncePerGroup())
    monkeypatch.setattr(loops.SeededAgentLoop, "_tokens", loops.OncePerGroup())

    async def ask(group: str) -> Any:
        loop = agent(loops)
        loop._group = group
        return await getattr(loop, method)([])

    async def ask_all() -> list:
        return await asyncio.gather(*(ask(group) for group in "aaabbb"))

    found = asyncio.run(ask_all())
    assert found == [result] * 6
    assert sorted(calls) == ["a", "b"]
    assert len({id(each) for each in found}) == 6


def test_verl_still_makes_the_calls_that_are_answered_once(loops):
    names = set(inspect.unwrap(loops.SingleTurnAgentLoop.run).__code__.co_names)
    assert {"process_multi_modal_info", "ct_build_initial_tokens"} <= names


def test_a_group_that_has_ended_is_forgotten(loops, monkeypatch):
    monkeypatch.setattr(loops.SeededAgentLoop, "_media", media := loops.OncePerGroup())
    monkeypatch.setattr(loops.SeededAgentLoop, "_tokens", tokens := loops.OncePerGroup())
    calls: list[str] = []

    async def ask() -> None:
        for once in (media, tokens):
            for group in "ab":
                await once.get(group, counted(calls, group))
        loops.SeededAgentLoop.forget("a")
        loops.SeededAgentLoop.forget("never seen")
        for once in (media, tokens):
            for group in "ab":
                await once.get(group, counted(calls, f"{group} again"))

    asyncio.run(ask())
    assert calls == ["a", "b", "a", "b", "a again", "a again"]
