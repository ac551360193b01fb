"""Decide whether a run shares prompts between the answers of a group. Pure."""

from omegaconf import DictConfig, OmegaConf

from omniq_verl.attention.transformers_attention import NAME

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
