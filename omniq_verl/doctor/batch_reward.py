"""Check the settings of the batch reward and of the drift judge."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omniq_verl.adapters.drift_alarm import DriftAlarm
from omniq_verl.doctor.problem import Problem
from omniq_verl.rewards.batch import BatchRewardSettings
from omniq_verl.rewards.batch.probe import probe_batch_reward

_KEY = "reward.batch_reward"
_DRIFT = "reward.drift_judge"
_SAMPLER = "trainer.v1.sampler"


def batch_faults(config: DictConfig) -> Iterator[Problem]:
    """Find all faults of ``reward.batch_*``."""
    name, weight = (OmegaConf.select(config, f"reward.batch_{key}") for key in ("reward", "weight"))
    settings = OmegaConf.select(config, "reward.batch_settings")
    plain: Any = OmegaConf.to_container(settings, resolve=True) if OmegaConf.is_config(settings) else settings
    if name is None:
        if plain:
            yield Problem(
                "reward.batch_settings", f"has no effect while {_KEY} is null", f"set {_KEY}, or leave it out"
            )
        return
    try:
        probe_batch_reward(BatchRewardSettings(name, plain or {}, 1.0 if weight is None else weight))
    except (TypeError, ValueError) as error:
        what, _, fix = str(error).partition(". Fix: ")
        yield Problem(_KEY, what, fix or "see docs/guides/rewards.md")
    yield from _place_faults(config)


def drift_faults(config: DictConfig) -> Iterator[Problem]:
    """Find all faults of ``reward.drift_*``."""
    name, window, level = (OmegaConf.select(config, f"reward.drift_{key}") for key in ("judge", "window", "level"))
    settings = OmegaConf.select(config, "reward.drift_settings")
    plain: Any = OmegaConf.to_container(settings, resolve=True) if OmegaConf.is_config(settings) else settings
    if name is None:
        if plain:
            what = f"has no effect while {_DRIFT} is null"
            yield Problem("reward.drift_settings", what, f"set {_DRIFT}, or leave it out")
        return
    try:
        DriftAlarm(window, level)
        BatchRewardSettings(name, plain or {}, setting=_DRIFT)
    except (TypeError, ValueError) as error:
        what, _, fix = str(error).partition(". Fix: ")
        yield Problem(_DRIFT, what, fix or "see docs/guides/rewards.md")
    yield from _caller_faults(config, _DRIFT, "the drift judge")


def _caller_faults(config: DictConfig, key: str, called: str) -> Iterator[Problem]:
    """Check that the run will call the function."""
    trainer = OmegaConf.select(config, "trainer.v1.trainer_mode")
    if trainer != "omniq_sync":
        what = f"is {trainer}; {called} is called by the trainer omniq_sync and would be left out"
        yield Problem("trainer.v1.trainer_mode", what, f"set it to omniq_sync, or {key} to null")
    sampler = OmegaConf.select(config, f"{_SAMPLER}.custom_sampler.name")
    if sampler != "GroupStdSampler":
        what = f"is {sampler}; {called} is called by GroupStdSampler and would be left out"
        yield Problem(f"{_SAMPLER}.custom_sampler.name", what, f"set it to GroupStdSampler, or {key} to null")


def _place_faults(config: DictConfig) -> Iterator[Problem]:
    """Check that the run will call the function, and that the filter looks at a quantity that is trained on."""
    yield from _caller_faults(config, _KEY, "the batch reward")
    filtered = OmegaConf.select(config, f"{_SAMPLER}.sampler_kwargs.mode") in ("drop", "refill")
    looks_at = OmegaConf.select(config, f"{_SAMPLER}.sampler_kwargs.metric")
    weight = OmegaConf.select(config, "reward.custom_reward_function.reward_kwargs.accuracy_weight")
    if filtered and looks_at == "accuracy" and weight == 0:
        what = "is accuracy, whose weight is 0, so the filter looks at something that is not trained on"
        yield Problem(f"{_SAMPLER}.sampler_kwargs.metric", what, "set it to batch_reward")
