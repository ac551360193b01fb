"""Our agent loop worker's parts against verl's own, without Ray. Whole rollouts: test_group_rollouts_run.py."""

import asyncio
import gc
import json
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from doctor_builders import composed, pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rollout_builders import PROCESSOR, TOKENIZER, digest_of, worker
from tensordict import NonTensorStack, TensorDict

from omniq_verl.tasks import TECHNICAL
from omniq_verl.trainer.group_pixels import (
    MARKER,
    knows_images,
    why_rewards_are_remote,
    why_rows_carry_pixels,
    without_images,
)
from omniq_verl.trainer.prompt_inputs import PromptInputs

UPSTREAM = {
    "agent_loop.AgentLoopWorker._run_agent_loop": "0f7ca528e5d33921",
    "agent_loop.AgentLoopWorker._compute_multi_modal_inputs": "382d3710dcfd0c2a",
    "agent_loop.AgentLoopWorker._compute_position_ids": "4e10e75505ecf149",
    "agent_loop.AgentLoopWorker._compute_score": "d5e2c5afcb179449",
    "agent_loop_tq.AgentLoopWorkerTQ._run_prompt": "7329cecd9c87ba0a",
    "agent_loop_tq.AgentLoopWorkerTQ._agent_loop_postprocess": "1b95a08b0c926f95",
    "agent_loop_tq.AgentLoopManagerTQ.generate_sequences": "a98d49cdd09bdc08",
    "single_turn.SingleTurnAgentLoop.run": "e872f6a876bcca83",
    "naive.NaiveRewardManager.run_single": "14433a3776d4473a",
}
"""Digests of what verl's functions say that ours replace or rely on (verl 0.9.1)."""


@pytest.fixture(scope="module")
def rollouts() -> ModuleType:
    import omniq_verl.trainer.group_rollouts_verl as module

    return module


@pytest.fixture(scope="module")
def queue() -> ModuleType:
    import omniq_verl.trainer.group_pixels_verl as module

    return module


def upstream(name: str) -> Any:
    from verl.experimental.agent_loop import agent_loop, single_turn_agent_loop
    from verl.experimental.reward_loop.reward_manager import naive
    from verl.trainer.ppo.v1 import agent_loop_tq

    modules = {"agent_loop": agent_loop, "agent_loop_tq": agent_loop_tq, "naive": naive}
    modules["single_turn"] = single_turn_agent_loop
    module, owner, function = name.split(".")
    found = getattr(modules[module], owner)
    return getattr(getattr(found, "__ray_actor_class__", found), function)


@pytest.mark.parametrize("name", UPSTREAM)
def test_verl_s_functions_are_those_that_ours_were_written_for(name):
    found = digest_of(upstream(name))
    assert found == UPSTREAM[name], f"read {name} again, change ours if need be, and record {found}"


# Rows


def prompt(images: list[Image.Image]) -> tuple[list[int], dict[str, Any]]:
    """Tokens and features as verl's builder of prompts reports them."""
    turns = [{"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": "Rate it."}]}]
    text = PROCESSOR.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    found = dict(PROCESSOR(text=[text], images=images or None, return_tensors="pt"))
    return found.pop("input_ids")[0].tolist(), found


SIZES = {"one image": [(80, 80)], "two images": [(40, 96), (112, 33)], "no image": []}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("answer", [[], [120, 130, 140]], ids=["no answer", "an answer"])
def test_a_row_s_inputs_are_those_that_verl_computes_for_its_answer(rollouts, queue, sizes, answer):
    images = [Image.fromarray(pixels(*size)) for size in sizes]
    tokens, features = prompt(images)
    output = SimpleNamespace(multi_modal_data={"images": images} if images else {}, mm_processor_kwargs=None)
    expected = worker(rollouts)._compute_multi_modal_inputs(output, torch.tensor(tokens + answer))
    found = queue.prompt_inputs("group", features).inputs
    assert found.keys() == expected.keys()
    # verl looks only at whether there are token types (experimental/agent_loop/agent_loop.py:934).
    same = found.keys() - {"mm_token_type_ids"}
    assert all(torch.equal(found[name], expected[name]) for name in same)


def test_a_worker_uses_what_the_prompt_left_and_verl_may_change_its_copy(rollouts):
    known = {"image_grid_thw": torch.ones(1, 3), "mm_token_type_ids": torch.ones(1)}

    async def ask() -> dict[str, Any]:
        rollouts.PROMPT_INPUTS.set(PromptInputs(known))
        return worker(rollouts)._compute_multi_modal_inputs(SimpleNamespace(), torch.ones(1))

    found = asyncio.run(ask())
    found.pop("mm_token_type_ids")
    assert "mm_token_type_ids" in known


@pytest.mark.parametrize(
    "features",
    [{}, {"pixel_values": 1}, {"pixel_values_videos": 1, "video_grid_thw": 1}, {"image_bound": 1, "attention_mask": 1}],
    ids=str,
)
def test_inputs_that_may_depend_on_the_answer_are_left_to_verl(features):
    assert not knows_images(features)


def test_messages_lose_images_and_nothing_else():
    picture = {"type": "image", "bytes": b"png", "image": object()}
    turns = [
        {"role": "system", "content": "Be honest."},
        {"role": "user", "content": [picture, {"type": "text", "text": "Rate it."}, picture]},
    ]
    assert without_images(turns) == [
        {"role": "system", "content": "Be honest."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rate it."}, {"type": "image"}]},
    ]
    assert turns[1]["content"][0] is picture


# Pixels


@pytest.fixture
def stored(queue, monkeypatch) -> dict[str, torch.Tensor]:
    """Groups with pixels, in place of TransferQueue; the real one is in test_group_rollouts_run.py."""
    pixels_of = {"a": torch.ones(4, 6), "b": torch.zeros(9, 6)}
    monkeypatch.setattr(queue, "get_pixels", lambda groups: {group: pixels_of[group] for group in groups})
    return pixels_of


def test_rows_get_the_pixels_of_their_group_in_any_order(queue, stored):
    plain = {"pixel_values": torch.full((1, 6), 5.0)}
    rows = [{MARKER: "b", "x": 1}, plain, {MARKER: "a"}, {}, {MARKER: "b"}]
    batch = TensorDict({"multi_modal_inputs": NonTensorStack(*rows)}, batch_size=[5])
    found = [getattr(one, "data", one) for one in queue.with_pixels(batch)["multi_modal_inputs"]]
    assert found[0].keys() == {"pixel_values", "x"}
    assert found[0]["pixel_values"] is found[4]["pixel_values"] is stored["b"]
    assert found[2] == {"pixel_values": stored["a"]}
    assert found[1]["pixel_values"] is plain["pixel_values"] and found[3] == {}
    assert [getattr(one, "data", one) for one in batch["multi_modal_inputs"]] == rows


def test_a_batch_without_names_of_groups_is_left_alone(queue):
    batch = TensorDict({"multi_modal_inputs": NonTensorStack({}, {})}, batch_size=[2])
    assert queue.with_pixels(batch) is batch
    assert queue.with_pixels(text := TensorDict({"x": torch.ones(2)}, batch_size=[2])) is text


def test_no_answer_waits_for_the_pixels_on_their_way(queue, monkeypatch):
    arrived, given = [], torch.ones(4, 6)

    async def put(**row: Any) -> None:
        await asyncio.sleep(0.01)
        arrived.append(row)

    monkeypatch.setattr(queue.tq, "async_kv_batch_put", put)

    async def ask() -> Any:
        queue.PIXELS_GO.set(queue.PixelsGo.ONCE)
        known = queue.prompt_inputs("a", {"pixel_values": given, "image_grid_thw": torch.tensor([[1, 2, 2]])})
        assert arrived == []
        await known.stored
        return known

    known = asyncio.run(ask())
    assert known.inputs.keys() == {MARKER, "image_grid_thw", "images_seqlens"}
    (row,) = arrived
    assert (row["keys"], row["partition_id"]) == (["a"], queue.PARTITION)
    assert torch.equal(row["fields"]["pixel_values"][0], given)


@pytest.mark.parametrize("there", [[], ["a"]], ids=["none", "one of two"])
def test_pixels_that_are_missing_are_an_error(queue, monkeypatch, there):
    def get(**_: Any) -> TensorDict:
        if not there:
            raise ValueError("keys or partition were not found!")
        return TensorDict({"pixel_values": torch.ones(len(there), 4, 6)}, batch_size=[len(there)])

    monkeypatch.setattr(queue.tq, "kv_batch_get", get)
    with pytest.raises(RuntimeError, match=r"not all in TransferQueue.*Fix: set"):
        queue.get_pixels(["a", "b"])


def test_an_engine_that_does_not_know_the_names_fails():
    from verl.utils.model import extract_multi_modal_inputs

    with pytest.raises(TypeError):
        extract_multi_modal_inputs([{MARKER: "a", "image_grid_thw": torch.ones(1, 3)}] * 2)


# Rewards

ANSWERS = ["<think>sharp</think><answer>3.5</answer>", "<answer>5</answer>", "3.5", "", "<think>no", "é ü <answer>x"]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(ANSWERS) | st.text(max_size=40))
def test_a_reward_is_that_of_verl_s_reward_worker(rollouts, text):
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.reward import get_custom_reward_fn

    config = composed("quickstart/grpo")
    reward, tokens = get_custom_reward_fn(config), TOKENIZER(text)["input_ids"] or [TOKENIZER.eos_token_id]
    row = {"data_source": "koniq", "reward_model": {"ground_truth": json.dumps({"score": 3.0})}}
    info = {"task": TECHNICAL.name, "id": "koniq/1"}
    data = DataProto.from_dict(
        tensors={"responses": torch.tensor([tokens]), "attention_mask": torch.ones(1, len(tokens), dtype=torch.long)},
        non_tensors={
            name: np.array([value], dtype=object) for name, value in {**row, "extra_info": dict(info)}.items()
        },
    )
    output = SimpleNamespace(response_ids=tokens, reward_score=None, extra_fields={}, metrics=SimpleNamespace())

    async def ask() -> dict[str, Any]:
        await worker(rollouts, reward=reward)._compute_score([output], {**row, "extra_info": info})
        return await NaiveRewardManager(config, TOKENIZER, reward).run_single(data)

    expected = asyncio.run(ask())
    found = {"reward_score": output.reward_score, "reward_extra_info": output.extra_fields["reward_extra_info"]}
    assert str(found) == str(expected)  # NaN is equal to itself in a text
    assert output.metrics.compute_score > 0


def test_a_reward_that_the_agent_has_computed_is_left_alone(rollouts):
    output = SimpleNamespace(reward_score=0.25, extra_fields={})
    own = worker(rollouts, reward=lambda **_: pytest.fail("asked"))
    own.reward_loop_worker_handles = None
    asyncio.run(own._compute_score([output], {}))
    assert output.reward_score == 0.25


@pytest.mark.parametrize("remote", [False, True])
def test_a_reward_that_fails_is_reported_with_its_row(rollouts, monkeypatch, remote):
    reported = []

    async def report(*failure: Any, **options: Any) -> None:
        reported.append((*failure, options))

    def fails(**_: Any) -> dict:
        raise ValueError("returns -0.2")

    async def remotely(self, outputs: Any, kwargs: Any) -> None:
        fails()

    monkeypatch.setattr(rollouts, "report_failure", report)
    monkeypatch.setattr(rollouts.VerlWorker, "_compute_score", remotely)
    own = worker(rollouts, reward=None if remote else fails)
    output = SimpleNamespace(response_ids=[1], reward_score=None, extra_fields={})
    row = {"data_source": "koniq", "reward_model": {"ground_truth": ""}, "extra_info": {"id": "koniq/1"}}
    with pytest.raises(ValueError, match=r"returns -0\.2"):
        asyncio.run(own._compute_score([output], {**row, "uid": "a", "session_id": 3}))
    ((key, row_id, source, error, options),) = reported
    assert (key, row_id, source, options) == ("a_3", "koniq/1", "koniq", {"reward": True}) and "-0.2" in str(error)


# When


@pytest.mark.parametrize("recipe", ["quickstart/grpo", "omniquality_r/stage2", "q_insight/joint"])
def test_recipes_share_pixels_and_compute_rewards_on_the_spot(recipe):
    config = composed(recipe)
    assert why_rows_carry_pixels(config) is None
    assert why_rewards_are_remote(config) is None
    chosen = config.actor_rollout_ref.rollout.agent.agent_loop_manager_class
    assert chosen == "omniq_verl.trainer.group_rollouts_verl.GroupAgentLoopManager"


def test_verl_finds_the_manager_that_recipes_name(rollouts):
    from verl.utils.import_utils import load_class_from_fqn

    name = composed("quickstart/grpo").actor_rollout_ref.rollout.agent.agent_loop_manager_class
    assert load_class_from_fqn(name, "AgentLoopManager") is rollouts.GroupAgentLoopManager


@pytest.mark.parametrize("validate", [False, True])
def test_a_group_is_forgotten_and_pixels_go_where_they_are_read(rollouts, monkeypatch, validate):
    seen, forgotten = [], []

    async def run(self, prompt, *args, **kwargs):
        seen.append(rollouts.PIXELS_GO.get())
        raise OSError("the queue is gone")

    monkeypatch.setattr(rollouts.VerlWorker, "_run_prompt", run)
    monkeypatch.setattr(rollouts.SeededAgentLoop, "forget", forgotten.append)
    own = worker(rollouts)
    own._once = True
    with pytest.raises(OSError):
        asyncio.run(own._run_prompt({"uid": "a"}, {}, {"validate": validate}))
    assert seen == [rollouts.PixelsGo.NOWHERE if validate else rollouts.PixelsGo.ONCE]
    assert forgotten == ["a"]


def test_a_worker_is_not_searched_for_garbage_while_it_rolls_out(rollouts, monkeypatch):
    def init(self) -> None:
        self.config, self.loaded = composed("quickstart/grpo"), [{} for _ in range(1000)]

    monkeypatch.setattr(rollouts.VerlWorker, "__init__", init)
    monkeypatch.setattr(rollouts, "get_custom_reward_fn", lambda config: None)
    try:
        made = rollouts.GroupAgentLoopWorker()
        searched = {id(one) for one in gc.get_objects()}
        assert not searched & {id(one) for one in made.loaded}
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("actor_rollout_ref.actor.strategy=megatron", "actor.strategy is megatron"),
        ("actor_rollout_ref.ref.strategy=veomni", "ref.strategy is veomni"),
        ("trainer.device=npu", "device is npu"),
        ("critic.enable=true", "critic"),
        ("algorithm.adv_estimator=gae", "critic"),
        ("reward.reward_model.enable=true", "reward model"),
        ("skip.rollout_tq.enable=true", "without pixels"),
    ],
)
def test_rows_carry_pixels_where_somebody_else_reads_them(override, said):
    assert said in why_rows_carry_pixels(composed("quickstart/grpo", override))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("reward.custom_reward_function.path=mine.py", "not this package's"),
        ("reward.custom_reward_function.name=other", "not this package's"),
        ("reward.reward_manager.name=dapo", "naive"),
        ("reward.reward_model.enable=true", "reward model"),
        ("reward.custom_reward_function.reward_kwargs.score_reward=mine:reward", "your own"),
        ("+reward.custom_reward_function.reward_kwargs.sources.ava.score_reward=mine:reward", "your own"),
    ],
)
def test_rewards_that_may_take_long_stay_with_verl_s_workers(override, said):
    assert said in why_rewards_are_remote(composed("quickstart/grpo", override))
