"""The drift alarm during training: a second judge scores the rollouts of each step without affecting training."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta

from omniq_verl.adapters.drift_alarm import DriftAlarm
from omniq_verl.filters.batch_reward_verl import Row, rollouts_of
from omniq_verl.rewards.batch import BatchRewardSettings, batch_reward

JUDGE = "reward.drift_judge"
logger = logging.getLogger(__name__)
_FIELDS = ["responses", "rm_scores", "extra_info"]


def drift_watch(config: DictConfig, decode: Callable[[list[list[int]]], list[str]]) -> "DriftWatch | None":
    """Create the drift watch from ``reward.drift_*`` of a composed configuration; None if there is no second judge.

    Raises:
        ValueError: a setting is out of range, or the function does not exist.
    """
    name = OmegaConf.select(config, "reward.drift_judge")
    if name is None:
        return None
    settings = OmegaConf.select(config, "reward.drift_settings")
    plain: Any = OmegaConf.to_container(settings, resolve=True) if OmegaConf.is_config(settings) else settings
    alarm = DriftAlarm(OmegaConf.select(config, "reward.drift_window"), OmegaConf.select(config, "reward.drift_level"))
    return DriftWatch(BatchRewardSettings(name, plain or {}, setting=JUDGE), alarm, decode)


class DriftWatch:
    """A second judge of the rollouts, and the alarm.

    Args:
        judge: a function of all rollouts, like a batch reward; its weight is not used.
        alarm: gets the mean reward and the mean judgement of each step.
        decode: turns the token ids of several answers into their texts, without special tokens.
    """

    def __init__(self, judge: BatchRewardSettings, alarm: DriftAlarm, decode: Callable[[list[list[int]]], list[str]]):
        self._judge, self._alarm, self._decode = judge, alarm, decode
        self._rewards: list[float] = []
        self._judged: list[float] = []
        self._alarms = 0

    def look(self, batch: KVBatchMeta, rows: Sequence[Row], groups: Sequence[str]) -> None:
        """Judge the rollouts of one draw before the filter, without changing them.

        Raises:
            ValueError: the judge fails, or does not return one finite number per rollout.
        """
        partition: Any = batch.partition_id  # verl sets it
        fields = tq.kv_batch_get(keys=batch.keys, partition_id=partition, select_fields=_FIELDS)
        answers = [answer.tolist() for answer in fields["responses"]]
        infos: list[Any] = [getattr(info, "data", info) for info in fields["extra_info"]]
        rollouts = rollouts_of(rows, groups, self._decode(answers), [len(answer) for answer in answers], infos)
        self._judged += batch_reward(rollouts, self._judge).tolist()
        self._rewards += [float(scores.sum()) for scores in fields["rm_scores"]]

    def pop_metrics(self) -> dict[str, float]:
        """Return the metrics of the step that ends; empty if it had no rollouts."""
        if not self._rewards:
            return {}
        reward, judge = float(np.mean(self._rewards)), float(np.mean(self._judged))
        self._rewards, self._judged = [], []
        if drift := self._alarm.add(reward, judge):
            self._alarms += 1
            logger.warning("drift: %s", drift)
        return {"drift/reward": reward, "drift/judge": judge, "drift/alarms": float(self._alarms)}
