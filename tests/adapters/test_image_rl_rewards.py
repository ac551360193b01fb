"""Our reward functions, called as verl-omni and flow_grpo call theirs (their sources are named at each test)."""

import asyncio
import inspect

import numpy as np
import pytest
import torch
from serving_builders import app, listening

from omniq_verl.adapters.flow_grpo_reward import omniq_reward
from omniq_verl.serving.reward_client import compute_score


@pytest.fixture(scope="module")
def url():
    with listening(app()) as address:
        yield address


def verl_omnis_call(function, image, ground_truth, **reward_kwargs):
    """The call and the reading of the result in verl-omni.

    github.com/verl-project/verl-omni, commit a1139ba, verl_omni/reward_loop/reward_manager/visual.py, lines 59 to 120,
    ``VisualRewardManager.run_single``: an async function gets four keywords and, if a reward model is served, three
    more (later versions, such as commit 1486d9c, also ``sampling_params``). ``score`` of a returned object is the
    reward, and its other keys are logged. ``reward_kwargs`` of the configuration are bound before, by verl.
    """
    assert inspect.iscoroutinefunction(function)
    keywords = {"data_source": "images", "solution_image": image, "ground_truth": ground_truth}
    keywords["extra_info"] = {"num_turns": None, "rollout_reward_scores": {}}
    served = {"reward_router_address": "127.0.0.1:1", "reward_model_tokenizer": None, "model_name": "critic"}
    served["sampling_params"] = {"max_tokens": 4096}
    results = [asyncio.run(function(**keywords, **more, **reward_kwargs)) for more in ({}, served)]
    assert results[0] == results[1]
    return results[0].pop("score"), results[0]


def test_verl_omni_gets_a_score_and_numbers_to_log(url):
    image = torch.full((3, 16, 16), 51, dtype=torch.uint8)
    score, logged = verl_omnis_call(compute_score, image, "a cat", server_url=url, task="technical")
    assert score == pytest.approx(0.2) and type(score) is float
    assert torch.tensor([score], dtype=torch.float32).shape == (1,)  # assemble_rm_scores, the same file, line 57
    assert logged == {"omniq_parsed": 1.0}


def flow_grpos_multi_score(entry, weight, images, prompts, metadata):
    """What ``multi_score`` does with one entry of its table.

    github.com/yifan123/flow_grpo, commit ac4c86e, flow_grpo/rewards.py, lines 360 to 398: an entry is called with the
    device if its code has a variable of that name; the reward is called with three positions and returns two values,
    and each score is multiplied by the weight.
    """
    reward = entry("cpu") if "device" in entry.__code__.co_varnames else entry()
    scores, _ = reward(images, prompts, metadata)
    details = {"omniq": scores, "avg": [weight * score for score in scores]}
    return {key: torch.as_tensor(value).float() for key, value in details.items()}


GREYS = torch.tensor([0.0, 0.2, 1.0])[:, None, None, None].expand(-1, 3, 16, 16)


@pytest.mark.parametrize(
    "images",
    [
        GREYS.clone(),
        GREYS.to(torch.float16),
        GREYS.to(torch.bfloat16) * 1.0001,
        (GREYS * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(),
    ],
    ids=["float32", "float16", "bfloat16", "arrays"],
)
def test_flow_grpo_gets_one_score_per_image_in_order(url, images):
    found = flow_grpos_multi_score(omniq_reward(url, "technical"), 0.5, images, ("a", "b", "c"), [{}, {}, {}])
    assert found["omniq"].tolist() == pytest.approx([0.0, 0.2, 1.0], abs=1e-3)
    assert found["avg"].tolist() == pytest.approx([0.0, 0.1, 0.5], abs=1e-3)


def test_values_beyond_rounding_are_an_error_and_not_a_reward(url):
    for images in (GREYS * 2 - 1, GREYS * 255, torch.full((1, 3, 16, 16), float("nan"))):
        with pytest.raises(ValueError, match=r"images\[\d\]"):
            omniq_reward(url, "technical")()(images, ["a"] * len(images), None)
    with pytest.raises(ValueError, match="gives no score"):
        omniq_reward(url, "degradation")


def test_a_numpy_array_is_not_changed_by_scoring(url):
    images = np.full((2, 16, 16, 3), 51, dtype=np.uint8)
    before = images.copy()
    omniq_reward(url, "technical")()(images, ["a", "b"], None)
    assert np.array_equal(images, before)
