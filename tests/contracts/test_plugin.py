"""How verl, vLLM and torch find this package and its recipes."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # the probe starts verl and vLLM in several processes
REPO = Path(__file__).parents[2]


# Entry points


def test_every_entry_point_leads_to_something(verl_facts):
    assert sorted(map(tuple, verl_facts["entry_points"]["loaded"])) == [
        ("console_scripts", "omniq", "omniq_verl.cli:main", "function"),
        ("torch.backends", "omniq_verl", "omniq_verl.cpu.torch_companions:adapt", "function"),
        ("verl.plugins", "omniq_verl", "omniq_verl.plugin", "module"),
        ("vllm.general_plugins", "omniq_verl", "omniq_verl.cpu.vllm_weights:keep_weights_replaceable", "function"),
        ("vllm.general_plugins", "omniq_verl_child", "omniq_verl.generation.vllm_child:die_with_parent", "function"),
    ]


def test_a_plugin_that_fails_says_so(verl_facts):
    facts = verl_facts["broken"]
    assert facts["import"] == "verl"  # verl itself notes the failure at DEBUG level and goes on
    assert "omniq_verl: its verl plug-in could not be loaded: ImportError('broken on purpose')" in facts["stderr"]


def test_a_plugin_that_works_says_nothing(verl_facts):
    for process in ("cpu", "unset", "nvidia"):
        # A checkout of that name stands in the paths of others' warnings.
        assert not re.search("omniq_verl(?!/)", verl_facts[process]["stderr"])


@pytest.mark.parametrize("process", ["unset", "nvidia", "huawei", "amd"])
def test_without_the_cpu_platform_importing_verl_imports_nothing_more_than_the_plugin(verl_facts, process):
    extra = set(verl_facts[process]["modules"]) - set(verl_facts["bare"]["modules"])
    assert extra == {"omniq_verl.plugin"}


@pytest.mark.parametrize("process", ["cpu", "unset", "nvidia"])
def test_the_agent_loop_of_the_recipes_is_registered_once_verl_has_its_own(verl_facts, process):
    assert {"omniq_seeded", "single_turn_agent"} <= set(verl_facts[process]["agent_loops"])


# Recipes


def recipe(verl_facts: dict, name: str) -> dict:
    return verl_facts["recipes"]["composed"][name]


def value(config: dict, key: str) -> object:
    for part in key.split("."):
        config = config[part]
    return config


def test_every_recipe_composes(verl_facts):
    names = {str(path.relative_to(REPO / "recipes").with_suffix("")) for path in REPO.glob("recipes/**/*.yaml")}
    parts = {name for name in names if name.split("/")[0] in ("base", "hardware")}
    assert set(verl_facts["recipes"]["composed"]) == names - parts
    assert len(parts) == 8 and len(names - parts) > 20


def test_verl_itself_accepts_every_recipe(verl_facts):
    found = verl_facts["recipes"]["checked"]
    faults = {name: said for name, said in found.items() if "Config" not in said}
    assert not faults


GRPO = ("quickstart/grpo", "omniquality_r/stage1", "omniquality_r/stage2", "omniquality_r/stage2_multi_node")


@pytest.mark.parametrize("name", GRPO)
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("algorithm.adv_estimator", "grpo"),
        ("algorithm.use_kl_in_reward", False),
        ("actor_rollout_ref.rollout.n", 16),
        ("actor_rollout_ref.rollout.temperature", 1.0),
        ("actor_rollout_ref.rollout.name", "vllm"),
        ("actor_rollout_ref.rollout.load_format", "auto"),
        ("actor_rollout_ref.rollout.agent.default_agent_loop", "omniq_seeded"),
        ("actor_rollout_ref.actor.use_kl_loss", True),
        ("actor_rollout_ref.actor.kl_loss_coef", 0.04),
        ("actor_rollout_ref.actor.clip_ratio", 0.2),
        ("actor_rollout_ref.actor.clip_ratio_low", 0.2),
        ("actor_rollout_ref.actor.clip_ratio_high", 0.2),
        ("actor_rollout_ref.actor.entropy_coeff", 0),
        ("actor_rollout_ref.actor.loss_agg_mode", "token-mean"),
        ("actor_rollout_ref.actor.policy_loss.gate_scope", "batch"),
        ("actor_rollout_ref.actor.policy_loss.gate_denominator", "all"),
        ("trainer.v1.trainer_mode", "omniq_sync"),
        ("trainer.v1.sampler.sampler_kwargs.tau", 0.001),
        ("trainer.v1.sampler.sampler_kwargs.metric", "accuracy"),
        ("reward.custom_reward_function.path", "pkg://omniq_verl.rewards"),
        ("reward.custom_reward_function.name", "compute_score"),
        ("reward.custom_reward_function.reward_kwargs.sigma", 0.8),
        ("reward.custom_reward_function.reward_kwargs.format_weight", 0.0),
        ("data.filter_overlong_prompts", False),
        ("data.truncation", "error"),
    ],
)
def test_grpo_recipes_have_the_values_of_the_paper(verl_facts, name, key, expected):
    assert value(recipe(verl_facts, name), key) == expected


@pytest.mark.parametrize(
    ("name", "rho", "mode"),
    [
        ("omniquality_r/stage1", None, "all"),
        ("omniquality_r/stage2", 0.2, "drop"),
        ("omniquality_r/cpu_tiny_stage1", None, "all"),
        ("omniquality_r/cpu_tiny_stage2", 0.2, "drop"),
        ("ablation/entropy", 0.2, "all"),
        ("ablation/entropy_std", 0.2, "drop"),
        ("ablation/plain", None, "all"),
    ],
)
def test_stages_and_rows_of_table_4_have_their_gate_and_filter(verl_facts, name, rho, mode):
    config = recipe(verl_facts, name)
    assert value(config, "actor_rollout_ref.actor.policy_loss.gate_rho") == rho
    assert value(config, "trainer.v1.sampler.sampler_kwargs.mode") == mode


Q_INSIGHT = {
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.min_lr_ratio": 0.0,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "cosine",
    "actor_rollout_ref.actor.kl_loss_coef": 0.001,
    "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-mean",
    "actor_rollout_ref.actor.ppo_mini_batch_size": 128,
    "data.train_batch_size": 128,
    "trainer.total_epochs": 10,
    "reward.custom_reward_function.reward_kwargs.score_reward": "threshold",
    "reward.custom_reward_function.reward_kwargs.epsilon": 0.35,
    "reward.custom_reward_function.reward_kwargs.format_weight": 1.0,
    "reward.custom_reward_function.reward_kwargs.class_weight": 0.25,
    "reward.custom_reward_function.reward_kwargs.level_weight": 0.75,
}
RACT_SFT = {
    "optim.lr": 1e-6,
    "optim.min_lr_ratio": 0.001,
    "optim.lr_scheduler_type": "cosine",
    "data.train_batch_size": 128,
    "trainer.total_epochs": 10,
}
OTHER_PAPERS = {
    "q_insight/joint": Q_INSIGHT,
    "q_insight/score_only": Q_INSIGHT,
    "q_insight/degradation_only": Q_INSIGHT,
    "q_insight/comparison": Q_INSIGHT
    | {"data.train_batch_size": 32, "actor_rollout_ref.actor.ppo_mini_batch_size": 32},
    "ract/single_domain": Q_INSIGHT | {"actor_rollout_ref.actor.optim.min_lr_ratio": 0.001},
    "ract/sft": RACT_SFT,
    "ract/vision_sft": RACT_SFT,
    "ract/language_sft": RACT_SFT,
}


@pytest.mark.parametrize("name", OTHER_PAPERS)
def test_recipes_of_q_insight_and_ract_have_the_values_of_their_papers(verl_facts, name):
    config = recipe(verl_facts, name)
    assert {key: value(config, key) for key in OTHER_PAPERS[name]} == OTHER_PAPERS[name]


@pytest.mark.parametrize("name", GRPO)
def test_a_batch_is_one_optimiser_step(verl_facts, name):
    config = recipe(verl_facts, name)
    assert value(config, "actor_rollout_ref.actor.ppo_mini_batch_size") == value(config, "data.train_batch_size")


def test_the_paper_trains_on_64_prompts_a_step_for_two_epochs(verl_facts):
    config = recipe(verl_facts, "omniquality_r/stage1")
    assert (value(config, "data.train_batch_size"), value(config, "trainer.total_epochs")) == (64, 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "quickstart/grpo",
            {
                "trainer.device": "cpu",
                "actor_rollout_ref.actor.strategy": "fsdp2",
                "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "fp32",
                "actor_rollout_ref.rollout.dtype": "float32",
            },
        ),
        (
            "quickstart/sft",
            {"trainer.device": "cpu", "engine.strategy": "fsdp2", "engine.mixed_precision.param_dtype": "fp32"},
        ),
    ],
)
def test_the_quickstart_runs_on_the_cpu_in_full_precision(verl_facts, name, expected):
    assert {key: value(recipe(verl_facts, name), key) for key in expected} == expected


@pytest.mark.parametrize("name", ["quickstart/grpo", "quickstart/sft", "omniquality_r/stage1"])
def test_a_recipe_names_no_file_of_its_own(verl_facts, name):
    config = recipe(verl_facts, name)
    model = config["actor_rollout_ref"]["model"] if "actor_rollout_ref" in config else config["model"]
    given = [model["path"], config["data"]["train_files"], config["trainer"]["default_local_dir"]]
    assert given == [None, None, None]  # verl's own defaults are someone's home folder


def test_verl_finds_the_reward_function_where_the_recipe_says(verl_facts):
    # One sigma off: exp(-1/2).
    expected = {"score": 0.6065306597126334, "accuracy": 0.6065306597126334, "format": 1.0, "parsed": 1.0}
    found = verl_facts["recipes"]["reward"]
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-12)
