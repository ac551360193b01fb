"""verl's V1 trainer with our worker, even mini-batches after a filter, and validation in PLCC and SRCC."""

from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.tensordict_utils import assign_non_tensor_data

from omniq_verl.doctor.settings import OUR_REWARDS, REWARD, check_settings
from omniq_verl.filters.batch_reward_verl import BatchReward, batch_reward_settings
from omniq_verl.filters.drift_verl import drift_watch
from omniq_verl.filters.group_std import group_of
from omniq_verl.filters.worker_watch_verl import WorkerWatch
from omniq_verl.live.check_verl import LiveCheck
from omniq_verl.live.failures_verl import check_rewards, collect_failures, save_failures
from omniq_verl.live.findings import LiveCheckFailed, live_check_mode
from omniq_verl.metric_log import log_into
from omniq_verl.rewards.heads import PREFIX
from omniq_verl.trainer.best_checkpoint import OFF, keep_best, part_from_best
from omniq_verl.trainer.group_packing import order_by_group
from omniq_verl.trainer.mini_batches import cut_batch
from omniq_verl.trainer.padding_verl import pad_with_masked_copies
from omniq_verl.trainer.rejected_rows import save_rejected
from omniq_verl.trainer.seeded_agent_loop_verl import DRAW
from omniq_verl.trainer.shared_prompt import SHARED, shared_prompt_mode
from omniq_verl.trainer.validation import ANSWER_KEYS, asked_tasks, task_names_of, validation_metrics, with_lost
from omniq_verl.trainer.worker_verl import MINI_BATCHES, OmniqActorRolloutRefWorker

_ACTOR_ROLES = {Role.Actor, Role.ActorRollout, Role.ActorRolloutRef}


@register_trainer("omniq_sync")
class OmniqTrainerSync(PPOTrainerSync):
    """verl's ``sync`` trainer with this package's additions (``trainer.v1.trainer_mode: omniq_sync``)."""

    _drawn = (-1, 0)
    """The last step that drew prompts, and how many draws of it came before."""

    def __init__(self, config: DictConfig):
        if problems := check_settings(config):
            raise ValueError(" ".join(map(str, problems)))
        self._live_check = live_check_mode(config)
        self._shared_prompt = shared_prompt_mode(config)
        log_into(Path(config.trainer.default_local_dir), config.trainer.logger)
        # verl compares the mode with its own names in six places (trainer_base.py:153, 731, 902, 912, 1004, 1499).
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
            # Labels are checked as our reward reads them; other rewards have their own kinds of labels.
            config.data.check_labels = OmegaConf.select(config, f"{REWARD}.path") == OUR_REWARDS
        super().__init__(config)

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        """Train, after the live check if ``trainer.v1.live_check`` requests it.

        Raises:
            LiveCheckFailed: rollout engine and trainer do not agree.
            WorkerDied: an agent loop worker is gone.
        """
        self.replay_buffer.watch = WorkerWatch(agent_loop_manager.agent_loop_workers)  # pyright: ignore[reportAttributeAccessIssue]  ours
        if self._live_check != "off":
            self.agent_loop_manager = agent_loop_manager
            report = LiveCheck(self).run()
            path = report.save(Path(self.config.trainer.default_local_dir))
            print("\n".join(["live check:", *map(str, report.findings)]), flush=True)
            if report.failed:
                raise LiveCheckFailed(f"{len(report.failed)} findings of the live check, see {path}")
        if self._live_check == "only":
            self._shutdown_dump_executor()
        else:
            super().fit(agent_loop_manager)

    def _build_replay_buffer(self) -> ReplayBuffer:
        sampler = super()._build_replay_buffer()
        if (settings := batch_reward_settings(self.config)) is not None:
            sampler.batch_reward = BatchReward(settings, self._decode)  # pyright: ignore[reportAttributeAccessIssue]  ours
        if (watch := drift_watch(self.config, self._decode)) is not None:
            sampler.drift = watch  # pyright: ignore[reportAttributeAccessIssue]  ours
        return sampler

    def _decode(self, answers: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        datasets = {"train": self.train_dataset, "val": self.val_dataset}
        rejected = [(split, one) for split, data in datasets.items() for one in getattr(data, "rejected", ())]
        save_rejected(rejected, Path(self.config.trainer.default_local_dir))

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        try:
            batch = super().step(metrics, timing_raw)
        finally:  # also where so many rollouts failed that the step did
            failed = self._save_failures()
        metrics["data/rows_rejected"] = len(getattr(self.train_dataset, "rejected", ()))
        metrics["data/rows_failed"] = failed
        return batch

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        if DRAW not in batch:  # the live check sets it, whose rollouts are no draw of a step
            step, draw = self._drawn
            self._drawn = self.global_steps, draw + 1 if step == self.global_steps else 0
            assign_non_tensor_data(batch, DRAW, self._drawn[1])
        return super()._submit_batch_to_rollout(batch)

    def _validate(self) -> dict[str, float]:
        try:
            metrics = super()._validate()
        finally:
            failed = self._save_failures()
        metric = OmegaConf.select(self.config, "trainer.v1.keep_best", default=OFF)
        if metric != OFF and self.config.trainer.save_freq > 0:
            message = keep_best(Path(self.config.trainer.default_local_dir), self.global_steps, metrics, metric)
            print(message or "", end="\n" if message else "", flush=True)
        return {**metrics, "val-aux/rows_failed": failed}

    def _save_checkpoint(self) -> None:
        part_from_best(Path(self.config.trainer.default_local_dir), self.global_steps)
        super()._save_checkpoint()

    def _save_failures(self) -> int:
        failures = collect_failures()
        if failures:
            save_failures(failures, self.global_steps, Path(self.config.trainer.default_local_dir))
            check_rewards(failures)
        return len({(one.source, one.row) for one in failures})

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in _ACTOR_ROLES & self.role_worker_mapping.keys():
            self.role_worker_mapping[role] = ray.remote(OmniqActorRolloutRefWorker)

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, **kwargs: Any) -> KVBatchMeta:
        if self.use_critic:  # its worker is verl's, which needs whole mini-batches
            return super()._balance_batch(batch, metrics, **kwargs)
        settings = self.config.actor_rollout_ref
        ranks = max(self._ranks_of("actor")) + 1
        self._cut = cut_batch(
            len(batch), settings.actor.ppo_mini_batch_size * settings.rollout.n, ranks, **_micro_batches(settings)
        )
        batch = pad_with_masked_copies(batch, self._cut.multiple)
        order = {key: number for number, key in enumerate(batch.keys)}
        batch = super()._balance_batch(batch, metrics, **kwargs)
        if self._shared_prompt and ranks > 1:
            # Undo verl's order, which follows the lengths.
            batch.reorder(sorted(range(len(batch)), key=lambda row: order[batch.keys[row]]))
            groups = [group_of(key) for key in batch.keys]
            batch.reorder(order_by_group(groups, [tag["seq_len"] for tag in batch.tags], ranks))
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch.extra_info[SHARED] = self._shared_prompt  # pyright: ignore[reportOptionalSubscript]  never None
        return super()._compute_old_log_prob(batch, metrics)

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch.extra_info[SHARED] = self._shared_prompt  # pyright: ignore[reportOptionalSubscript]  never None
        return super()._compute_ref_log_prob(batch, metrics)

    def _ranks_of(self, role: str) -> list[int]:
        known = self.actor_rollout_wg._dispatch_info  # as verl remembers them (trainer_base.py:1473)
        if role not in known:
            known[role] = self.actor_rollout_wg._query_dispatch_info(role)
        return known[role]

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return super()._get_required_batch_multiple(dp_size) if self.use_critic else self._cut.multiple

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch.extra_info[SHARED] = self._shared_prompt  # pyright: ignore[reportOptionalSubscript]  never None
        if not self.use_critic:
            batch.extra_info[MINI_BATCHES] = self._cut.mini_batches  # pyright: ignore[reportOptionalSubscript]
        return super()._update_actor(batch, metrics)

    def _dump_generations(self, reward_extra_infos_dict: dict[str, list], **kwargs: Any) -> None:
        # NaN means "not applicable" here, and is not valid JSON.
        infos = {
            key: [None if value != value else value for value in values]
            for key, values in reward_extra_infos_dict.items()
        }
        if all(key in infos for key in ANSWER_KEYS):
            infos["task"] = task_names_of(infos["task"], asked_tasks(self.val_dataset))
        super()._dump_generations(reward_extra_infos_dict=infos, **kwargs)

    def _val_metrics_update(
        self, data_sources: list, sample_uids: list, reward_extra_infos_dict: dict, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        infos = dict(reward_extra_infos_dict)
        ours = all(key in infos for key in ANSWER_KEYS)  # else they are of someone else's reward
        heads = [key for key in infos if key.startswith(PREFIX)] if ours else []
        answers = {key: infos.pop(key) for key in (*ANSWER_KEYS, *heads)} if ours else {}
        metrics = super()._val_metrics_update(data_sources, sample_uids, infos, *args, **kwargs)
        if not ours:
            return metrics
        expected = kwargs.get("expected_acc_counts") or {}
        whole = with_lost(data_sources, answers, sample_uids, expected)
        return metrics | validation_metrics(*whole, asked_tasks(self.val_dataset))


def _micro_batches(settings: DictConfig) -> dict[str, Any]:
    """Rows per micro-batch of each pass that verl does not split by tokens."""
    forward = []
    if not settings.rollout.log_prob_use_dynamic_bsz:
        forward.append(settings.rollout.log_prob_micro_batch_size_per_gpu or 1)
    if not settings.ref.log_prob_use_dynamic_bsz:
        forward.append(settings.ref.log_prob_micro_batch_size_per_gpu or 1)
    update = 1 if settings.actor.use_dynamic_bsz else settings.actor.ppo_micro_batch_size_per_gpu or 1
    return {"micro_rows": update, "forward_micro_rows": forward}
