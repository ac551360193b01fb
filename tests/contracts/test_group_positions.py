"""Positions of a group's rows against those that verl computes for each, without Ray."""

import asyncio
import importlib
from copy import copy
from types import MethodType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_builders import PROCESSOR, TOKENIZER, worker

from omniq_verl.trainer.prompt_inputs import PromptInputs

MODELS = {
    "no mRoPE": None,
    "Qwen2-VL": "qwen2_vl.Qwen2VLModel",
    "Qwen2.5-VL": "qwen2_5_vl.Qwen2_5_VLModel",
    "Qwen3-VL": "qwen3_vl.Qwen3VLModel",
    "GLM-4.1V": "glm4v.Glm4vModel",
    "GLM-4.6V": "glm46v.Glm46VModel",
}


@pytest.fixture(scope="module")
def rollouts() -> ModuleType:
    import omniq_verl.trainer.group_rollouts_verl as module

    return module


def positioned(rollouts: ModuleType, model: str | None) -> Any:
    """A worker whose processor has a model's positions, as verl sets it up (verl/utils/tokenizer/tokenizer.py:205)."""
    made = worker(rollouts, copy(PROCESSOR))
    if model is not None:
        module, name = model.split(".")
        kind = getattr(importlib.import_module(f"transformers.models.{module}"), name)
        vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=4)
        made.processor.config = SimpleNamespace(vision_config=vision)
        for method in ("get_rope_index", "get_vision_position_ids"):
            setattr(made.processor, method, MethodType(getattr(kind, method), made.processor))
    return made


def shown(parts: list[tuple[int, tuple[int, int]]], tail: int) -> tuple[list[int], dict[str, Any]]:
    """A prompt of texts with images between them, as numbers of tokens and of merged patches."""
    text, image = TOKENIZER("a")["input_ids"][0], PROCESSOR.image_token_id
    tokens = [token for before, (high, wide) in parts for token in [text] * before + [image] * high * wide]
    tokens += [text] * tail
    inputs = {"mm_token_type_ids": torch.tensor([tokens]).eq(image).int()}
    if parts:
        inputs["image_grid_thw"] = torch.tensor([[1, 2 * high, 2 * wide] for _, (high, wide) in parts])
    return tokens, inputs


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_of_a_group_have_the_positions_and_inputs_that_verl_computes_for_each(rollouts, model, data):
    side = st.integers(1, 5)
    # Between two images there is always a text, as their marks are: verl takes two without one for one image.
    parts = data.draw(st.lists(st.tuples(st.integers(1, 6), st.tuples(side, side)), max_size=3))
    tokens, known = shown(parts, tail=data.draw(st.integers(0 if parts else 1, 6)))
    answers = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    own = positioned(rollouts, model)

    async def rows() -> list[tuple[dict[str, Any], torch.Tensor]]:
        rollouts.PROMPT_INPUTS.set(PromptInputs(known))
        return [
            own._inputs_and_positions(
                SimpleNamespace(prompt_ids=tokens, response_ids=[7] * answer), torch.tensor(tokens + [7] * answer)
            )
            for answer in answers
        ]

    for answer, (inputs, positions) in zip(answers, asyncio.run(rows()), strict=True):
        ids, expected = torch.tensor([tokens + [7] * answer]), dict(known)
        verls = own._compute_position_ids(ids, torch.ones_like(ids), expected)[0]
        assert torch.equal(positions, verls) and positions.dtype == verls.dtype
        assert inputs == expected


def test_a_prompt_s_positions_are_computed_once_for_its_group(rollouts, monkeypatch):
    own, computed = positioned(rollouts, MODELS["Qwen2.5-VL"]), []
    tokens, inputs = shown([(2, (3, 4))], tail=3)
    real = own._compute_position_ids
    monkeypatch.setattr(own, "_compute_position_ids", lambda *given: computed.append(given) or real(*given))

    async def rows() -> None:
        for _ in range(2):  # groups
            rollouts.PROMPT_INPUTS.set(PromptInputs(inputs))
            for answer in range(3):
                output = SimpleNamespace(prompt_ids=tokens, response_ids=[7] * answer)
                own._inputs_and_positions(output, torch.tensor(tokens + output.response_ids))

    asyncio.run(rows())
    assert len(computed) == 2
