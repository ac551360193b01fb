"""Check the settings of rewards, filter and gate. Used by the preflight and again by the trainer."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.batch_reward import batch_faults, drift_faults
from omniq_verl.doctor.packing import packing_faults, sequence_parallel_size
from omniq_verl.doctor.problem import Problem
from omniq_verl.filters.settings import FilterSettings
from omniq_verl.losses.settings import LINEAR_LOSSES, GateSettings
from omniq_verl.rewards import RewardSettings
from omniq_verl.rewards.outside import probe
from omniq_verl.trainer.best_checkpoint import METRICS as BEST_METRICS
from omniq_verl.trainer.best_checkpoint import OFF

REWARD = "reward.custom_reward_function"
_OUR_TRAINER = "omniq_sync"
OUR_REWARDS = "pkg://omniq_verl.rewards"
_METRICS = ("accuracy", "score", "format", "parsed", "level_right")
_SAMPLER = "trainer.v1.sampler"
_LOSS = "actor_rollout_ref.actor.policy_loss"


def check_settings(config: DictConfig) -> list[Problem]:
    """All faults of a composed configuration; settings of other people's rewards and samplers are not looked at."""
    rewards = (_reward_faults, batch_faults, drift_faults)
    parts = (*rewards, _filter_faults, _sampler_faults, _gate_faults, _best_faults, packing_faults)
    return [fault for part in parts for fault in part(config)]


def _node(config: DictConfig, key: str) -> dict:
    found = OmegaConf.select(config, key)
    plain = OmegaConf.to_container(found, resolve=True) if isinstance(found, DictConfig) else None
    return plain if isinstance(plain, dict) else {}


def _reward_faults(config: DictConfig) -> Iterator[Problem]:
    if OmegaConf.select(config, f"{REWARD}.path") != OUR_REWARDS:
        return
    settings = _node(config, f"{REWARD}.reward_kwargs")
    for source in (None, *(settings.get("sources") or {})):
        try:
            probe(RewardSettings.for_source(source, **settings).score_function)
        except (TypeError, ValueError) as error:
            where = f"{REWARD}.reward_kwargs" + (f".sources.{source}" if source else "")
            what, _, fix = str(error).partition(". Fix: ")
            yield Problem(where, what, fix or "see omniq_verl.rewards.RewardSettings")


def _filter_faults(config: DictConfig) -> Iterator[Problem]:
    if OmegaConf.select(config, f"{_SAMPLER}.custom_sampler.name") != "GroupStdSampler":
        return
    try:
        settings = FilterSettings(**_node(config, f"{_SAMPLER}.sampler_kwargs"))
    except (TypeError, ValueError) as error:
        yield Problem(f"{_SAMPLER}.sampler_kwargs", str(error), "see omniq_verl.filters.settings.FilterSettings")
        return
    ours = OmegaConf.select(config, f"{REWARD}.path") == OUR_REWARDS
    metrics = (*_METRICS, "batch_reward") if OmegaConf.select(config, "reward.batch_reward") else _METRICS
    if ours and settings.metric not in metrics:
        what = f"is {settings.metric!r}, which is not a part of the reward that every answer has"
        yield Problem(f"{_SAMPLER}.sampler_kwargs.metric", what, f"choose one of {', '.join(metrics)}")
    if settings.mode != "all" and OmegaConf.select(config, "actor_rollout_ref.rollout.n") == 1:
        what = "is 1; a group of one answer has no spread, so the filter would drop every group"
        yield Problem("actor_rollout_ref.rollout.n", what, f"raise it, or set {_SAMPLER}.sampler_kwargs.mode=all")
    at_once = OmegaConf.select(config, "data.gen_batch_size")
    if settings.mode == "refill" and at_once != 1:
        what = f"is {at_once}, and the group-std filter in mode refill asks for single prompts"
        yield Problem("data.gen_batch_size", what, "set data.gen_batch_size=1")


def _sampler_faults(config: DictConfig) -> Iterator[Problem]:
    if OmegaConf.select(config, f"{_SAMPLER}.custom_sampler.name") != "GroupStdSampler":
        return
    mode = OmegaConf.select(config, "trainer.v1.trainer_mode")
    if mode not in ("sync", _OUR_TRAINER):
        what = f"is {mode}, but GroupStdSampler works with the sync trainer"
        fix = f"set it to {_OUR_TRAINER}, or {_SAMPLER}.custom_sampler.path and .name to null"
        yield Problem("trainer.v1.trainer_mode", what, fix)
    if OmegaConf.select(config, "algorithm.filter_groups.enable"):
        what = "verl applies its own group filter only with its own sampler, so it would have no effect"
        fix = f"set it to False and {_SAMPLER}.sampler_kwargs.mode to drop or refill"
        yield Problem("algorithm.filter_groups.enable", what, fix)


def _best_faults(config: DictConfig) -> Iterator[Problem]:
    key = "trainer.v1.keep_best"
    if (metric := OmegaConf.select(config, key, default=OFF)) not in (OFF, *BEST_METRICS):
        yield Problem(
            key, f"is {metric!r}, which is not a metric to compare by", f"choose {', '.join(BEST_METRICS)} or off"
        )


def _gate_faults(config: DictConfig) -> Iterator[Problem]:
    given = {name.removeprefix("gate_"): value for name, value in _node(config, _LOSS).items() if name[:5] == "gate_"}
    try:
        settings = GateSettings(**given)
    except (TypeError, ValueError) as error:
        yield Problem(f"{_LOSS}.gate_*", str(error), "see omniq_verl.losses.settings.GateSettings")
        return
    if settings.rho is not None:
        yield from _gate_conflicts(config, settings)


def _gate_conflicts(config: DictConfig, settings: GateSettings) -> Iterator[Problem]:
    off = f"or {_LOSS}.gate_rho to null"
    bypass = "algorithm.rollout_correction.bypass_mode"
    if OmegaConf.select(config, bypass):
        what = "skips the log-probabilities of the old policy, and thereby the entropies that the gate needs"
        yield Problem(bypass, what, f"set it to False, {off}")
    mode = OmegaConf.select(config, "trainer.v1.trainer_mode")
    if mode != _OUR_TRAINER or not OmegaConf.select(config, "trainer.use_v1"):
        what = f"is {mode}; only the worker of the V1 trainer {_OUR_TRAINER} has the gate, so it would not be applied"
        yield Problem("trainer.v1.trainer_mode", what, f"set it to {_OUR_TRAINER} (with trainer.use_v1=True), {off}")
    loss = OmegaConf.select(config, f"{_LOSS}.loss_mode")
    if loss not in LINEAR_LOSSES:
        what = f"is {loss}, which is not linear in a token's advantage, so the gate would not be exact"
        yield Problem(f"{_LOSS}.loss_mode", what, f"choose one of {', '.join(LINEAR_LOSSES)}, {off}")
    actor = config.actor_rollout_ref.actor
    if settings.denominator == "gated" and loss == "sapo":  # which does not read loss_agg_mode
        what = "gated counts tokens, and verl's sapo takes the mean of each answer, whatever loss_agg_mode says"
        yield Problem(f"{_LOSS}.gate_denominator", what, "set gate_denominator=all")
    elif settings.denominator == "gated" and actor.loss_agg_mode != "token-mean":
        what = f"gated counts tokens, and loss_agg_mode is {actor.loss_agg_mode}"
        yield Problem(f"{_LOSS}.gate_denominator", what, "set loss_agg_mode=token-mean, or gate_denominator=all")
    parallel = sequence_parallel_size(config) > 1
    if settings.entropy == "current" and (actor.strategy not in ("fsdp", "fsdp2") or parallel):
        what = "current needs a forward pass whose entropies reach every rank: FSDP without sequence parallelism"
        yield Problem(f"{_LOSS}.gate_entropy", what, "set gate_entropy=old")
