"""Attention weights at a few positions, without slowing down the rest of the model.

transformers returns attention weights only from its slowest implementation, and then all ``T x T`` of every layer and
head. Here the model attends with sdpa. The requested rows are computed separately, from the same queries and keys in
single precision. That is ``heads * rows * T`` numbers per layer, which are summed immediately.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

NAME = "omniq_rows"
"""The ``attn_implementation`` to load a model with."""


class RowSums:
    """Attention of some positions, summed over groups of tokens.

    Args:
        rows: positions ``[R]``.
        groups: 1 where a token belongs to a group, otherwise 0, ``[T, G]``.
    """

    def __init__(self, rows: torch.Tensor, groups: torch.Tensor):
        self.rows, self.groups = rows, groups
        self.layers: dict[int, torch.Tensor] = {}

    def add(self, layer: int, weights: torch.Tensor) -> None:
        """Sum a layer's rows ``[heads, R, T]`` by group and keep their mean over the rows ``[heads, G]``."""
        self.layers[layer] = (weights @ self.groups.to(weights)).mean(dim=1).cpu()

    def shares(self) -> torch.Tensor:
        """Return the shares by layer, head and group ``[L, H, G]``.

        The shares of a head add up to 1 if every token is in one group.
        """
        return torch.stack([self.layers[layer] for layer in sorted(self.layers)])


_ACTIVE: ContextVar[RowSums | None] = ContextVar("rows", default=None)


def register() -> None:
    """Make ``omniq_rows`` known to transformers. Calling it again changes nothing."""
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, attend_and_sum)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def summed_rows(rows: torch.Tensor, groups: torch.Tensor) -> Iterator[RowSums]:
    """Collect the sums of the forward passes of one sequence that run inside the ``with`` block."""
    sums = RowSums(rows, groups)
    token = _ACTIVE.set(sums)
    try:
        yield sums
    finally:
        _ACTIVE.reset(token)


def attention_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    rows: torch.Tensor,
    mask: torch.Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Return the softmax of scaled dot products at some positions of a sequence ``[heads, R, T]``, float32.

    Args:
        query: ``[1, heads, T, width]``, after the rotary embedding.
        key: ``[1, kv_heads, T, width]``; each of its heads serves ``heads / kv_heads`` heads of the query.
        rows: positions ``[R]``.
        mask: ``[1, 1 or heads, T, T]``, boolean (True: attend) or added to the scores; None: causal.
        scaling: factor of the scores; None: ``width ** -0.5``.
        softcap: bound on the scores, applied with tanh; None: no bound.
    """
    tokens, width = query.shape[2:]
    asked = query[0, :, rows].float().unflatten(0, (key.shape[1], -1))  # [kv_heads, heads / kv_heads, R, width]
    scores = torch.einsum("kgrd,ktd->kgrt", asked, key[0].float()).flatten(0, 1)
    scores = scores * (width**-0.5 if scaling is None else scaling)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    mask = torch.arange(tokens, device=rows.device) <= rows[:, None] if mask is None else mask[0, :, rows, :tokens]
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask
    return scores.softmax(dim=-1)


def attend_and_sum(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend with sdpa and add a causal layer's rows to the sums. The signature is that of ``AttentionInterface``.

    Raises:
        ValueError: the layer attends in a way this module does not recompute (attention sinks, a batch of sequences).
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    sums = _ACTIVE.get()
    if sums is not None and getattr(module, "is_causal", False):
        if others.get("s_aux") is not None or len(query) != 1:
            raise ValueError("attention rows are computed for one sequence at a time, and without attention sinks")
        rows = sums.rows.to(query.device)
        found = attention_rows(query, key, rows, attention_mask, scaling, others.get("softcap"))
        sums.add(int(module.layer_idx), found)  # pyright: ignore[reportArgumentType]  a plain attribute of the layer
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, scaling=scaling, **others)
