"""Attention within the segments of one packed stream of tokens.

A packed stream holds sequences one after another, without padding. ``boundaries`` gives their ends, like flash
attention's ``cu_seqlens``: ``[0, 3, 7]`` means a sequence of three tokens and one of four. Each token attends only to
tokens of its own sequence.

Half precision on CUDA uses ``torch.nn.attention.varlen`` (the FlashAttention-2 that ships with torch). It accepts
grouped key and value heads directly. Everything else (the CPU, and fp32 on CUDA) uses
``torch.nn.functional.scaled_dot_product_attention`` and processes segments of similar length together.
"""

import inspect
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakIdKeyDictionary

_GRAIN = 32
"""Causal segments are padded to a multiple of this length, so a few calls cover many lengths. Padding comes after the
tokens, where causal queries do not attend."""


@dataclass(frozen=True)
class _Bucket:
    """Segments that are processed in one call of scaled_dot_product_attention."""

    segments: int
    length: int


@dataclass(frozen=True)
class _Padding:
    """The position of each token after padding the segments to the lengths of their buckets.

    ``cell_of_token`` has shape ``[tokens]``. ``token_of_cell`` has shape ``[cells]``; for a padding cell it holds the
    number of tokens, one past the last index. Both are None if the stream needs no padding and no reordering.
    """

    buckets: tuple[_Bucket, ...]
    cell_of_token: torch.Tensor | None
    token_of_cell: torch.Tensor | None


@dataclass
class _Host:
    """Host-side information about a tensor of boundaries."""

    version: int
    lengths: tuple[int, ...]
    paddings: dict[bool, _Padding]


# Every layer gets the same tensor. Copying it to the host waits for the GPU, so it is done once, not once per layer.
_known: WeakIdKeyDictionary = WeakIdKeyDictionary()


def segment_lengths(boundaries: torch.Tensor) -> tuple[int, ...]:
    """Return the lengths of the segments. The first call for a tensor waits for its device; later ones do not.

    Args:
        boundaries: integers ``[segments + 1]``, from 0 to the number of tokens, not decreasing.

    Raises:
        ValueError: the boundaries do not begin at 0, or decrease.
    """
    return _host(boundaries).lengths


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    causal: bool,
    scale: float | None = None,
) -> torch.Tensor:
    """Attend within each segment: ``softmax(scale * Q K^T) V``, optionally with a causal mask.

    Args:
        query: ``[tokens, heads, width]``.
        key: ``[tokens, kv_heads, width]``; ``heads`` is a multiple of ``kv_heads``.
        value: same shape as ``key``.
        boundaries: int32 ``[segments + 1]``, on the same device.
        causal: whether a token attends only to itself and to earlier tokens of its segment.
        scale: factor of the scores; None for ``width ** -0.5``.

    Returns:
        ``[tokens, heads, width]``.

    Raises:
        ValueError: the boundaries do not end at the number of tokens.
    """
    host = _host(boundaries)
    if sum(host.lengths) != len(query):
        raise ValueError(f"the segments hold {sum(host.lengths)} tokens, the query has {len(query)}")
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return varlen(query, key, value, boundaries, boundaries, causal, scale)
    if causal not in host.paddings:
        host.paddings[causal] = _padding(host.lengths, causal, query.device)
    return _padded(query, key, value, host.paddings[causal], causal, scale)


def _host(boundaries: torch.Tensor) -> _Host:
    found = _known.get(boundaries)
    if found is None or found.version != boundaries._version:  # the tensor was written to since
        numbers = boundaries.tolist()
        lengths = tuple(end - start for start, end in pairwise(numbers))
        if not numbers or numbers[0] != 0 or min(lengths, default=0) < 0:
            raise ValueError(f"boundaries of segments rise from 0; got {numbers[:8]}")
        found = _known[boundaries] = _Host(boundaries._version, lengths, {})
    return found


def varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_boundaries: torch.Tensor,
    key_boundaries: torch.Tensor,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """``attend`` with torch's kernel for half precision on CUDA. A causal mask is aligned to the segments' ends."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(  # pyright: ignore[reportReturnType]  returns a tuple only if more outputs are requested
        query,
        key,
        value,
        query_boundaries,
        key_boundaries,
        max(segment_lengths(query_boundaries), default=0),
        max(segment_lengths(key_boundaries), default=0),
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        **_grouped_heads(),
    )


@lru_cache(maxsize=1)
def _grouped_heads() -> dict[str, Any]:
    from torch.nn.attention.varlen import varlen_attn

    # torch 2.11 passes grouped heads to the kernel without being asked; later versions need the argument.
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def _padding(lengths: tuple[int, ...], causal: bool, device: torch.device) -> _Padding:
    """Sort the segments into buckets of one padded length each."""
    members: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        if length:
            # Without a causal mask, padding would be attended to, so these segments must have exactly the same length.
            padded = -(-length // _GRAIN) * _GRAIN if causal else length
            members.setdefault(padded, []).append(number)
    if causal and len(members) == 1:  # a single bucket need not be padded beyond its longest segment
        members = {max(lengths): next(iter(members.values()))}
    buckets = tuple(_Bucket(len(numbers), padded) for padded, numbers in members.items())
    if all(lengths[number] == padded for padded, numbers in members.items() for number in numbers) and len(members) < 2:
        return _Padding(buckets, None, None)
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    token_of_cell = torch.full((sum(bucket.segments * bucket.length for bucket in buckets),), starts[-1])
    cell_of_token, cell = torch.empty(starts[-1], dtype=torch.int64), 0
    for padded, numbers in members.items():
        for number in numbers:
            start, end = starts[number], starts[number + 1]
            token_of_cell[cell : cell + end - start] = torch.arange(start, end)
            cell_of_token[start:end] = torch.arange(cell, cell + end - start)
            cell += padded
    return _Padding(buckets, cell_of_token.to(device), token_of_cell.to(device))


def _padded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, padding: _Padding, causal: bool, scale: float | None
) -> torch.Tensor:
    tokens, heads = query.shape[:2]
    cells = [_to_cells(tensor, padding) for tensor in (query, key, value)]
    pieces, start = [], 0
    for bucket in padding.buckets:
        end = start + bucket.segments * bucket.length
        q, k, v = (
            tensor[start:end].view(bucket.segments, bucket.length, *tensor.shape[1:]).transpose(1, 2)
            for tensor in cells
        )
        grouped = heads != k.shape[1]
        out = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=grouped)
        pieces.append(out.transpose(1, 2).reshape(end - start, heads, -1))
        start = end
    if not pieces:
        return torch.zeros_like(query)
    out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    if padding.token_of_cell is None:
        return out
    # The backward of index_copy is a plain lookup. The backward of a lookup would be a slow accumulation.
    return out.new_zeros(tokens + 1, *out.shape[1:]).index_copy(0, padding.token_of_cell, out)[:tokens]


def _to_cells(tensor: torch.Tensor, padding: _Padding) -> torch.Tensor:
    if padding.cell_of_token is None or padding.token_of_cell is None:
        return tensor.contiguous()
    cells = tensor.new_zeros(len(padding.token_of_cell), *tensor.shape[1:])
    return cells.index_copy(0, padding.cell_of_token, tensor)
