"""The entropy gate inside verl's actor worker.

A policy loss registered with verl sees one micro-batch and no entropies. The one place that sees a rank's whole share
of an optimiser's mini-batch is ``train_batch``, and the surrogate is linear in the advantages: a token is gated by
setting its advantage to 0. That makes the value and the gradient of its policy term exactly 0, for every loss of verl
that multiplies by the advantage, and leaves the denominator, the KL term and the entropy bonus alone.
"""

import dataclasses
import math

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils as tu
from verl.workers.config import PolicyLossConfig
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.utils.padding import response_from_nested, response_to_nested

from omniq_verl.losses.entropy_gate import entropy_gate_mask, top_share_threshold
from omniq_verl.losses.settings import GateSettings
from omniq_verl.trainer.mini_batches import mini_batch_size


@dataclasses.dataclass
class EntropyGateLossConfig(PolicyLossConfig):
    """verl's policy loss settings, and the gate's (``GateSettings`` says what they mean)."""

    gate_rho: float | None = None
    gate_scope: str = "batch"
    gate_denominator: str = "all"
    gate_entropy: str = "old"

    def __post_init__(self) -> None:
        self.gate()

    def gate(self) -> GateSettings:
        """The gate's part."""
        return GateSettings(self.gate_rho, self.gate_scope, self.gate_denominator, self.gate_entropy)


class GatedTrainingWorker(TrainingWorker):
    """verl's training worker; ``gate`` is set by the worker that owns it."""

    gate = GateSettings()
    _updates = 0  # optimiser steps since the rollouts of this batch

    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        """As verl's, except that rows a filter dropped shrink the mini-batches instead of being padded in."""
        ranks = self.engine.get_data_parallel_size()
        size = mini_batch_size(len(data) * ranks, tu.get(data, "mini_batch_size"))
        tu.assign_non_tensor(data, mini_batch_size=size)
        self._updates = 0
        return super().train_mini_batch(data)

    def train_batch(self, data: TensorDict) -> TensorDict:
        metrics = {} if self.gate.rho is None else self._gate(data)
        self._updates += 1
        output = super().train_batch(data)
        if output is not None:
            tu.get(output, "metrics").update(metrics)
        return output

    def _gate(self, data: TensorDict) -> dict[str, float]:
        entropy = self._entropy(data).to_padded_tensor(0.0)
        response_mask = data["response_mask"]
        mask = response_mask.to_padded_tensor(0).bool()
        passed = self._passed(entropy, mask)
        tokens, kept = self._sum_over_ranks(mask.sum(), passed.sum())
        # The surrogate is linear in the advantages, so that another denominator is a factor on them.
        factor = tokens / max(kept, 1) if self.gate.denominator == "gated" else 1.0
        advantages = data["advantages"].to_padded_tensor(0.0) * passed * factor
        data["advantages"] = response_to_nested(advantages, response_mask)
        lowest = entropy[passed].min().item() if passed.any() else math.inf
        return {
            "gate/share": kept / max(tokens, 1),
            "gate/threshold": self._min_over_ranks(lowest),
            "gate/tokens": float(kept),
        }

    def _passed(self, entropy: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.gate.scope == "sequence":
            return entropy_gate_mask(entropy, mask, self.gate.rho, "sequence")
        everyone = gather_values(entropy[mask], self.engine.get_data_parallel_group())
        return mask & (entropy >= top_share_threshold(everyone, self.gate.rho))

    def _entropy(self, data: TensorDict) -> torch.Tensor:
        # Before the first update the current policy is the old one, whose entropies came with the batch.
        if self.gate.entropy == "old" or self._updates == 0:
            entropy = data["entropy"]
        else:
            probe = data.copy()
            tu.assign_non_tensor(probe, calculate_entropy=True, compute_loss=False, disable_auto_offload=True)
            entropy = response_from_nested(self.infer_batch(probe)["entropy"], data["response_mask"])
        if entropy.dtype is not torch.float32:
            raise ValueError(
                f"the entropies are {entropy.dtype}, whose ties blur the gate's threshold; set"
                " actor_rollout_ref.actor.fsdp_config.entropy_from_logits_with_chunking=True, which computes in fp32"
            )
        return entropy

    def _sum_over_ranks(self, *counts: torch.Tensor) -> list[int]:
        total = torch.stack(counts)
        torch.distributed.all_reduce(total, group=self.engine.get_data_parallel_group())
        return total.tolist()

    def _min_over_ranks(self, value: float) -> float:
        lowest = torch.tensor(value, device=self.device_name)
        group = self.engine.get_data_parallel_group()
        torch.distributed.all_reduce(lowest, op=torch.distributed.ReduceOp.MIN, group=group)
        return lowest.item()


def gather_values(values: torch.Tensor, group: torch.distributed.ProcessGroup | None) -> torch.Tensor:
    """The values ``[N_rank]`` of all ranks in one tensor ``[N]``; ranks may have different numbers of them."""
    ranks = torch.distributed.get_world_size(group)
    sizes = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(ranks)]
    torch.distributed.all_gather(sizes, torch.tensor([len(values)], device=values.device), group=group)
    longest = max(int(size) for size in sizes)
    padded = torch.nn.functional.pad(values.contiguous(), (0, longest - len(values)))
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    torch.distributed.all_gather(parts, padded, group=group)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])


class OmniqActorRolloutRefWorker(ActorRolloutRefWorker):
    """verl's hybrid worker with a gated actor."""

    actor_worker_cls = GatedTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        super().init_model()
        if self.actor is not None and isinstance(loss := self.actor_loss_config(), EntropyGateLossConfig):
            self.actor.gate = loss.gate()

    def actor_loss_config(self) -> PolicyLossConfig:
        """The policy loss settings the actor was built with."""
        return self.loss_fn.keywords["config"].policy_loss
