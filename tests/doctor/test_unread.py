"""Settings that do nothing: each is reported, with the setting that acts where there is one; and none that acts is."""

import json
from pathlib import Path

import pytest
from doctor_builders import composed
from omegaconf import OmegaConf

from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.unread import check
from omniq_verl.doctor.unread.check import check_unread
from omniq_verl.doctor.unread.record import RECORDED, digest, record

GRPO, SFT = "omniquality_r/stage1", "omniquality_r/sft"
ROLE = "actor_rollout_ref"


def checked(name: str, *overrides: str) -> tuple[list[Problem], list[str]]:
    """What is found beyond what the recipe itself has."""
    of_recipe = check_unread(composed(name))[1]
    problems, notes = check_unread(composed(name, *overrides), overrides)
    return problems, [note for note in notes if note not in of_recipe]


@pytest.mark.parametrize(
    ("name", "override", "instead"),
    [
        (GRPO, f"{ROLE}.actor.use_torch_compile=false", f"{ROLE}.actor.fsdp_config.use_torch_compile"),
        (GRPO, f"{ROLE}.ref.use_torch_compile=false", f"{ROLE}.ref.fsdp_config.use_torch_compile"),
        (GRPO, f"{ROLE}.actor.grad_clip=0.5", f"{ROLE}.actor.optim.clip_grad"),
        (GRPO, f"{ROLE}.actor.use_prefix_grouper=true", None),
        (GRPO, f"{ROLE}.actor.freeze_vision_tower=true", None),
        (GRPO, f"{ROLE}.actor.qat.enable=true", f"{ROLE}.actor.fsdp_config.qat.enable"),
        (GRPO, f"{ROLE}.actor.use_fused_kernels=true", f"{ROLE}.model.use_fused_kernels"),
        (GRPO, f"{ROLE}.actor.use_remove_padding=true", f"{ROLE}.model.use_remove_padding"),
        (GRPO, f"{ROLE}.actor.fsdp_config.strategy=fsdp", f"{ROLE}.actor.strategy"),
        (GRPO, f"{ROLE}.actor.fsdp_config.dtype=float16", None),
        (GRPO, f"{ROLE}.actor.fsdp_config.use_orig_params=true", None),  # FSDP1 reads it
        (GRPO, f"{ROLE}.rollout.skip_tokenizer_init=false", None),
        (GRPO, f"{ROLE}.rollout.engine_kwargs.sglang.attention_backend=fa3", None),
        (GRPO, "algorithm.rollout_correction.loss_type=reinforce", None),
        (GRPO, "trainer.balance_batch=false", None),
        (GRPO, "trainer.v1.separate_async.parameter_sync_step=8", None),
        (GRPO, "custom_reward_function.path=reward.py", "reward.custom_reward_function.path"),
        (SFT, "engine.dtype=float16", None),
        (SFT, "engine.use_orig_params=true", None),
        (SFT, "data.balance_dp_token=true", None),
        (SFT, "data.use_shm=true", None),
        (SFT, "trainer.seed=3", None),
        (SFT, "trainer.nnodes=2", None),
    ],
)
def test_a_setting_that_does_nothing_is_a_problem(name, override, instead):
    override = f"+{override}" if "engine_kwargs" in override else override
    (problem,), notes = checked(name, override)
    key = override.lstrip("+").partition("=")[0]
    assert problem.where.startswith(f"{key}=") and problem.what.startswith("it has no effect: verl 0.9.1 with ")
    assert problem.fix == (f"use {instead}, or remove it" if instead else "remove it")
    assert notes == []


@pytest.mark.parametrize(
    ("name", "override"),
    [
        (GRPO, f"{ROLE}.actor.fsdp_config.use_torch_compile=true"),
        (GRPO, f"{ROLE}.actor.optim.clip_grad=0.5"),
        (GRPO, f"{ROLE}.actor.strategy=fsdp2"),
        (GRPO, f"{ROLE}.actor.fsdp_config.reshard_after_forward=false"),
        (GRPO, f"{ROLE}.actor.policy_loss.gate_rho=0.2"),  # read by our part of the program only
        (GRPO, f"{ROLE}.actor.ppo_epochs=2"),
        (GRPO, f"{ROLE}.actor.checkpoint.save_contents=[model]"),
        (GRPO, f"{ROLE}.actor.entropy_from_logits_with_chunking=true"),  # fsdp_config takes its value from there
        (GRPO, f"{ROLE}.ref.entropy_from_logits_chunk_size=512"),
        (GRPO, f"{ROLE}.rollout.max_num_batched_tokens=4096"),
        (GRPO, f"{ROLE}.rollout.val_kwargs.temperature=0.5"),
        (GRPO, f"{ROLE}.rollout.multi_turn.max_user_turns=3"),
        (GRPO, f"{ROLE}.model.lora_rank=8"),
        (GRPO, "data.max_response_length=64"),  # the rollout takes its value from there
        (GRPO, "data.shuffle=false"),
        (GRPO, "algorithm.norm_adv_by_std_in_grpo=false"),
        (GRPO, "algorithm.kl_ctrl.kl_coef=0.1"),
        (GRPO, "trainer.project_name=mine"),
        (GRPO, "trainer.max_actor_ckpt_to_keep=5"),
        (GRPO, "transfer_queue.backend.SimpleStorage.total_storage_size=1000"),
        (GRPO, "ray_kwargs.ray_init.num_cpus=8"),
        (GRPO, "critic.optim.lr=1.0e-5"),
        (GRPO, f"+{ROLE}.actor.fsdp_config.mixed_precision={{param_dtype: fp32}}"),  # in no file, but in the dataclass
        (GRPO, f"+{ROLE}.rollout.enable_sleep_mode=false"),
        (GRPO, "data.custom_cls.name=Mine"),
        (SFT, "engine.use_torch_compile=true"),
        (SFT, "optim.clip_grad=0.5"),
        (SFT, "data.ignore_input_ids_mismatch=true"),
        (SFT, "data.max_token_len_per_gpu=4096"),
        (SFT, "model.enable_activation_offload=true"),
        (SFT, "checkpoint.load_contents=[model]"),
        (SFT, "trainer.resume_mode=disable"),
        (SFT, "trainer.test_freq=5"),
        (SFT, "+data.image_patch_size=14"),
    ],
)
def test_a_setting_that_acts_is_not_reported(name, override):
    assert checked(name, override) == ([], [])


@pytest.mark.parametrize(
    ("name", "key", "meant"),
    [
        (GRPO, "data.train_batch_sise", "data.train_batch_size"),
        (GRPO, "trainer.total_training_step", "trainer.total_training_steps"),
        (GRPO, "trainer.train_batch_size", "data.train_batch_size"),
        (GRPO, f"{ROLE}.actor.clip_ratio_hi", f"{ROLE}.actor.clip_ratio_high"),
        (GRPO, f"{ROLE}.rollout.gpu_memory_utilisation", f"{ROLE}.rollout.gpu_memory_utilization"),
        (GRPO, "zzz.yyy", None),
        (SFT, "optim.learning_rate", None),
        (SFT, "data.max_len", "data.max_length"),
    ],
)
def test_an_unknown_name_is_a_problem_and_the_one_that_may_be_meant_is_given(name, key, meant):
    (problem,), notes = checked(name, f"+{key}=12")
    said = f"there is no such setting (did you mean {meant}?)" if meant else "there is no such setting"
    assert (problem.where, problem.what) == (f"{key}=12", said)
    assert notes == []


def test_an_unknown_name_in_a_recipe_is_a_problem_as_well():
    (problem,), _ = check_unread(composed(GRPO, "+data.train_batch_sise=12"))
    assert problem.where == "data.train_batch_sise=12"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (GRPO, f"{ROLE}.rollout.engine_kwargs.vllm.kv_cache_dtype"),
        (GRPO, f"{ROLE}.model.override_config.rope_theta"),
        (GRPO, f"{ROLE}.actor.optim.override_optimizer_config.fused"),
        (GRPO, f"{ROLE}.rollout.checkpoint_engine.engine_kwargs.nccl.rebuild_group"),
        (GRPO, "data.mm_processor_kwargs.max_pixels"),
        (GRPO, "data.apply_chat_template_kwargs.enable_thinking"),
        (GRPO, "trainer.v1.sampler.sampler_kwargs.anything"),
        (GRPO, "reward.custom_reward_function.reward_kwargs.sources.ava.sigma"),
        (GRPO, "ray_kwargs.ray_init.runtime_env.pip"),
        (SFT, "model.override_config.rope_theta"),
        (SFT, "data.apply_chat_template_kwargs.anything"),
    ],
)
def test_what_is_given_to_others_as_it_is_may_have_any_key(name, key):
    assert checked(name, f"+{key}=1") == ([], [])


def test_a_setting_of_the_recipe_is_a_note_where_it_is_not_the_default():
    key = f"{ROLE}.actor.use_torch_compile"
    problems, notes = check_unread(composed(GRPO, f"{key}=false"))
    assert problems == [] and any(note.startswith(f"{key}=False: it has no effect") for note in notes)
    problems, notes = check_unread(composed(GRPO, f"{key}=true"))
    assert problems == [] and not any(key in note for note in notes)


def test_the_default_given_on_the_command_line_is_a_problem():
    (problem,), _ = checked(GRPO, f"{ROLE}.actor.use_torch_compile=true")
    assert problem.where == f"{ROLE}.actor.use_torch_compile=True"


def test_the_command_line_is_known_from_hydra_as_well():
    override = f"{ROLE}.actor.grad_clip=0.5"
    config = composed(GRPO, override)
    OmegaConf.update(config, "hydra", {"overrides": {"task": [override]}}, force_add=True)
    (problem,), _ = check_unread(config)
    assert problem.where == override


def test_a_setting_acts_as_long_as_another_takes_its_value_from_it():
    chunked = f"{ROLE}.actor.entropy_from_logits_with_chunking=true"
    assert checked(GRPO, chunked) == ([], [])
    (problem,), _ = checked(GRPO, chunked, f"{ROLE}.actor.fsdp_config.entropy_from_logits_with_chunking=false")
    assert problem.where.startswith(f"{ROLE}.actor.entropy_from_logits_with_chunking=")
    assert problem.fix.startswith(f"use {ROLE}.actor.fsdp_config.entropy_from_logits_with_chunking")


def test_a_name_that_only_a_recipe_refers_to_acts():
    assert checked(GRPO, "+mine.lr=1.0e-6", f"{ROLE}.actor.optim.lr=${{mine.lr}}") == ([], [])


def test_fsdp_1_reads_what_fsdp_2_does_not():
    override = f"{ROLE}.actor.fsdp_config.use_orig_params=true"
    assert checked(GRPO, f"{ROLE}.actor.strategy=fsdp", override) == ([], [])
    (problem,), _ = checked(GRPO, f"{ROLE}.actor.strategy=fsdp", f"{ROLE}.actor.fsdp_config.offload_policy=true")
    assert problem.where == f"{ROLE}.actor.fsdp_config.offload_policy=True"


@pytest.mark.parametrize(
    "code",
    [
        "data.custom_cls.path=mine.py",
        "data.custom_cls.path=pkg://mine.data",
        f"{ROLE}.model.external_lib=mine",
        f"+{ROLE}.rollout.agent.agent_loop_manager_class=mine.Manager",
        "trainer.checkpoint_callback_class=mine.Callback",
    ],
)
def test_code_of_the_users_own_might_read_any_setting_so_that_there_is_only_a_note(code):
    problems, notes = checked(GRPO, code, "+data.mine=1")
    assert problems == [] and len(notes) == 1 and notes[0].startswith("data.mine=1: there is no such setting")


def test_a_reward_of_the_users_own_reads_no_settings_but_its_own():
    (problem,), _ = checked(GRPO, "reward.custom_reward_function.path=mine.py", "+data.mine=1")
    assert problem.where == "data.mine=1"


@pytest.mark.parametrize(
    "other",
    [
        f"{ROLE}.actor.strategy=megatron",
        f"{ROLE}.rollout.name=sglang",
        "trainer.v1.trainer_mode=separate_async",
        "trainer.use_v1=false",
    ],
)
def test_other_engines_rollouts_and_trainers_are_not_judged(other):
    overrides = [other, f"{ROLE}.actor.use_torch_compile=false"]
    assert check_unread(composed(GRPO, *overrides), overrides) == ([], [])


def test_another_version_of_verl_is_not_judged_and_that_is_said(monkeypatch):
    monkeypatch.setattr(check, "version", lambda _: "0.10.0")
    problems, (note,) = check_unread(composed(GRPO), [f"{ROLE}.actor.use_torch_compile=false"])
    assert problems == [] and "known for verl 0.9.1 only, not for 0.10.0" in note


@pytest.mark.parametrize("name", [GRPO, SFT, "quickstart/grpo", "quickstart/sft"])
def test_our_recipes_have_no_setting_that_does_nothing(name):
    # Of each machine and each trainer one; test_doctor_recipes.py has the others.
    assert check_unread(composed(name)) == ([], [])


def test_the_recording_is_of_the_installed_verl_and_of_this_analysis():
    recorded = json.loads(Path(RECORDED).read_text())
    assert recorded["digest"] == digest(), "run python -m omniq_verl.doctor.unread.record"


@pytest.mark.slow
def test_the_analysis_finds_what_is_recorded():
    recorded = json.loads(Path(RECORDED).read_text())["grpo"]
    found = json.loads(json.dumps(record(["grpo"], ["fsdp2"])))["grpo"]
    assert found["ignored"]["fsdp2"] == recorded["ignored"]["fsdp2"]
    assert found["opaque"] == recorded["opaque"]
    assert set(found["acting"]) <= set(recorded["acting"])
