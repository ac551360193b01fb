"""Rows without effect, to make a batch divisible.

verl's own padding rows have no image. A micro-batch with such rows only reaches verl 0.9.1's
``models/transformers/qwen2_vl.py:393``, which fails with transformers 5. Copies of a real row do not.
"""

import uuid
from typing import Any

import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict


def pad_with_masked_copies(batch: KVBatchMeta, multiple: int) -> KVBatchMeta:
    """The batch with masked copies of its shortest row appended, up to a multiple; their tokens have no effect."""
    missing = -len(batch) % multiple
    if missing == 0:
        return batch
    shortest = min(range(len(batch)), key=lambda row: batch.tags[row]["seq_len"])
    partition: Any = batch.partition_id  # verl sets it
    row: Any = tq.kv_batch_get(keys=[batch.keys[shortest]], partition_id=partition)[0]
    # A separate group, as for verl's padding rows.
    group = f"pad{uuid.uuid4().hex}"
    masked = {name: row[name] for name in row.keys()}  # noqa: SIM118  (a TensorDict row)
    for name in ("response_mask", "loss_mask", "rm_scores"):
        masked[name] = torch.zeros_like(masked[name])
    masked["uid"] = group
    # By their keys each is a group, so that they are spread over the ranks; those on one rank share their prompt.
    keys = [f"{group}x{number}_0_0" for number in range(missing)]
    tags = [{**batch.tags[shortest], "is_padding": True} for _ in keys]
    fields = list_of_dict_to_tensordict([{**masked, "session_id": number} for number in range(missing)])
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=fields, tags=tags)
    return KVBatchMeta(
        keys=batch.keys + keys,
        tags=batch.tags + tags,
        partition_id=batch.partition_id,
        fields=batch.fields,
        extra_info=batch.extra_info,
    )
