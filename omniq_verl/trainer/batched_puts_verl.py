"""Rows that come one by one and go into TransferQueue together.

A put costs some milliseconds whatever is in it: two messages to other processes, and a column for each field. Rows that
arrive while a put is under way wait for it and go together in the next one, so that an idle queue delays nobody.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transfer_queue as tq
from tensordict import NonTensorData, NonTensorStack, TensorDict


@dataclass(frozen=True)
class _Waiting:
    key: str
    row: dict[str, Any]
    tag: dict[str, Any]
    done: asyncio.Future


class BatchedPuts:
    """Rows of one worker on their way into TransferQueue."""

    def __init__(self) -> None:
        self._waiting: dict[tuple, list[_Waiting]] = {}  # what can go together, by partition and names of fields
        self._task: asyncio.Task | None = None

    async def put_row(self, partition: str, key: str, row: dict[str, Any], tag: dict[str, Any]) -> None:
        """Store a row; returns when it is there.

        Args:
            partition: of TransferQueue.
            key: of the row.
            row: tensors without a batch dimension, and anything else.
            tag: its metadata.

        Raises:
            Exception: the put failed; each of its rows gets the error.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((partition, *sorted(row)), []).append(_Waiting(key, row, tag, done))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        await done

    async def _drain(self) -> None:
        # Rollouts that ended together get the chance to go together.
        await asyncio.sleep(0)
        while self._waiting:
            (partition, *_), rows = self._waiting.popitem()
            error: BaseException | None = None
            try:
                await tq.async_kv_batch_put(
                    keys=[one.key for one in rows],
                    partition_id=partition,
                    fields=columns([one.row for one in rows]),
                    tags=[one.tag for one in rows],
                )
            except Exception as found:  # of whatever kind: nobody must wait for ever
                error = found
            for one in rows:
                if not one.done.done():  # its rollout may have been cancelled
                    one.done.set_result(None) if error is None else one.done.set_exception(error)
        self._task = None


def columns(rows: Sequence[dict[str, Any]]) -> TensorDict:
    """Rows with the same fields as a batch; tensors of unequal length in the last dimension become jagged.

    verl's ``list_of_dict_to_tensordict`` does the same where the length is the only dimension.
    """
    return TensorDict({name: _column([row[name] for row in rows]) for name in rows[0]}, batch_size=[len(rows)])


def _column(values: list[Any]) -> Any:
    if not all(isinstance(value, torch.Tensor) for value in values):
        # Rows of a group share most of their values, and wrapping one takes 16 microseconds.
        wrapped = {key: NonTensorData(value) for key, value in {id(value): value for value in values}.items()}
        each = [wrapped[id(value)] for value in values]
        return NonTensorStack(*each)  # pyright: ignore[reportAbstractUsage]  it makes methods at import
    if len({value.shape for value in values}) == 1:
        return torch.stack(values)
    ends = torch.tensor([value.shape[-1] for value in values]).cumsum(0)
    offsets = torch.cat([ends.new_zeros(1), ends])
    return torch.nested.nested_tensor_from_jagged(torch.cat(values, dim=-1), offsets, jagged_dim=values[0].dim())
