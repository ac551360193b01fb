"""Let a trainer's rollout engine answer chosen rows, and let its actor compute log-probabilities of the answers.

Only functions that the training itself uses are called: verl's dataset and agent loops, TransferQueue, the weight
transfer and the worker that computes old log-probabilities.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from omniq_verl.live.failures_verl import collect_failures
from omniq_verl.trainer.seeded_agent_loop_verl import DRAW

PROBE = "omniq_probe"
"""Field that tells the agent loop that a row belongs to a check."""
_PARTITION = "train"
_NO_TRAJECTORY = "no materializable trajectories"  # verl's words (replay_buffer.py:519)


@dataclass(frozen=True)
class Rollout:
    """One answer of the rollout engine."""

    key: str
    """Key in TransferQueue."""
    question: int
    """Index of the question."""
    session: int
    """Index of the answer among those to the same question."""
    prompt: tuple[int, ...]
    """Token ids, including image tokens."""
    response: tuple[int, ...]
    log_probs: np.ndarray
    """Log-probabilities of the response's tokens from the rollout engine, ``[T]``, in nats."""
    reward: float
    parts: dict[str, float]
    """Other values that the reward function returned."""


class Rollouts:
    """The answers to some questions. They stay in TransferQueue until ``clear``."""

    def __init__(self, trainer: PPOTrainer, questions: Sequence[dict[str, Any]], answers: int):
        """Answer questions with the rollout engine, which must be awake.

        Args:
            trainer: an initialised trainer, with its agent loops.
            questions: rows as the training dataset returns them.
            answers: number of answers to each question.
        """
        self._trainer = trainer
        self.expected = len(questions) * answers
        self._meta = _submit(trainer, questions, answers)
        self.answers = _read(self._meta)
        self.failures = collect_failures()

    def actor_log_probs(self) -> list[np.ndarray]:
        """The trained model's log-probabilities of the answers' tokens, in the order of ``answers``; ``[T]`` each."""
        return _actor_log_probs(self._trainer, self._meta, [one.key for one in self.answers])

    def actor_log_probs_with(self, others: "Rollouts", pairs: Sequence[tuple[Rollout, Rollout]]) -> list[np.ndarray]:
        """The trained model's log-probabilities of answers, if it had seen the images of other questions.

        Args:
            others: the rollouts of the second answers in the pairs.
            pairs: an answer of these rollouts, and one to a question that differs only in its image's pixels.
        """
        if not pairs:
            return []
        # Any: tensordict declares that a row is a tensor.
        own: Any = tq.kv_batch_get(keys=[answer.key for answer, _ in pairs], partition_id=_PARTITION)
        images: Any = tq.kv_batch_get(
            keys=[other.key for _, other in pairs], partition_id=_PARTITION, select_fields=["multi_modal_inputs"]
        )
        rows = [{name: own[i][name] for name in own[i].keys()} for i in range(len(pairs))]  # noqa: SIM118
        for i, row in enumerate(rows):
            row["multi_modal_inputs"] = images[i]["multi_modal_inputs"]
        tags = dict(zip(self._meta.keys, self._meta.tags, strict=True))
        keys = [f"probe{uuid.uuid4().hex}_0_0" for _ in pairs]
        meta = KVBatchMeta(partition_id=_PARTITION, keys=keys, tags=[tags[answer.key] for answer, _ in pairs])
        tq.kv_batch_put(keys=keys, partition_id=_PARTITION, fields=list_of_dict_to_tensordict(rows), tags=meta.tags)
        found = _actor_log_probs(self._trainer, meta, keys)
        tq.kv_clear(keys=keys, partition_id=_PARTITION)
        return found

    def clear(self) -> None:
        """Remove the answers from TransferQueue."""
        if self._meta.keys:
            tq.kv_clear(keys=self._meta.keys, partition_id=_PARTITION)


def _submit(trainer: PPOTrainer, questions: Sequence[dict[str, Any]], answers: int) -> KVBatchMeta:
    batch = collate_fn([{**question, "__rollout_n__": answers, PROBE: i} for i, question in enumerate(questions)])
    batch["uid"] = np.array([uuid.uuid4().hex for _ in questions], dtype=object)
    data = tu.get_tensordict(batch)
    tu.assign_non_tensor_data(data, "global_steps", trainer.global_steps)
    tu.assign_non_tensor_data(data, DRAW, 0)  # the same seeds whenever the same questions are asked
    trainer._submit_batch_to_rollout(data)
    try:
        # Not the trainer's own sampler, which would filter groups.
        meta, _ = ReplayBuffer.sample(trainer.replay_buffer, trainer.global_steps, _PARTITION, len(questions))
    except RuntimeError as error:
        if _NO_TRAJECTORY not in str(error):
            raise
        trainer.replay_buffer._clear_groups(_PARTITION, set(trainer.replay_buffer.failure_keys[_PARTITION]))
        return KVBatchMeta(partition_id=_PARTITION, keys=[], tags=[])
    return meta


_FIELDS = ("prompts", "responses", "rollout_log_probs", "rm_scores", "extra_fields", PROBE)


def _read(meta: KVBatchMeta) -> list[Rollout]:
    if not meta.keys:
        return []
    rows = tq.kv_batch_get(keys=meta.keys, partition_id=_PARTITION, select_fields=list(_FIELDS))
    found = [_rollout(key, rows[i]) for i, key in enumerate(meta.keys)]
    return sorted(found, key=lambda one: (one.question, one.session))


def _rollout(key: str, row: Any) -> Rollout:
    extra = _plain(row["extra_fields"])
    return Rollout(
        key=key,
        question=int(_plain(row[PROBE])),
        session=int(key.rsplit("_", 2)[1]),
        prompt=tuple(row["prompts"].tolist()),
        response=tuple(row["responses"].tolist()),
        log_probs=row["rollout_log_probs"].double().numpy(),
        reward=float(row["rm_scores"].sum()),
        parts=extra.get("reward_extra_info") or {},
    )


def _actor_log_probs(trainer: PPOTrainer, meta: KVBatchMeta, keys: Sequence[str]) -> list[np.ndarray]:
    if not keys:
        return []
    # Balancing appends masked copies and changes the order, so it gets a copy of the batch.
    batch = trainer._balance_batch(
        KVBatchMeta(partition_id=meta.partition_id, keys=list(meta.keys), tags=list(meta.tags)), {}
    )
    trainer._compute_old_log_prob(batch, {})
    rows: Any = tq.kv_batch_get(keys=list(keys), partition_id=_PARTITION, select_fields=["old_log_probs"])
    copies = [key for key in batch.keys if key not in set(meta.keys)]
    if copies:
        tq.kv_clear(keys=copies, partition_id=_PARTITION)
    return [rows[i]["old_log_probs"].double().numpy() for i in range(len(keys))]


def _plain(value: Any) -> Any:
    """The value without tensordict's wrapper, if it has one."""
    return getattr(value, "data", value)
