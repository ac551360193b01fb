"""verl's V1 trainer with our worker, even mini-batches after a filter, and validation in PLCC and SRCC."""

import math
import os
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from omniq_verl.doctor.settings import check_settings
from omniq_verl.trainer.metric_files import next_metric_file
from omniq_verl.trainer.mini_batches import batch_multiple
from omniq_verl.trainer.padding_verl import pad_with_masked_copies
from omniq_verl.trainer.validation import ANSWER_KEYS, validation_metrics
from omniq_verl.trainer.worker_verl import OmniqActorRolloutRefWorker

_ACTOR_ROLES = {Role.Actor, Role.ActorRollout, Role.ActorRolloutRef}


def _log_into_run_folder(config: DictConfig) -> None:
    """Where the user named no file, verl would log into the current folder, over the metrics of the start before."""
    path = next_metric_file(Path(config.trainer.default_local_dir))
    if "VERL_FILE_LOGGER_PATH" not in os.environ and "file" in config.trainer.logger:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.environ["VERL_FILE_LOGGER_PATH"] = str(path)


@register_trainer("omniq_sync")
class OmniqTrainerSync(PPOTrainerSync):
    """verl's ``sync`` trainer with what this package adds (``trainer.v1.trainer_mode: omniq_sync``)."""

    def __init__(self, config: DictConfig):
        if problems := check_settings(config):
            raise ValueError(" ".join(map(str, problems)))
        _log_into_run_folder(config)
        # verl compares the mode with its own names in six places (trainer_base.py:153, 731, 902, 912, 1004, 1499).
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in _ACTOR_ROLES & self.role_worker_mapping.keys():
            self.role_worker_mapping[role] = ray.remote(OmniqActorRolloutRefWorker)

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, **kwargs: Any) -> KVBatchMeta:
        self._rows = len(batch)
        ranks = max(self.actor_rollout_wg._query_dispatch_info("actor")) + 1
        batch = pad_with_masked_copies(batch, self._get_required_batch_multiple(ranks))
        return super()._balance_batch(batch, metrics, **kwargs)

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        if self.use_critic:
            return super()._get_required_batch_multiple(dp_size)
        settings = self.config.actor_rollout_ref
        # verl cuts a rank's rows into micro-batches of one size, unless it cuts them by their tokens.
        micro = 1 if settings.actor.use_dynamic_bsz else math.lcm(*_micro_batch_sizes(settings))
        return batch_multiple(self._rows, settings.actor.ppo_mini_batch_size * settings.rollout.n, dp_size * micro)

    def _val_metrics_update(
        self, data_sources: list, sample_uids: list, reward_extra_infos_dict: dict, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        answers = {key: reward_extra_infos_dict.pop(key) for key in ANSWER_KEYS if key in reward_extra_infos_dict}
        metrics = super()._val_metrics_update(data_sources, sample_uids, reward_extra_infos_dict, *args, **kwargs)
        if len(answers) == len(ANSWER_KEYS):
            metrics.update(validation_metrics(data_sources, answers))
        return metrics


def _micro_batch_sizes(settings: DictConfig) -> list[int]:
    sizes = (
        settings.actor.ppo_micro_batch_size_per_gpu,
        settings.rollout.log_prob_micro_batch_size_per_gpu,
        settings.ref.log_prob_micro_batch_size_per_gpu,
    )
    return [size for size in sizes if size]
