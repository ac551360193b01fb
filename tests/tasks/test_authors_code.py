"""The variant of the authors' code: its settings, its prompts, and the scale 0 to 5 wherever a model is asked."""

import re
from pathlib import Path

import pytest
from doctor_builders import composed
from generation_builders import png

from omniq_verl.evaluation.heatmap import asked_messages
from omniq_verl.generation.request import Answer
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.preparation.cli import _scale
from omniq_verl.t2i.candidates import GuidedRun
from omniq_verl.t2i.generator import GeneratorSpec
from omniq_verl.t2i.image_scorers import ImageScorers
from omniq_verl.tasks import Scale, find_task, scale_of


@pytest.mark.parametrize(("stage", "epochs", "rate"), [(1, 2, 1e-6), (2, 8, 1e-7)])
def test_the_settings_are_those_of_the_authors_scripts(stage, epochs, rate):
    config = composed(f"omniquality_r/stage{stage}_authors_code")
    actor, rewards = config.actor_rollout_ref.actor, config.reward.custom_reward_function.reward_kwargs
    assert (config.trainer.total_epochs, actor.optim.lr, actor.kl_loss_coef) == (epochs, rate, 0.001)
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n) == (64, 64)
    assert {name: one.sigma for name, one in rewards.sources.items()} == {"ava": 1.2, "evalmuse": 1.2}
    assert rewards.sigma == 0.8 and rewards.sigma * 1.5 == pytest.approx(1.2)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (4096, 4096)
    assert (actor.policy_loss.gate_scope, actor.policy_loss.gate_denominator) == ("sequence", "gated")
    assert actor.policy_loss.gate_rho == (None if stage == 1 else 0.2)


def test_the_papers_stage_2_has_no_number_of_the_code_that_the_paper_contradicts():
    config = composed("omniquality_r/stage2")
    assert (config.trainer.total_epochs, config.actor_rollout_ref.actor.optim.lr) == (2, 1e-6)
    assert config.actor_rollout_ref.actor.kl_loss_coef == 0.04


@pytest.mark.parametrize("name", ["technical", "aesthetic", "alignment"])
def test_a_task_of_the_code_has_a_system_turn_and_its_scale(name):
    task = find_task(f"code_{name}")
    system, user = task.messages("koniq/1", "a car" if task.needs_text else None)
    assert system["role"] == "system" and "<think>" in system["content"] and "<answer>" in system["content"]
    assert "from 0" in user["content"] and task.like == name and task.scale == Scale(0, 5)
    assert _scale(task.name, None) == Scale(0, 5) and _scale(task.name, "1-5") == _scale(name, None) == Scale(1, 5)


class Asked:
    """An engine that answers 0.5, and says from which number on it was asked."""

    def __init__(self, spec):
        pass

    def answer(self, requests, sampling):
        lowest = (re.search(r"from (\d) \(bad\)", request.messages[-1]["content"])[1] for request in requests)
        return [[Answer(f"<think>from {number}</think><answer>0.5</answer>")] for number in lowest]


@pytest.mark.parametrize(("scale", "asked", "status"), [("0-5", "0", "ok"), (None, "1", "out_of_range")])
def test_images_of_a_text_are_scored_on_the_scale_of_the_scorer(tmp_path, scale, asked, status):
    (tmp_path / "a.png").write_bytes(png(0, 32))
    judges = ImageScorers(["technical"], EngineSpec("", f"{__name__}:Asked"), scale=scale_of(scale))
    ((found,),) = judges.batches([tmp_path / "a.png"], [""])
    assert found["technical"].status == status and f"from {asked}<" in found["technical"].answer


def test_answers_on_another_scale_are_another_run():
    runs = [
        GuidedRun([{"prompt": "a car"}], Path("x"), GeneratorSpec("g"), EngineSpec("", "a:b"), scale=scale)
        for scale in (None, "0-5")
    ]
    assert runs[0].settings() | {"scale": "0-5"} == runs[1].settings() and "scale" not in runs[0].settings()
    with pytest.raises(ValueError, match="unknown scale '0-7'"):
        GuidedRun([{"prompt": "a car"}], Path("x"), GeneratorSpec("g"), EngineSpec("", "a:b"), scale="0-7")


def test_the_heat_map_asks_on_the_scale():
    assert "from 0 (bad)" in asked_messages("technical", None, None, "0-5")[0]["content"]
    assert "from 1 (bad)" in asked_messages("technical", None, None)[0]["content"]
    with pytest.raises(ValueError, match="has no score"):
        asked_messages("degradation", None, None, "0-5")
