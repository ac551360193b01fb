"""Attention with shared prompts: a prompt's tokens occur once in the packed stream, and all its answers attend to them.

Each row of a group is a prompt followed by an answer. The rows become ``[prompt | answer 1 | .. | answer n]``. A
*segment* is a prompt or an answer. A prompt's queries see its own keys. An answer's queries see the keys of its prompt
and its own. The causal mask is aligned to the end, so the answer's first token sees the whole prompt. All results are
the same as for separate rows, and the prompt gets the gradients of all answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakIdKeyDictionary

from omniq_verl.attention.segments import segment_lengths, varlen

_GRAIN = 32
"""Answers are padded to a multiple of this length for scaled_dot_product_attention, so a few calls cover many."""


@dataclass(frozen=True)
class SharedLayout:
    """The layout of a stream of shared prompts. All tensors are on one device; indices are int64."""

    first: tuple[int, ...]
    """For each group, the row whose prompt and images are used for all its rows."""
    tokens: torch.Tensor
    """``[shared]``: index of each token in the plain stream, in which rows follow one another."""
    query_boundaries: torch.Tensor
    """int32 ``[segments + 1]``."""
    key_boundaries: torch.Tensor
    """int32 ``[segments + 1]``."""
    key_tokens: torch.Tensor
    """``[keys]``: index in the shared stream of every key of every segment."""
    predicting: torch.Tensor
    """``[answers' tokens]``: index in the shared stream of the token whose logits predict an answer's token."""
    positions: torch.Tensor
    """``[answers' tokens]``: index of that token in the plain stream."""


def shared_layout(
    prompts: Sequence[int], answers: Sequence[int], groups: Sequence[Any], device: torch.device | str = "cpu"
) -> SharedLayout:
    """Lay out rows so that each group's prompt occurs once.

    Args:
        prompts: number of tokens of each row's prompt, at least 1.
        answers: number of tokens of each row's answer, at least 1.
        groups: a key for each row that is the same for all rows of a group.
        device: device of the tensors.

    Raises:
        ValueError: a prompt or an answer has no token, or the prompts of a group differ in length.
    """
    if min([*prompts, *answers], default=1) < 1:
        raise ValueError("every row needs a prompt and an answer of at least one token")
    starts = np.concatenate([[0], np.cumsum(np.add(prompts, answers))]).astype(np.int64)
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    build = _Builder(starts)
    for rows in members.values():
        if len({prompts[row] for row in rows}) > 1:
            raise ValueError(f"the prompts of one group have {sorted({prompts[row] for row in rows})} tokens")
        build.add(rows, prompts[rows[0]], [answers[row] for row in rows])
    return build.layout(tuple(rows[0] for rows in members.values()), device)


class _Builder:
    def __init__(self, starts: np.ndarray):
        self._starts = starts
        self._at = 0  # length of the shared stream so far
        self._tokens: list[np.ndarray] = []
        self._queries, self._keys = [0], [0]
        self._key_tokens: list[np.ndarray] = []
        self._of_row: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, rows: list[int], prompt: int, answers: list[int]) -> None:
        shared = np.arange(self._at, self._at + prompt)
        self._segment(self._starts[rows[0]] + np.arange(prompt), shared[:0])
        for row, answer in zip(rows, answers, strict=True):
            start = self._starts[row] + prompt
            own = self._segment(start + np.arange(answer), shared)
            # The last token of the prompt predicts the first of the answer.
            self._of_row[row] = np.append(shared[-1:], own[:-1]), start - 1 + np.arange(answer)

    def _segment(self, tokens: np.ndarray, before: np.ndarray) -> np.ndarray:
        own = np.arange(self._at, self._at + len(tokens))
        self._tokens.append(tokens)
        self._key_tokens += [before, own]
        self._queries.append(self._queries[-1] + len(own))
        self._keys.append(self._keys[-1] + len(before) + len(own))
        self._at += len(own)
        return own

    def layout(self, first: tuple[int, ...], device: torch.device | str) -> SharedLayout:
        rows = [self._of_row[row] for row in sorted(self._of_row)]
        indices = [self._tokens, self._key_tokens, [one for one, _ in rows], [other for _, other in rows]]
        tokens, keys, predicting, positions = (torch.from_numpy(np.concatenate(one)).to(device) for one in indices)
        query_ends, key_ends = (
            torch.tensor(one, dtype=torch.int32, device=device) for one in (self._queries, self._keys)
        )
        return SharedLayout(first, tokens, query_ends, key_ends, keys, predicting, positions)


def attend_shared(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_boundaries: torch.Tensor,
    key_boundaries: torch.Tensor,
    key_tokens: torch.Tensor,
    scale: float | None = None,
) -> torch.Tensor:
    """Causal attention of every segment to its own keys and those of its prompt.

    Args:
        query: ``[tokens, heads, width]``.
        key: ``[tokens, kv_heads, width]``; ``heads`` is a multiple of ``kv_heads``.
        value: same shape as ``key``.
        query_boundaries: from the ``SharedLayout``.
        key_boundaries: from the ``SharedLayout``.
        key_tokens: from the ``SharedLayout``.
        scale: factor of the scores; None for ``width ** -0.5``.

    Returns:
        ``[tokens, heads, width]``.
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        keys, values = _take(key, key_tokens), _take(value, key_tokens)
        return varlen(query, keys, values, query_boundaries, key_boundaries, causal=True, scale=scale)
    cells = _cells.get(key_tokens)
    if cells is None:
        cells = _cells[key_tokens] = _padded_cells(query_boundaries, key_boundaries, key_tokens)
    return _by_cells(query, key, value, cells, scale)


class _Take(torch.autograd.Function):
    """``values[index]`` for indices with many repetitions: the gradient is summed in fp32."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(values)
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (index,) = ctx.saved_tensors
        exact = torch.promote_types(gradient.dtype, torch.float32)
        total = gradient.new_zeros(ctx.rows, *gradient.shape[1:], dtype=exact)
        return total.index_add_(0, index, gradient.to(exact)).to(gradient.dtype), None


_take = _Take.apply


@dataclass(frozen=True)
class _Bucket:
    """Segments with equally long prompts, processed in one call; the lengths are those after padding."""

    segments: int
    queries: int
    keys: int
    mask: torch.Tensor
    """bool ``[queries, keys]``: the keys that each query sees."""


@dataclass(frozen=True)
class _Cells:
    """The positions of queries and keys after padding segments to the lengths of their buckets."""

    buckets: tuple[_Bucket, ...]
    query_of_cell: torch.Tensor
    key_of_cell: torch.Tensor
    cell_of_query: torch.Tensor


# Every layer gets the same tensors, so the cells are computed once.
_cells: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _padded_cells(query_boundaries: torch.Tensor, key_boundaries: torch.Tensor, key_tokens: torch.Tensor) -> _Cells:
    queries, keys = segment_lengths(query_boundaries), segment_lengths(key_boundaries)
    query_starts, key_starts = np.cumsum([0, *queries]), np.cumsum([0, *keys])
    members: dict[tuple[int, int], list[int]] = {}
    for segment, (length, seen) in enumerate(zip(queries, keys, strict=True)):
        members.setdefault((seen - length, -(-length // _GRAIN) * _GRAIN), []).append(segment)
    device, all_keys = key_tokens.device, key_tokens.cpu().numpy()
    buckets, query_of_cell, key_of_cell = [], [], []
    cell_of_query, cell = np.empty(query_starts[-1], dtype=np.int64), 0
    for (prompt, padded), segments in members.items():
        mask = torch.ones(padded, prompt + padded, dtype=torch.bool, device=device).tril(prompt)
        buckets.append(_Bucket(len(segments), padded, prompt + padded, mask))
        for segment in segments:
            own = np.arange(query_starts[segment], query_starts[segment + 1])
            seen = all_keys[key_starts[segment] : key_starts[segment + 1]]
            # Padding repeats a token. As a key it comes after all relevant queries; as a query its result is unused.
            query_of_cell.append(np.pad(own, (0, padded - len(own)), mode="edge"))
            key_of_cell.append(np.pad(seen, (0, prompt + padded - len(seen)), mode="edge"))
            cell_of_query[own] = cell + np.arange(len(own))
            cell += padded
    indices = (np.concatenate(query_of_cell), np.concatenate(key_of_cell), cell_of_query)
    return _Cells(tuple(buckets), *(torch.from_numpy(one).to(device) for one in indices))


def _by_cells(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cells: _Cells, scale: float | None
) -> torch.Tensor:
    queries, keys, values = (
        _take(tensor, index)
        for tensor, index in ((query, cells.query_of_cell), (key, cells.key_of_cell), (value, cells.key_of_cell))
    )
    pieces, at, seen = [], 0, 0
    for one in cells.buckets:
        end, seen_end = at + one.segments * one.queries, seen + one.segments * one.keys
        q = queries[at:end].view(one.segments, one.queries, *query.shape[1:]).transpose(1, 2)
        k, v = (
            tensor[seen:seen_end].view(one.segments, one.keys, *key.shape[1:]).transpose(1, 2)
            for tensor in (keys, values)
        )
        grouped = q.shape[1] != k.shape[1]
        out = scaled_dot_product_attention(q, k, v, attn_mask=one.mask, scale=scale, enable_gqa=grouped)
        pieces.append(out.transpose(1, 2).reshape(end - at, *query.shape[1:]))
        at, seen = end, seen_end
    return torch.cat(pieces)[cells.cell_of_query] if pieces else torch.zeros_like(query)
