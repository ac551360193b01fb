"""Packed attention as an ``attn_implementation`` of transformers.

``register`` adds the name to transformers, so models can be loaded with it. ``activate`` switches a loaded model to it.
Two names are needed. On loading, transformers treats a name that contains "flash" as a kernel to download
(``modeling_utils.py``, ``_check_and_adjust_attn_implementation``). Later it looks for the same word to decide whether a
vision tower calls attention once for all its windows or once per window (``is_flash_attention_requested``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from omniq_verl.attention.segments import attend
from omniq_verl.attention.shared_prompt import attend_shared

NAME = "omniq_varlen"
"""The name to use in recipes and for loading a model."""
_ACTIVE = "omniq_varlen_flash"
_SETTING = "attn_implementation"


def register() -> None:
    """Make ``omniq_varlen`` known to transformers. Calling it again changes nothing."""
    from transformers.modeling_utils import AttentionInterface

    for name in (NAME, _ACTIVE):
        AttentionInterface.register(name, packed_attention)


def activate(model: nn.Module) -> None:
    """Switch every part of a loaded transformers model to ``packed_attention``."""
    register()
    _set_name(model, _ACTIVE)


@contextmanager
def loadable_config(model: nn.Module) -> Iterator[None]:
    """Temporarily give the configuration of an activated model the name for loading a model.

    This is for code that builds another model from the configuration, like verl's checkpoints. No forward pass may run
    meanwhile. verl also stores the name in the configuration itself and would save it in ``config.json``. transformers
    could then not open the saved model without this package, so the name is removed there.
    """
    _set_name(model, NAME)
    asking = [config for config in _configs(model) if vars(config).pop(_SETTING, None) == NAME]
    try:
        yield
    finally:
        _set_name(model, _ACTIVE)
        for config in asking:
            setattr(config, _SETTING, NAME)


def plain_attention(config: Any) -> dict[str, str]:
    """Arguments for ``from_pretrained`` that open a saved model for use, whatever it was trained with.

    Args:
        config: the model's configuration, as read by transformers.
    """
    return {_SETTING: "sdpa"} if config._attn_implementation == NAME else {}


def _set_name(model: nn.Module, name: str) -> None:
    for config in _configs(model):
        config._attn_implementation_internal = name


def _configs(model: nn.Module) -> list[Any]:
    """Return the configurations of a model and its parts, each once."""
    found = {id(config): config for config in (getattr(module, "config", None) for module in model.modules())}
    return [config for config in found.values() if hasattr(config, "_attn_implementation_internal")]


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    shared_keys: tuple[torch.Tensor, torch.Tensor] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the packed sequences of one row, with the signature of transformers' ``AttentionInterface``.

    Args:
        module: attention layer; its ``is_causal`` is used if the argument is None.
        query: ``[1, heads, tokens, width]``.
        key: ``[1, kv_heads, tokens, width]``.
        value: same shape as ``key``.
        attention_mask: None; packed sequences need none.
        scaling: factor of the scores; None for ``width ** -0.5``.
        dropout: 0; the kernels have none.
        sliding_window: None, or at least as long as the longest sequence.
        softcap: None; the kernels have none.
        is_causal: whether a token attends only to itself and to earlier ones.
        cu_seq_lens_q: int32 ``[sequences + 1]``, the boundaries of the sequences.
        shared_keys: for shared prompts, ``key_boundaries`` and ``key_tokens`` of a ``SharedLayout`` whose
            ``query_boundaries`` are ``cu_seq_lens_q``. A vision tower, whose attention is not causal, ignores it.

    Returns:
        ``[1, tokens, heads, width]``, and None instead of the attention weights.

    Raises:
        ValueError: the input is not packed, or needs a feature that the kernels lack.
    """
    if cu_seq_lens_q is None or attention_mask is not None or len(query) != 1:
        raise ValueError(
            f"attn_implementation={NAME} attends over packed sequences only: one row, no attention mask, and"
            " cu_seq_lens_q. Set use_remove_padding=true for training, or load the model with sdpa"
        )
    if dropout or softcap:
        raise ValueError(f"attn_implementation={NAME} has neither dropout ({dropout}) nor softcap ({softcap})")
    if sliding_window is not None and sliding_window < query.shape[2]:
        raise ValueError(f"attn_implementation={NAME} has no sliding window ({sliding_window} tokens)")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if shared_keys is not None and causal:
        return attend_shared(queries, keys, values, cu_seq_lens_q, *shared_keys, scaling)[None], None
    return attend(queries, keys, values, cu_seq_lens_q, causal, scaling)[None], None
