"""Settings of rewards, filter and gate that do not work, named before Ray starts."""

import pytest
from doctor_builders import composed
from omegaconf import DictConfig

from omniq_verl.attention.transformers_attention import NAME
from omniq_verl.doctor.numbers import check_group, check_learning_rate
from omniq_verl.doctor.packing import PACKED, sequence_parallel_size, sft_packing_faults
from omniq_verl.doctor.preflight_hydra import check_platform
from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.settings import check_settings

REWARD = "reward.custom_reward_function.reward_kwargs"
SAMPLER = "trainer.v1.sampler.sampler_kwargs"
LOSS = "actor_rollout_ref.actor.policy_loss"


def faults(*overrides: str) -> list[Problem]:
    return check_settings(composed("quickstart/grpo", *overrides))


@pytest.mark.parametrize("name", ["quickstart/grpo", "omniquality_r/stage1", "omniquality_r/stage2"])
def test_our_recipes_have_no_fault(name):
    assert check_settings(composed(name)) == []


@pytest.mark.parametrize(
    ("override", "where", "what"),
    [
        (f"{REWARD}.sigma=0", REWARD, "sigma and epsilon must be positive, got 0 and 0.35"),
        (f"{REWARD}.score_reward=linear", REWARD, "'threshold' or package.module:object, got 'linear'"),
        (f"+{REWARD}.sigmas=0.8", REWARD, "sigmas"),
        (f"+{REWARD}.sources.ava.sigma=-1", f"{REWARD}.sources.ava", "got -1"),
        (f"{SAMPLER}.mode=some", SAMPLER, "mode must be one of"),
        (f"{SAMPLER}.mode=off", SAMPLER, "got 'off'"),
        (f"+{SAMPLER}.rho=1", SAMPLER, "rho"),
        (f"{SAMPLER}.mode=refill", "data.gen_batch_size", "asks for single prompts"),
        (f"{SAMPLER}.metric=acc", f"{SAMPLER}.metric", "is 'acc', which is not a part of the reward"),
        (f"{SAMPLER}.metric=pred", f"{SAMPLER}.metric", "that every answer has"),
        (f"{LOSS}.gate_rho=0", f"{LOSS}.gate_*", "rho must lie in (0, 1], got 0"),
        (f"{LOSS}.gate_scope=token", f"{LOSS}.gate_*", "scope must be one of"),
        (f"+{LOSS}.gate_share=0.2", f"{LOSS}.gate_*", "share"),
    ],
)
def test_a_fault_is_named_with_its_key(override, where, what):
    (problem,) = faults(override)
    assert problem.where == where
    assert what in problem.what


def test_the_gate_needs_the_entropies_that_bypass_mode_skips():
    bypass = "algorithm.rollout_correction.bypass_mode"
    (problem,) = faults(f"{LOSS}.gate_rho=0.2", f"{bypass}=True")
    assert problem.where == bypass
    assert "set it to False" in problem.fix
    assert faults(f"{bypass}=True") == []


GATED = f"{LOSS}.gate_rho=0.2"


@pytest.mark.parametrize(
    ("overrides", "where", "reason"),
    [
        ([GATED, "trainer.v1.trainer_mode=sync"], "trainer.v1.trainer_mode", "verl's own worker has no gate"),
        ([GATED, "trainer.use_v1=False"], "trainer.v1.trainer_mode", "nor has its older trainer"),
        ([GATED, f"{LOSS}.loss_mode=geo_mean"], f"{LOSS}.loss_mode", "one ratio for a whole sequence"),
        (
            [GATED, f"{LOSS}.gate_denominator=gated", "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean"],
            f"{LOSS}.gate_denominator",
            "a mean over sequences",
        ),
        (
            [
                *(GATED, f"{LOSS}.gate_entropy=current"),
                "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2",
            ],
            f"{LOSS}.gate_entropy",
            "some ranks would have no entropies",
        ),
        (["trainer.v1.trainer_mode=colocate_async"], "trainer.v1.trainer_mode", "our sampler is for the sync trainer"),
        (["algorithm.filter_groups.enable=True"], "algorithm.filter_groups.enable", "verl's filter would be ignored"),
    ],
)
def test_settings_that_would_be_ignored_or_wrong_are_named(overrides, where, reason):
    assert where in [problem.where for problem in faults(*overrides)], reason


def test_the_gate_goes_with_every_loss_it_is_exact_for():
    assert faults(GATED, f"{LOSS}.loss_mode=gspo") == []


SIZE, ROLE = "ulysses_sequence_parallel_size", "actor_rollout_ref"
FLASH = f"{ROLE}.model.override_config.attn_implementation=flash_attention_2"


@pytest.mark.parametrize(
    "key",
    [
        f"{ROLE}.actor.fsdp_config.{SIZE}=2",
        f"{ROLE}.actor.{SIZE}=2",
        f"{ROLE}.ref.fsdp_config.{SIZE}=4",
        f"{ROLE}.ref.{SIZE}=4",
        f"{ROLE}.model.use_remove_padding=false",
    ],
)
def test_what_packed_attention_does_not_support_is_named_before_ray_starts(key):
    (problem,) = check_settings(composed("omniquality_r/stage2", key))
    assert problem.where == key.partition("=")[0] and "attn_implementation=omniq_varlen" in problem.what
    assert check_settings(composed("omniquality_r/stage2", key, FLASH)) == []


def test_a_reference_that_is_not_loaded_is_not_judged():
    off = f"{ROLE}.actor.use_kl_loss=false"
    assert check_settings(composed("omniquality_r/stage2", f"{ROLE}.ref.{SIZE}=4", off)) == []


@pytest.mark.parametrize(("old", "new", "size"), [(1, 1, 1), (2, 1, 2), (1, 4, 4), (2, 4, 2)])
def test_both_keys_of_sequence_parallelism_count(old, new, size):
    keys = (f"{ROLE}.actor.{SIZE}={old}", f"{ROLE}.actor.fsdp_config.{SIZE}={new}")
    assert sequence_parallel_size(composed("omniquality_r/stage2", *keys)) == size


@pytest.mark.parametrize(("key", "found"), [(f"engine.{SIZE}=2", 1), ("model.use_remove_padding=false", 1), ("", 0)])
def test_supervised_training_with_packed_attention_is_judged_likewise(key, found):
    config = composed("omniquality_r/sft", *filter(None, [key]))
    assert [one.where for one in sft_packing_faults(config)] == [key.partition("=")[0]] * found


def test_the_names_of_packed_attention_are_one():
    assert PACKED == NAME


def test_refill_with_single_prompts_is_no_fault():
    assert faults(f"{SAMPLER}.mode=refill", "data.gen_batch_size=1") == []


JUDGE = "reward.drift_judge=omniq_verl.rewards.batch.score_table:closeness"


@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        (("reward.drift_judge=nobody",), "reward.drift_judge", "is 'nobody'"),
        ((JUDGE,), "reward.drift_judge", "path"),
        ((JUDGE, "+reward.drift_settings.path=a.csv", "reward.drift_window=9"), "reward.drift_judge", "too short"),
        ((JUDGE, "+reward.drift_settings.path=a.csv", "reward.drift_level=1"), "reward.drift_judge", "level is 1"),
        (("+reward.drift_settings.path=a.csv",), "reward.drift_settings", "has no effect while reward.drift_judge"),
        ((JUDGE, "+reward.drift_settings.path=a.csv", "trainer.v1.trainer_mode=sync"), "trainer_mode", "left out"),
    ],
)
def test_a_second_judge_that_would_not_work_is_named(words, where, said):
    assert any(where in one.where and said in one.what for one in faults(*words)), faults(*words)


def test_a_second_judge_may_be_set():
    assert faults(JUDGE, "+reward.drift_settings.path=a.csv") == []


@pytest.mark.parametrize(
    "override",
    ["trainer.v1.sampler.custom_sampler.name=Other", "trainer.v1.sampler.custom_sampler.name=null"],
)
def test_somebody_elses_sampler_is_not_judged(override):
    assert faults(override, f"{SAMPLER}.mode=theirs") == []


def test_somebody_elses_reward_is_not_judged():
    assert faults("reward.custom_reward_function.path=mine.py", f"{REWARD}.sigma=-1") == []


def test_a_recipe_of_verl_alone_is_not_judged():
    assert check_settings(DictConfig({"trainer": {}})) == []


@pytest.mark.parametrize(
    ("n", "estimator", "found"),
    [(1, "grpo", 1), (1, "rloo", 1), (2, "grpo", 0), (1, "gae", 0), (1, "reinforce_plus_plus", 0)],
)
def test_a_group_of_one_is_named_where_answers_are_compared(n, estimator, found):
    config = composed("quickstart/grpo", f"actor_rollout_ref.rollout.n={n}", f"algorithm.adv_estimator={estimator}")
    problems = check_group(config)
    assert [problem.where for problem in problems] == ["actor_rollout_ref.rollout.n=1"] * found


@pytest.mark.parametrize(
    ("value", "found"),
    [("1", 1), ("0.1", 1), ("-1e-6", 1), ("null", 1), ("fast", 1), ("true", 1), ("0", 0), ("3.0e-3", 0), ("1e-6", 0)],
)
def test_a_learning_rate_out_of_range_is_named(value, found):
    key = "actor_rollout_ref.actor.optim.lr"
    assert len(check_learning_rate(composed("quickstart/grpo", f"{key}={value}"), key)) == found


@pytest.mark.parametrize(
    ("device", "platform", "fix"),
    [
        ("cpu", {"VERL_PLATFORM": "cpu"}, None),
        ("cuda", {}, None),
        ("cuda", {"VERL_PLATFORM": "cuda"}, None),
        ("cpu", {}, "set VERL_PLATFORM=cpu"),
        ("cuda", {"VERL_PLATFORM": " CPU "}, "unset VERL_PLATFORM"),
    ],
)
def test_recipe_and_process_must_agree_on_the_platform(device, platform, fix):
    problems = check_platform(DictConfig({"trainer": {"device": device}}), platform)
    assert len(problems) == (fix is not None)
    assert all(problem.fix.startswith(fix) for problem in problems)
