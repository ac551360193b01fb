"""What is wrong with the settings of rewards, filter and gate. Asked by the preflight, and by the trainer once more."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.problem import Problem
from omniq_verl.filters.settings import FilterSettings
from omniq_verl.losses.settings import GateSettings
from omniq_verl.rewards import RewardSettings

_REWARD = "reward.custom_reward_function"
_OUR_REWARDS = "pkg://omniq_verl.rewards"
_METRICS = ("accuracy", "score", "format", "parsed", "level_right")
_SAMPLER = "trainer.v1.sampler"
_LOSS = "actor_rollout_ref.actor.policy_loss"


def check_settings(config: DictConfig) -> list[Problem]:
    """All faults of a composed configuration; settings of other people's rewards and samplers are not looked at."""
    return [*_reward_faults(config), *_filter_faults(config), *_gate_faults(config)]


def _node(config: DictConfig, key: str) -> dict:
    found = OmegaConf.select(config, key)
    return OmegaConf.to_container(found, resolve=True) if isinstance(found, DictConfig) else {}


def _reward_faults(config: DictConfig) -> Iterator[Problem]:
    if OmegaConf.select(config, f"{_REWARD}.path") != _OUR_REWARDS:
        return
    settings = _node(config, f"{_REWARD}.reward_kwargs")
    for source in (None, *(settings.get("sources") or {})):
        try:
            RewardSettings.for_source(source, **settings)
        except (TypeError, ValueError) as error:
            where = f"{_REWARD}.reward_kwargs" + (f".sources.{source}" if source else "")
            yield Problem(where, str(error), "see omniq_verl.rewards.RewardSettings")


def _filter_faults(config: DictConfig) -> Iterator[Problem]:
    if OmegaConf.select(config, f"{_SAMPLER}.custom_sampler.name") != "GroupStdSampler":
        return
    try:
        settings = FilterSettings(**_node(config, f"{_SAMPLER}.sampler_kwargs"))
    except (TypeError, ValueError) as error:
        yield Problem(f"{_SAMPLER}.sampler_kwargs", str(error), "see omniq_verl.filters.settings.FilterSettings")
        return
    ours = OmegaConf.select(config, f"{_REWARD}.path") == _OUR_REWARDS
    if ours and settings.metric not in _METRICS:
        what = f"is {settings.metric!r}, which is no part of the reward that is there for every answer"
        yield Problem(f"{_SAMPLER}.sampler_kwargs.metric", what, f"choose one of {', '.join(_METRICS)}")
    at_once = OmegaConf.select(config, "data.gen_batch_size")
    if settings.mode == "refill" and at_once != 1:
        what = f"is {at_once}, and the group-std filter in mode refill asks for single prompts"
        yield Problem("data.gen_batch_size", what, "set data.gen_batch_size=1")


def _gate_faults(config: DictConfig) -> Iterator[Problem]:
    given = {name.removeprefix("gate_"): value for name, value in _node(config, _LOSS).items() if name[:5] == "gate_"}
    try:
        settings = GateSettings(**given)
    except (TypeError, ValueError) as error:
        yield Problem(f"{_LOSS}.gate_*", str(error), "see omniq_verl.losses.settings.GateSettings")
        return
    bypass = "algorithm.rollout_correction.bypass_mode"
    if settings.rho is not None and OmegaConf.select(config, bypass):
        what = "skips the log-probabilities of the old policy, and with them the entropies that the gate needs"
        yield Problem(bypass, what, f"set it to False, or {_LOSS}.gate_rho=null")
