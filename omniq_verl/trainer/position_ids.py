"""Position ids of rows that are all equally long.

TransferQueue joins rows with ``torch.nested.as_nested_tensor``, which makes the first dimension that differs the jagged
one. The position ids of a vision-language model are ``[axes, tokens]`` for each row. If all rows of a batch have the
same length, or there is only one, no dimension differs, and torch makes the axes the jagged dimension. verl then
declares the tokens to be it (``utils/tensordict_utils.py:915``), and the batch can no longer be divided into rows.
"""

from typing import Any

import torch
from tensordict import TensorDict


def make_tokens_jagged(data: TensorDict) -> None:
    """Give position ids with several axes the boundaries of ``input_ids``, in place.

    Args:
        data: rows as a worker gets them; ``position_ids`` are ``[rows, axes, tokens]`` and jagged in one of the last
            two dimensions. Anything else is left as it is.
    """
    positions = data.get("position_ids", None)
    if positions is None or not positions.is_nested or positions.dim() != 3:
        return
    ids: Any = data["input_ids"]  # nested, which has methods that torch declares nowhere
    values, ends = positions.values(), ids.offsets()
    if values.shape[-1] == ends[-1] and torch.equal(positions.offsets(), ends):
        return
    rows = values.unflatten(0, (len(data), -1))  # [rows, axes, tokens]
    data["position_ids"] = torch.nested.nested_tensor_from_jagged(rows.transpose(0, 1).flatten(1), ends, jagged_dim=2)
