"""Shared prompts in verl's micro-batches: the rows of a group pass through the model as one prompt with its answers.

verl's batches have a row for each answer, all with prompt and pixels. Here a micro-batch is rearranged right before
the forward pass, and its log-probabilities are restored to verl's layout right after it, so that losses, filters and
TransferQueue are not affected. Log-probabilities and entropies are computed where an answer's token is predicted, and
are 0 elsewhere, where they are not used.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from tensordict import NonTensorStack, TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

from omniq_verl.attention.shared_prompt import SharedLayout, shared_layout
from omniq_verl.trainer.group_packing import cut_groups, fewest_micro_batches
from omniq_verl.trainer.shared_prompt import SHARED

_GROUP = "uid"
"""verl's name for a group: the rows of one prompt."""


def shares_prompts(data: TensorDict) -> bool:
    """Whether a batch or micro-batch requests shared prompts and has group ids."""
    return bool(tu.get_non_tensor_data(data, SHARED, False)) and _GROUP in data.keys()  # noqa: SIM118  (a TensorDict)


def layout_of(micro_batch: TensorDict) -> SharedLayout:
    """The layout of a micro-batch in which each prompt occurs once."""
    prompts, answers = prompt_and_answer_lengths(micro_batch)
    return shared_layout(prompts, answers, groups_of(micro_batch), micro_batch["input_ids"].device)  # pyright: ignore[reportArgumentType]  a tensor has one


def prompt_and_answer_lengths(data: TensorDict) -> tuple[list[int], list[int]]:
    """Number of tokens of every row's prompt and answer."""
    # Nested tensors have offsets, which torch declares nowhere.
    answers = data["responses"].offsets().diff().tolist()  # pyright: ignore[reportAttributeAccessIssue]
    rows = data["input_ids"].offsets().diff().tolist()  # pyright: ignore[reportAttributeAccessIssue]
    return [row - answer for row, answer in zip(rows, answers, strict=True)], answers


def groups_of(data: TensorDict) -> list[str]:
    """The group of every row."""
    return [str(getattr(group, "data", group)) for group in data[_GROUP]]


def without_repeated_images(micro_batch: TensorDict, layout: SharedLayout) -> TensorDict:
    """The micro-batch, with the images of each group's first row only."""
    inputs = micro_batch.get("multi_modal_inputs", None)
    if inputs is None:
        return micro_batch
    first = set(layout.first)
    kept = [getattr(one, "data", one) if row in first else {} for row, one in enumerate(inputs)]
    changed = micro_batch.copy()
    changed["multi_modal_inputs"] = NonTensorStack(*kept)  # pyright: ignore[reportAbstractUsage]  it makes methods at import
    return changed


def share_prompts(inputs: dict[str, Any], layout: SharedLayout) -> None:
    """Change the inputs of a packed forward pass into those of a stream with shared prompts."""
    inputs["input_ids"] = inputs["input_ids"][:, layout.tokens]
    inputs["position_ids"] = inputs["position_ids"][..., layout.tokens]
    inputs["cu_seq_lens_q"] = layout.query_boundaries
    inputs["shared_keys"] = (layout.key_boundaries, layout.key_tokens)


def put_back(values: torch.Tensor, layout: SharedLayout, offsets: torch.Tensor) -> torch.Tensor:
    """Values of the answers' tokens, ``[answers' tokens]``, in verl's jagged layout of whole rows; 0 in prompts."""
    whole = values.new_zeros(int(offsets[-1])).index_copy(0, layout.positions, values)
    return torch.nested.nested_tensor_from_jagged(whole, offsets)


@contextmanager
def groups_stay_together() -> Iterator[None]:
    """Temporarily replace ``prepare_micro_batches`` (transformer_impl.py:737), which ignores groups, with ours.

    verl's engine has no hook for this.
    """
    from verl.workers.engine.fsdp import transformer_impl  # its import loads our engine, which needs this module

    upstream = transformer_impl.prepare_micro_batches  # pyright: ignore[reportPrivateImportUsage]  what is replaced

    def prepare(data: TensorDict, dp_group: Any = None, **settings: Any) -> tuple[list[TensorDict], Any]:
        if not tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=True):
            return upstream(data=data, dp_group=dp_group, **settings)
        return micro_batches_by_group(data, dp_group)

    transformer_impl.prepare_micro_batches = prepare  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        transformer_impl.prepare_micro_batches = upstream  # pyright: ignore[reportPrivateImportUsage]


def micro_batches_by_group(data: TensorDict, dp_group: Any) -> tuple[list[TensorDict], list[list[int]]]:
    """Cut a batch into micro-batches of at most ``max_token_len_per_gpu`` tokens, with shared prompts counted once.

    A group is split only if it alone has more tokens, or if other ranks have more micro-batches than this rank has
    groups, because all ranks need the same number.

    Returns:
        The micro-batches, and the rows of each.

    Raises:
        ValueError: a row is longer than a micro-batch may be, or a rank has fewer rows than micro-batches.
    """
    limit: int = tu.get_non_tensor_data(  # pyright: ignore[reportAssignmentType]  it is unwrapped
        data=data, key="max_token_len_per_gpu", default=None
    )
    prompts, answers = prompt_and_answer_lengths(data)
    agreed = _largest_of_all_ranks(dp_group)
    pieces = cut_groups(prompts, answers, groups_of(data), limit)
    wanted = agreed(fewest_micro_batches(pieces, limit))
    while True:
        if wanted > len(prompts):
            raise ValueError(f"a rank has {len(prompts)} rows, and the batch takes {wanted} micro-batches")
        pieces = cut_groups(prompts, answers, groups_of(data), limit, at_least=wanted)
        tokens = [piece.tokens for piece in pieces]
        partitions: Any = get_seqlen_balanced_partitions(tokens, wanted, equal_size=False)  # lists of indices
        longest = max(sum(pieces[i].tokens for i in one) for one in partitions)
        if not agreed(int(longest > limit)):
            break
        wanted += 1
    rows = [[row for i in sorted(one) for row in pieces[i].rows] for one in partitions]
    return [tu.index_select_tensor_dict(data, one) for one in rows], rows


def _largest_of_all_ranks(group: Any) -> Callable[[int], int]:
    def largest(number: int) -> int:
        if not dist.is_initialized() or group is None:
            return number
        found = torch.tensor([number], device=get_device_name())
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
        return int(found.item())

    return largest


def answers_of(values: torch.Tensor, data: TensorDict) -> torch.Tensor:
    """The values at the tokens that predict answers, of all rows together, from verl's layout of whole rows."""
    prompts, answers = prompt_and_answer_lengths(data)
    rows = zip(values.unbind(), prompts, answers, strict=True)
    return torch.cat([row[prompt - 1 : prompt - 1 + answer] for row, prompt, answer in rows])
