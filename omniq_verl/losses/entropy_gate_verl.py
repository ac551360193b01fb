"""The entropy gate for verl's mini-batches.

A policy loss registered with verl gets one micro-batch and no entropies. But the surrogate is linear in the advantages,
so setting a token's advantage to 0 gates the token. In the losses of ``LINEAR_LOSSES``, the value and the gradient of
its policy term are then exactly 0. The denominator, the KL term and the entropy bonus are not affected.
"""

import dataclasses
import math

import torch
from tensordict import TensorDict
from torch.distributed import ProcessGroup, ReduceOp, all_gather, all_reduce, get_world_size
from verl.workers.config import PolicyLossConfig
from verl.workers.utils.padding import response_to_nested

from omniq_verl.losses.entropy_gate import entropy_gate_mask, top_share_threshold
from omniq_verl.losses.settings import GateSettings


@dataclasses.dataclass
class EntropyGateLossConfig(PolicyLossConfig):
    """verl's policy loss settings, and the gate's (documented in ``GateSettings``)."""

    gate_rho: float | None = None
    gate_scope: str = "batch"
    gate_denominator: str = "all"
    gate_entropy: str = "old"

    def __post_init__(self) -> None:
        self.gate()

    def gate(self) -> GateSettings:
        """Return the settings of the gate."""
        return GateSettings(self.gate_rho, self.gate_scope, self.gate_denominator, self.gate_entropy)


def gate_advantages(
    data: TensorDict, entropy: torch.Tensor, settings: GateSettings, group: ProcessGroup | None
) -> dict[str, float]:
    """Set the advantages of gated tokens to 0, in place.

    Args:
        data: this rank's rows of one mini-batch; ``advantages`` and ``response_mask`` are jagged ``[B, T]``.
        entropy: entropies in nats, jagged ``[B, T]``, float32.
        settings: the gate's settings; ``rho`` is not None.
        group: data-parallel ranks, which share the mini-batch.

    Returns:
        Metrics of the whole mini-batch: ``gate/share``, the share of its response tokens that pass;
        ``gate/tokens_kept``, their number; and ``gate/threshold``, the smallest entropy that passed (with scope
        ``sequence``, the smallest of all sequences).

    Raises:
        ValueError: the entropies are not float32, or a response token's entropy is NaN (raised on every rank).
    """
    if entropy.dtype is not torch.float32:
        raise ValueError(
            f"the entropies are {entropy.dtype}, whose ties blur the gate's threshold; set"
            " actor_rollout_ref.actor.entropy_from_logits_with_chunking=True and"
            " actor_rollout_ref.model.use_remove_padding=True, which computes them in fp32"
        )
    response_mask = data["response_mask"]
    mask = response_mask.to_padded_tensor(0).bool()
    entropy = entropy.to_padded_tensor(0.0)
    _reject_nan(group, entropy[mask])
    passed = _passed(entropy, mask, settings, group)
    # verl divides by the number of tokens in the loss mask, which rollout correction does not change.
    tokens, kept = _sum_over_ranks(group, data["loss_mask"].to_padded_tensor(0).sum(), passed.sum())
    # Therefore another denominator is implemented as a factor of the advantages.
    factor = tokens / max(kept, 1) if settings.denominator == "gated" else 1.0
    data["advantages"] = response_to_nested(data["advantages"].to_padded_tensor(0.0) * passed * factor, response_mask)
    lowest = _lowest_over_ranks(group, entropy[passed])
    return {"gate/share": kept / max(tokens, 1), "gate/threshold": lowest, "gate/tokens_kept": float(kept)}


def _passed(
    entropy: torch.Tensor, mask: torch.Tensor, settings: GateSettings, group: ProcessGroup | None
) -> torch.Tensor:
    if settings.rho is None:
        return mask
    if settings.scope == "sequence":
        return entropy_gate_mask(entropy, mask, settings.rho, "sequence")
    return mask & (entropy >= top_share_threshold(gather_values(entropy[mask], group), settings.rho))


def gather_values(values: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """Gather the values ``[N_rank]`` of all ranks in one tensor ``[N]``. Ranks may have different numbers of values."""
    ranks = get_world_size(group)
    sizes = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(ranks)]
    all_gather(sizes, torch.tensor([len(values)], device=values.device), group=group)
    longest = max(int(size) for size in sizes)
    padded = torch.nn.functional.pad(values, (0, longest - len(values)))
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    all_gather(parts, padded, group=group)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])


def _reject_nan(group: ProcessGroup | None, values: torch.Tensor) -> None:
    # Raise on all ranks together: if only one rank raised, the others would wait for it.
    found = values.isnan().any().to(torch.int32)
    all_reduce(found, op=ReduceOp.MAX, group=group)
    if found:
        raise ValueError("the entropy of a response token is NaN")


def _sum_over_ranks(group: ProcessGroup | None, *counts: torch.Tensor) -> list[int]:
    total = torch.stack(counts)
    all_reduce(total, group=group)
    return total.tolist()


def _lowest_over_ranks(group: ProcessGroup | None, values: torch.Tensor) -> float:
    lowest = values.min() if len(values) else torch.full((), math.inf, device=values.device)
    all_reduce(lowest, op=ReduceOp.MIN, group=group)
    return lowest.item()
