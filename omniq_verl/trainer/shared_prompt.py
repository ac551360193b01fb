"""Decide whether a run shares prompts between the answers of a group, and whether the result is the same. Pure."""

import torch
from omegaconf import DictConfig, OmegaConf

from omniq_verl.attention.transformers_attention import NAME
from omniq_verl.live.findings import Limits, agreement

SHARED = "omniq_shared_prompt"
"""Key under which the trainer asks the workers to share prompts."""
MODES = ("auto", "off")
_MODEL = "actor_rollout_ref.model"


def shared_prompt_mode(config: DictConfig) -> bool:
    """Whether to compute each prompt and image once per group: ``trainer.v1.shared_prompt``.

    ``auto`` shares prompts if the result is exactly the same, and otherwise prints the reason.

    Raises:
        ValueError: the setting is neither ``auto`` nor ``off``.
    """
    mode = OmegaConf.select(config, "trainer.v1.shared_prompt", default="off")
    mode = "off" if mode is False else str(mode)  # YAML reads a bare off as false
    if mode not in MODES:
        raise ValueError(f"trainer.v1.shared_prompt={mode}: choose one of {', '.join(MODES)}")
    reason = _why_not(config) if mode == "auto" else None
    if reason:
        print(f"prompts are not shared: {reason}", flush=True)
    return mode == "auto" and reason is None


SAME = {
    torch.float32: Limits(correlation=-1.0, mean=1e-4, largest=1e-4),
    torch.float16: Limits(correlation=-1.0, mean=0.02, largest=0.5),
    torch.bfloat16: Limits(correlation=-1.0, mean=0.1, largest=1.5),
}
"""How far log-probabilities with shared prompts may be from those of each row alone, by dtype. Kernels sum in different
orders. Logits between 32 and 64, usual for a 7B model, have steps of 0.25 in bf16, so a single token may differ by
several steps; a wrong mask or position moves most tokens. Correlations of a few certain tokens mean nothing."""


def check_same(shared: torch.Tensor, alone: torch.Tensor, dtype: torch.dtype) -> None:
    """Compare log-probabilities with shared prompts with those of each row alone.

    Args:
        shared: ``[T]``, in nats.
        alone: the same tokens in the same order.
        dtype: of the forward pass.

    Raises:
        RuntimeError: they differ by more than ``SAME``, or one is not a number.
    """
    found, limits = agreement([shared.float().cpu().numpy()], [alone.float().cpu().numpy()]), SAME[dtype]
    if not found.within(limits):
        raise RuntimeError(
            f"with shared prompts log-probabilities differ from those of each row alone by {found.mean:.2g} nats on"
            f" average (limit {limits.mean:g}) and {found.largest:.2g} at most (limit {limits.largest:g}). Fix: set"
            " trainer.v1.shared_prompt=off, and report the model"
        )


def share_computed(
    tokens: tuple[int, int], device: torch.device | None, group: torch.distributed.ProcessGroup | None = None
) -> float:
    """Share of the tokens of whole rows that were computed, over all ranks; 1 if nothing was counted.

    Args:
        tokens: of this rank: computed, and in whole rows with their prompts.
        device: for which the ranks have a backend.
        group: the data-parallel ranks.
    """
    counts = torch.tensor(tokens, device=device)
    torch.distributed.all_reduce(counts, group=group)
    computed, whole = counts.tolist()
    return computed / whole if whole else 1.0


def _why_not(config: DictConfig) -> str | None:
    if (name := OmegaConf.select(config, f"{_MODEL}.override_config.attn_implementation")) != NAME:
        return f"{_MODEL}.override_config.attn_implementation is {name}, not {NAME}"
    if (OmegaConf.select(config, f"{_MODEL}.lora_rank") or 0) > 0 or (
        OmegaConf.select(config, f"{_MODEL}.lora.rank") or 0
    ) > 0:
        return "it was not tried with LoRA"
    if OmegaConf.select(config, "actor_rollout_ref.rollout.multi_turn.enable"):
        return "it was not tried with several turns"
    return None
