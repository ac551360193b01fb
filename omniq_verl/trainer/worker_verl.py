"""verl's actor worker with the entropy gate and mini-batches of even size.

``train_batch`` is the only method that gets a rank's whole share of an optimiser's mini-batch before it is split into
micro-batches, with the entropies that verl computes together with the old log-probabilities.
"""

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.utils.padding import response_from_nested

from omniq_verl.live.vision import VisionPerturbation
from omniq_verl.losses.entropy_gate_verl import EntropyGateLossConfig, gate_advantages
from omniq_verl.losses.settings import GateSettings
from omniq_verl.trainer.position_ids import make_tokens_jagged
from omniq_verl.trainer.shared_prompt import share_computed

MINI_BATCHES = "omniq_mini_batches"
"""Key under which the trainer sends the number of mini-batches for a batch."""


class GatedTrainingWorker(TrainingWorker):
    """verl's training worker; ``gate`` is set by the worker that owns it."""

    gate = GateSettings()
    _updates = 0  # optimiser steps since the rollouts of this batch

    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        """Like verl's, except that rows dropped by a filter shrink the mini-batches and are not replaced by padding."""
        make_tokens_jagged(data)  # before verl cuts the batch
        if count := tu.pop(data, MINI_BATCHES, default=None):
            rows = len(data) * self.engine.get_data_parallel_size()
            tu.assign_non_tensor(data, mini_batch_size=rows // count)
        self._updates = 0
        return super().train_mini_batch(data)

    def train_batch(self, data: TensorDict) -> TensorDict:
        group = self.engine.get_data_parallel_group()
        # verl's means over sequences divide by the size of a whole mini-batch.
        tu.assign_non_tensor(data, global_batch_size=count_rows(data, group))
        metrics = {}
        if self.gate.rho is not None:
            metrics = gate_advantages(data, self._entropy(data), self.gate, group)
        self._updates += 1
        self.engine.tokens = (0, 0)  # pyright: ignore[reportAttributeAccessIssue]  ours counts; others leave zeros
        output = super().train_batch(data)
        share = share_computed(self.engine.tokens, data["response_mask"].device, group)  # pyright: ignore[reportAttributeAccessIssue]
        if output is not None:
            reported = tu.get(output, "metrics")
            reported.update(metrics)
            if "mfu" in reported:  # verl counts a shared prompt in each of its rows
                reported["mfu"] *= share
        return output

    def _entropy(self, data: TensorDict) -> torch.Tensor:
        # Before the first update the current policy is the old one, whose entropies are in the batch.
        if self.gate.entropy == "old" or self._updates == 0:
            return data["entropy"]
        probe = data.copy()
        tu.assign_non_tensor(probe, calculate_entropy=True, compute_loss=False, disable_auto_offload=True)
        return response_from_nested(self.infer_batch(probe)["entropy"], data["response_mask"])


def count_rows(data: TensorDict, group: torch.distributed.ProcessGroup | None) -> int:
    """Number of rows of the mini-batch, over all ranks, that have tokens to train on."""
    rows = (data["response_mask"].to_padded_tensor(0).sum(dim=1) > 0).sum()
    torch.distributed.all_reduce(rows, group=group)
    return int(rows)


class OmniqActorRolloutRefWorker(ActorRolloutRefWorker):
    """verl's hybrid worker with a gated actor."""

    actor_worker_cls = GatedTrainingWorker
    actor: GatedTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # pyright: ignore[reportAttributeAccessIssue]  added at import
    def init_model(self) -> None:
        super().init_model()
        if self.actor is not None:
            loss = self.loss_fn.keywords["config"].policy_loss
            self.actor.gate = loss.gate() if isinstance(loss, EntropyGateLossConfig) else GateSettings()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # pyright: ignore[reportAttributeAccessIssue]  added at import
    def perturb_vision(self, strength: float) -> int:
        """Change the vision tower of the trained model until ``restore_vision``; returns how many weights changed."""
        self._perturbation = VisionPerturbation(self.actor.engine.module, strength)  # pyright: ignore[reportAttributeAccessIssue]  FSDP
        return self._perturbation.weights

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # pyright: ignore[reportAttributeAccessIssue]  added at import
    def restore_vision(self) -> None:
        """Undo ``perturb_vision`` exactly."""
        self._perturbation.undo()
