"""Pixels that pass through TransferQueue once for all rows of a group, in a partition of their own.

The key is the group's name. Rows carry the name instead of the pixels, so that any subset of a group, on any rank and
in any micro-batch, finds them. An engine that does not know of the name fails on it (``torch.cat`` of a text) instead
of training without images.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import torch
import transfer_queue as tq
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from omniq_verl.trainer.group_pixels import MARKER, PIXELS, knows_images, without_pixels
from omniq_verl.trainer.prompt_inputs import PIXELS_GO, PixelsGo, PromptInputs

PARTITION = "omniq_pixels"


def prompt_inputs(group: str, features: dict[str, Any]) -> PromptInputs | None:
    """What a group's rows have in common, as verl computes it, with pixels where ``PIXELS_GO`` says.

    Pixels that go into TransferQueue are on their way when this returns, so that no answer waits for them.

    Args:
        group: the ``uid`` of the rows.
        features: what the processor returned for the prompt.

    Returns:
        None where it may depend on the answer, so that each row has to be asked for.
    """
    if not knows_images(features):
        return None
    inputs = {name: value for name, value in features.items() if name != "attention_mask"}
    if PIXELS not in inputs:
        return PromptInputs(inputs)
    frames, height, width = inputs["image_grid_thw"].unbind(1)
    inputs["images_seqlens"] = torch.repeat_interleave(height * width, frames)
    if PIXELS_GO.get() is PixelsGo.ROWS:
        return PromptInputs(inputs)
    known = PromptInputs(without_pixels(inputs, group))
    if PIXELS_GO.get() is PixelsGo.ONCE:
        known.stored = asyncio.create_task(put_pixels(group, inputs[PIXELS]))
    return known


async def put_pixels(group: str, pixels: torch.Tensor) -> KVBatchMeta:
    """Store the pixels of a group's images.

    Args:
        group: the ``uid`` of its rows.
        pixels: ``[patches, width]``, as the image processor returns them.
    """
    # A tensor field: it is sent without pickling. The leading dimension is TransferQueue's, of keys.
    fields = TensorDict({PIXELS: pixels.unsqueeze(0)}, batch_size=[1])
    return await tq.async_kv_batch_put(keys=[group], partition_id=PARTITION, fields=fields, tags=[{}])


def get_pixels(groups: Sequence[str]) -> dict[str, torch.Tensor]:
    """The pixels of groups, by name.

    Raises:
        RuntimeError: a group has none stored.
    """
    try:
        found = tq.kv_batch_get(keys=list(groups), partition_id=PARTITION, select_fields=[PIXELS])
        return dict(zip(groups, found[PIXELS].unbind(0), strict=True))  # keys that it does not know are left out
    except ValueError as error:
        raise RuntimeError(
            f"the pixels of {len(groups)} groups are not all in TransferQueue ({error}). Fix: set"
            " actor_rollout_ref.rollout.agent.agent_loop_manager_class=null, and report it"
        ) from error


def with_pixels(data: TensorDict) -> TensorDict:
    """The batch with the pixels of every row that carries its group's name; rows of a group share one tensor."""
    inputs = data.get("multi_modal_inputs", None)
    rows = [] if inputs is None else [getattr(one, "data", one) for one in inputs]
    groups = sorted({row[MARKER] for row in rows if row and MARKER in row})
    if not groups:
        return data
    pixels = get_pixels(groups)
    changed = data.copy()
    changed["multi_modal_inputs"] = NonTensorStack(  # pyright: ignore[reportAbstractUsage]  makes methods at import
        *(_with_pixels(row, pixels) for row in rows)
    )
    return changed


def _with_pixels(row: dict | None, pixels: dict[str, torch.Tensor]) -> dict | None:
    if not row or MARKER not in row:
        return row
    return {PIXELS: pixels[row[MARKER]], **{name: value for name, value in row.items() if name != MARKER}}


def drop_unused_pixels() -> None:
    """Remove pixels whose group is neither being answered nor has a row left."""
    everything = tq.kv_list() or {}
    stored = everything.pop(PARTITION, {})
    # A group's own key is its name, and those of its rows begin with it (verl/trainer/ppo/v1/replay_buffer.py).
    used = {key.split("_")[0] for keys in everything.values() for key in keys}
    if unused := [group for group in stored if group not in used]:
        tq.kv_clear(keys=unused, partition_id=PARTITION)
