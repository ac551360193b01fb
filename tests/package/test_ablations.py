"""Recipes of ablations: each differs from the recipe that it is applied to in exactly the settings its row is about."""

from functools import cache

import pytest
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.packaged import RECIPES

GATE, FILTER = "actor_rollout_ref.actor.policy_loss.gate_rho", "trainer.v1.sampler.sampler_kwargs.mode"
REWARD = "reward.custom_reward_function.reward_kwargs"
NAMES = {"trainer.experiment_name", "actor_rollout_ref.rollout.trace.experiment_name"}
"""What loggers call a run, which every recipe sets."""
THRESHOLD = {f"{REWARD}.score_reward": "threshold"}
CLASSES = {"trainer.v1.keep_best": "class_accuracy"}
# Recipe, a group of recipes, the one of them that it is applied to, and what it changes there.
ROWS = [
    ("ablation/entropy", "omniquality_r", "stage1", {GATE: 0.2}),
    ("ablation/entropy", "omniquality_r", "stage2", {FILTER: "all"}),
    ("ablation/entropy_std", "omniquality_r", "stage1", {GATE: 0.2, FILTER: "drop"}),
    ("ablation/plain", "omniquality_r", "stage2", {GATE: None, FILTER: "all"}),
    ("ablation/threshold", "omniquality_r", "stage1", THRESHOLD),
    ("ablation/sigma_06", "omniquality_r", "stage1", {f"{REWARD}.sigma": 0.6}),
    ("ablation/sigma_10", "omniquality_r", "stage1", {f"{REWARD}.sigma": 1.0}),
    ("q_insight/score_only", "q_insight", "joint", {}),
    ("q_insight/degradation_only", "q_insight", "joint", CLASSES),
    ("ract/vision_sft", "ract", "sft", {}),
    ("ract/language_sft", "ract", "sft", {}),
    ("ract/vision_sft", "ract", "cpu_tiny_sft", {}),
    ("q_insight/degradation_only", "q_insight", "cpu_tiny_joint", CLASSES),
    ("ablation/plain", "omniquality_r", "cpu_tiny_stage2", {GATE: None, FILTER: "all"}),
]
TRAINED_PART = {"ract/vision_sft": "omniq_vision", "ract/language_sft": "omniq_language"}


@cache
def settings(name: str, *overrides: str) -> dict[str, object]:
    """All settings of a composed recipe by their full names."""
    config = OmegaConf.to_container(compose_recipe(name, overrides, RECIPES), resolve=True)
    return dict(flat("", config))


def flat(prefix: str, config: dict):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(f"{prefix}{key}.", value)
        else:
            yield prefix + key, value


def changed(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    """Settings that are new or have another value."""
    assert before.keys() <= after.keys()
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


@pytest.mark.parametrize(("name", "group", "base", "expected"), ROWS)
def test_an_ablation_changes_the_settings_of_its_row_and_no_other(name, group, base, expected):
    found = changed(settings(f"{group}/{base}"), settings(name, f"{group}={base}"))
    assert {key: value for key, value in found.items() if key not in NAMES} == expected
    assert found["trainer.experiment_name"] == name.replace("/", "_")


@pytest.mark.parametrize(
    ("name", "override"), [("ablation/plain", "omniquality_r=stage2"), ("ract/vision_sft", "ract=sft")]
)
def test_without_a_word_an_ablation_is_applied_to_the_full_size(name, override):
    assert settings(name) == settings(name, override)


def test_the_part_of_the_model_that_is_trained_is_named_to_verl():
    for name, engine in TRAINED_PART.items():
        assert OmegaConf.load(RECIPES / f"{name}.yaml").hydra.job.env_set == {"VERL_ENGINE_VENDOR": engine}


def test_a_mistyped_stage_is_an_error_that_lists_the_stages():
    with pytest.raises(MissingConfigException, match=r"stage3(.|\n)*stage1(.|\n)*stage2"):
        compose_recipe("ablation/entropy", ["omniquality_r=stage3"], RECIPES)
