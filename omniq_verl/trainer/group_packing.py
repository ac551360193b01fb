"""Pack whole groups into micro-batches. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Piece:
    """Rows of one group that stay together."""

    rows: tuple[int, ...]
    tokens: int
    """Number of tokens, with the prompt counted once."""


def cut_groups(
    prompts: Sequence[int], answers: Sequence[int], groups: Sequence[Any], limit: int, at_least: int = 1
) -> list[Piece]:
    """The groups, split where they are too long or too few.

    Args:
        prompts: tokens of each row's prompt, the same for all rows of a group.
        answers: tokens of each row's answer.
        groups: the group of each row.
        limit: largest number of tokens of a piece.
        at_least: number of pieces that are needed; there are never more than rows.

    Raises:
        ValueError: a single row is longer than the limit.
    """
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    pieces = [piece for rows in members.values() for piece in _cut(rows, prompts[rows[0]], answers, limit)]
    while len(pieces) < at_least and any(len(piece.rows) > 1 for piece in pieces):
        longest = max((i for i in range(len(pieces)) if len(pieces[i].rows) > 1), key=lambda i: pieces[i].tokens)
        rows = pieces[longest].rows
        halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
        pieces[longest : longest + 1] = [_piece(half, prompts[rows[0]], answers) for half in halves]
    return pieces


def fewest_micro_batches(pieces: Sequence[Piece], limit: int) -> int:
    """A lower bound of the number of micro-batches that the pieces need."""
    return max(1, math.ceil(sum(piece.tokens for piece in pieces) / limit))


def _cut(rows: Sequence[int], prompt: int, answers: Sequence[int], limit: int) -> list[Piece]:
    pieces, current, tokens = [], [], prompt
    for row in rows:
        if prompt + answers[row] > limit:
            raise ValueError(f"a row has {prompt + answers[row]} tokens, more than max_token_len_per_gpu={limit}")
        if tokens + answers[row] > limit:
            pieces.append(Piece(tuple(current), tokens))
            current, tokens = [], prompt
        current.append(row)
        tokens += answers[row]
    return [*pieces, Piece(tuple(current), tokens)]


def _piece(rows: Sequence[int], prompt: int, answers: Sequence[int]) -> Piece:
    return Piece(tuple(rows), prompt + sum(answers[row] for row in rows))


def order_by_group(groups: Sequence[Any], workloads: Sequence[float], ranks: int) -> list[int]:
    """An order of rows in which each rank's equal share contains whole groups, as far as possible.

    Args:
        groups: the group of each row.
        workloads: the workload of each row, in any unit.
        ranks: number of ranks, which divides the number of rows; rank ``i`` gets the ``i``-th share.

    Returns:
        Row indices. Groups are assigned by workload, the largest first, to the rank with the smallest load that still
        has room; groups that fit nowhere are split. Within a share, groups keep the order of their first rows: shares
        are cut into mini-batches in sequence, which must not be sorted by length.
    """
    room = len(groups) // ranks
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    shares: list[list[int]] = [[] for _ in range(ranks)]
    load, left = [0.0] * ranks, []
    for rows in sorted(members.values(), key=lambda rows: -sum(workloads[row] for row in rows)):
        fitting = [rank for rank in range(ranks) if len(shares[rank]) + len(rows) <= room]
        if not fitting:
            left += rows
            continue
        rank = min(fitting, key=lambda rank: load[rank])
        shares[rank] += rows
        load[rank] += sum(workloads[row] for row in rows)
    for share in shares:
        missing = room - len(share)
        share += left[:missing]
        left = left[missing:]
        share.sort(key=lambda row: (members[groups[row]][0], row))
    return [row for share in shares for row in share]
