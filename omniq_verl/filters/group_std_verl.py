"""The group-std filter as verl's sampler (``trainer.v1.sampler.custom_sampler``)."""

import dataclasses
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from omniq_verl.filters.batch_reward_verl import BatchReward
from omniq_verl.filters.drift_verl import DriftWatch
from omniq_verl.filters.group_std import group_of, group_std_mask
from omniq_verl.filters.settings import FilterSettings
from omniq_verl.filters.worker_watch_verl import WorkerWatch
from omniq_verl.rewards import Status
from omniq_verl.rewards.outside import number_of

logger = logging.getLogger(__name__)
_STATUSES = [status.value for status in Status]
_NO_TRAJECTORY = "no materializable trajectories"  # part of verl's error message (replay_buffer.py:519)


class NothingToTrainOn(RuntimeError):
    """Every group of every draw was degenerate or failed, or every rollout of a validation batch failed."""


class GroupStdSampler(ReplayBuffer):
    """verl's sampler for the sync trainer, with the filter. In all modes it counts parse statuses by data source."""

    batch_reward: BatchReward | None = None
    """Set by the trainer if the recipe has one."""
    drift: DriftWatch | None = None
    """Set by the trainer if the recipe has a second judge."""
    watch: WorkerWatch | None = None
    """Set by the trainer: the workers that answer the prompts this sampler waits for."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.settings = FilterSettings(**kwargs["sampler_kwargs"])
        self.poll_interval = self.settings.poll_interval

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        if partition_id == "val":
            return self._sample_validation(global_steps, batch_size)
        kept = KVBatchMeta(partition_id=partition_id, keys=[], tags=[])
        counts = Counter({"filter/draws": 0, "filter/groups_dropped": 0, "filter/groups_failed": 0})
        wanted, rewards, metrics = batch_size, {}, {}
        for draw in range(self.settings.max_refills + 1):
            if draw:
                assert self.refill_fn is not None  # verl's trainer sets it
                self.refill_fn(wanted)
            drawn, metrics = self._draw(global_steps, partition_id, wanted)
            counts["filter/groups_failed"] += wanted - len({group_of(key) for key in drawn.keys})
            kept = _join(kept, self._keep(drawn, counts, rewards))
            counts["filter/draws"] += 1
            wanted = self._still_wanted(kept, batch_size, counts)
            if wanted == 0:
                break
        drawn_reward = _drawn_reward(rewards)
        compared = {} if self.batch_reward is None else self.batch_reward.pop_metrics()
        compared |= {} if self.drift is None else self.drift.pop_metrics()
        return self._finish(kept, batch_size, wanted, counts), {**metrics, **counts, **drawn_reward, **compared}

    def _sample_validation(self, global_steps: int, batch_size: int) -> tuple[KVBatchMeta, dict]:
        batch, metrics = super().sample(global_steps, "val", batch_size)
        if not batch.keys:  # verl fails on such a batch without saying why (trainer_base.py:1107)
            raise NothingToTrainOn(
                f"every rollout of {batch_size} validation rows failed; failed_rollouts.jsonl in the run's folder and"
                " the log above say why. Perhaps the vLLM server has died, because it ran out of memory or was killed."
                " If only a last, small batch of rows is at fault, leave out data.val_batch_size"
            )
        return batch, metrics

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        if self.watch is not None:
            self.watch.check()
        return super()._wait_for_next_poll(partition_id, last_debug_time)

    def _draw(self, global_steps: int, partition_id: str, wanted: int) -> tuple[KVBatchMeta, dict]:
        try:
            return super().sample(global_steps, partition_id, wanted)
        except RuntimeError as error:
            if _NO_TRAJECTORY not in str(error):
                raise
            # Every rollout of every group failed, which happens easily if only one group is drawn. Treat it like a
            # draw in which no group was kept.
            self._clear_groups(partition_id, set(self.failure_keys[partition_id]))
            return KVBatchMeta(partition_id=partition_id, keys=[], tags=[]), {}

    def _keep(self, drawn: KVBatchMeta, counts: Counter[str], rewards: dict[str, list[float]]) -> KVBatchMeta:
        """Return the rows of ``drawn`` whose groups have a spread. The others are counted and cleared.

        The rewards of all rows are added to ``rewards`` by group, if the reward function reports them.
        """
        if not drawn.keys:
            return drawn
        drawn, rows = _in_fixed_order(drawn)
        _check_finite(rows)
        _count_statuses(rows, counts)
        if self.batch_reward is not None:
            self.batch_reward.apply(drawn, rows, [group_of(key) for key in drawn.keys])
        if self.drift is not None:  # after the batch reward, which changes rewards
            self.drift.look(drawn, rows, [group_of(key) for key in drawn.keys])
        for key, row in zip(drawn.keys, rows, strict=True):
            if "score" in row.parts:
                rewards.setdefault(group_of(key), []).append(row.parts["score"])
        if self.settings.mode == "all":
            return drawn
        groups = np.array([group_of(key) for key in drawn.keys])
        values = np.array([self._metric_of(row) for row in rows])
        keep = group_std_mask(values, groups, self.settings.tau)
        _count_dropped(values, groups, keep, counts)
        self._clear(drawn, ~keep)
        return _select(drawn, np.flatnonzero(keep))

    def _metric_of(self, row: "_Row") -> float:
        name = self.settings.metric
        if name not in row.parts:
            raise KeyError(
                f"the group-std filter looks at {name!r}, but the reward has only {sorted(row.parts)}; choose one of"
                " them with trainer.v1.sampler.sampler_kwargs.metric"
            )
        if not math.isfinite(value := number_of(row.parts[name])):
            raise ValueError(
                f"the group-std filter looks at {name!r}, which is {row.parts[name]} for an answer to {row.id} of"
                f" {row.data_source}. Fix: choose a part that every answer has, such as accuracy, by"
                " trainer.v1.sampler.sampler_kwargs.metric"
            )
        return value

    def _still_wanted(self, kept: KVBatchMeta, batch_size: int, counts: Counter[str]) -> int:
        """Return the number of prompts to draw next; 0 if there are enough."""
        have = len({group_of(key) for key in kept.keys})
        drawn = have + counts["filter/groups_dropped"]
        if self.settings.mode != "refill" or not drawn:  # if every rollout failed, the rate is unknown
            return 0 if have else batch_size
        # Assume the rate at which groups were kept so far, but never draw more than a batch.
        missing = max(batch_size - have, 0)
        return min(math.ceil(missing * drawn / max(have, 1)), batch_size)

    def _finish(self, kept: KVBatchMeta, batch_size: int, wanted: int, counts: Counter[str]) -> KVBatchMeta:
        groups = list(dict.fromkeys(group_of(key) for key in kept.keys))
        if not groups and not counts["filter/groups_dropped"]:
            raise NothingToTrainOn(
                f"every rollout of {counts['filter/groups_failed']} prompts failed; the log above says why. Perhaps the"
                " vLLM server has died, because it ran out of memory or was killed"
            )
        if not groups:
            raise NothingToTrainOn(
                f"in {counts['filter/draws']} draws no group's {self.settings.metric} spread by more than tau ="
                f" {self.settings.tau}: the policy answers each prompt in only one way. Raise rollout.temperature or"
                " rollout.n, lower tau, or set trainer.v1.sampler.sampler_kwargs.mode=all"
            )
        if wanted:
            logger.warning("max_refills reached: training on %d of %d groups", len(groups), batch_size)
        surplus = set(groups[batch_size:])
        extra = np.array([group_of(key) in surplus for key in kept.keys])
        self._clear(kept, extra)
        counts["filter/groups_kept"] = len(groups) - len(surplus)
        counts["filter/groups_surplus"] = len(surplus)
        counts["filter/bound_reached"] = int(wanted > 0)
        return _select(kept, np.flatnonzero(~extra))

    def _clear(self, batch: KVBatchMeta, rows: np.ndarray) -> None:
        keys = [key for key, gone in zip(batch.keys, rows, strict=True) if gone]
        if keys:
            tq.kv_clear(partition_id=batch.partition_id, keys=keys)  # pyright: ignore[reportArgumentType]  verl sets it


@dataclasses.dataclass(frozen=True)
class _Row:
    id: str
    task: str
    data_source: str
    parts: dict[str, Any]
    """Parts of the reward. They are numbers, unless a user's reward function returns other values."""


def _in_fixed_order(batch: KVBatchMeta) -> tuple[KVBatchMeta, list[_Row]]:
    """Return the batch, with its rows, in an order that does not depend on which rollout finished first.

    The order is that of a hash of the row's id. Ordering by the id itself would always put the same groups at the end,
    where they may be left out as surplus.
    """
    fields = tq.kv_batch_get(
        keys=batch.keys,
        partition_id=batch.partition_id,  # pyright: ignore[reportArgumentType]  verl sets it
        select_fields=["extra_fields", "extra_info", "data_source"],
    )
    rows = [
        _Row(
            str(_plain(info)["id"]),
            str(_plain(info).get("task")),
            str(_plain(source)),
            _plain(extra).get("reward_extra_info") or {},
        )
        for info, source, extra in zip(fields["extra_info"], fields["data_source"], fields["extra_fields"], strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: (_hash(rows[i].id), rows[i].task, *_session(batch.keys[i])))
    return _select(batch, order), [rows[i] for i in order]


def _hash(row_id: str) -> bytes:
    return hashlib.blake2b(row_id.encode(), digest_size=8).digest()


def _session(key: str) -> tuple[str, int, int]:
    group, session, index = key.rsplit("_", 2)
    return group, int(session), int(index)


def _check_finite(rows: Sequence[_Row]) -> None:
    """Check the rewards: a NaN would make the advantages of its group NaN, and then every weight.

    Raises:
        ValueError: a reward is not finite; the message names its row.
    """
    for row in rows:
        reward = row.parts.get("score", row.parts.get("acc"))  # verl names a reward without parts "acc"
        if reward is not None and not math.isfinite(number_of(reward)):
            raise ValueError(
                f"the reward of an answer to {row.id} of {row.data_source} is {reward}. Fix: let the reward function"
                " return a finite number for every answer, e.g. 0 for one that it cannot judge"
            )


def _count_statuses(rows: Sequence[_Row], counts: Counter[str]) -> None:
    """Count parse statuses by data source. Users' reward functions do not report them."""
    for row in rows:
        if {"status", "level_asked"} <= row.parts.keys():  # needs both, because a user's "status" could be anything
            for status in _STATUSES:
                counts[f"parse/{row.data_source}/{status}"] += 0  # curves need a zero instead of a gap
            counts[f"parse/{row.data_source}/{_STATUSES[int(row.parts['status'])]}"] += 1


def _drawn_reward(rewards: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean reward over all rollouts. verl's own critic/score/mean covers only the groups that were kept."""
    if not rewards:
        return {}
    mean = float(np.mean([reward for group in rewards.values() for reward in group]))
    return {"filter/reward_drawn": mean, "filter/reward_group_std": float(np.mean([*map(np.std, rewards.values())]))}


def _count_dropped(values: np.ndarray, groups: np.ndarray, keep: np.ndarray, counts: Counter[str]) -> None:
    for group in np.unique(groups[~keep]):
        members = values[groups == group]
        counts["filter/groups_dropped"] += 1
        counts["filter/dropped_single" if len(members) == 1 else "filter/dropped_no_spread"] += 1
        fifth = min(max(int(members.mean() * 5), 0), 4) / 5
        counts[f"filter/dropped_at_{fifth:.1f}_to_{fifth + 0.2:.1f}"] += 1


def _select(batch: KVBatchMeta, chosen: Sequence[int] | np.ndarray) -> KVBatchMeta:
    keys, tags = [batch.keys[i] for i in chosen], [batch.tags[i] for i in chosen]
    return KVBatchMeta(partition_id=batch.partition_id, keys=keys, tags=tags)


def _join(first: KVBatchMeta, second: KVBatchMeta) -> KVBatchMeta:
    return KVBatchMeta(partition_id=first.partition_id, keys=first.keys + second.keys, tags=first.tags + second.tags)


def _plain(value: Any) -> Any:
    """Unwrap a value from tensordict's wrapper, if it has one."""
    return getattr(value, "data", value)
