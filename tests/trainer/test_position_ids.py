"""Rows that are all equally long, as TransferQueue joins them and verl cuts them into mini-batches."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
from verl.utils import tensordict_utils as tu
from verl.utils.tensordict_utils import maybe_fix_3d_position_ids

from omniq_verl.trainer.position_ids import make_tokens_jagged
from omniq_verl.trainer.worker_verl import GatedTrainingWorker

AXES = 4


def rows_of(lengths: list[int]) -> list[dict[str, torch.Tensor]]:
    """Rows whose position ids are all different numbers."""
    rows, start = [], 0
    for length in lengths:
        numbers = torch.arange(start, start + AXES * length).view(AXES, length)
        rows.append({"input_ids": numbers[0].clone(), "position_ids": numbers, "response_mask": torch.ones(length)})
        start += AXES * length
    return rows


def joined(rows: list[dict[str, torch.Tensor]]) -> TensorDict:
    """A batch as a worker gets it."""
    pack = AsyncSimpleStorageManager._pack_field_values
    return TensorDict({name: pack([row[name] for row in rows]) for name in rows[0]}, batch_size=[len(rows)])


def cuts_into(batch: TensorDict, rows: list[dict[str, torch.Tensor]]) -> bool:
    """Whether verl can cut the batch into these rows."""
    maybe_fix_3d_position_ids(batch)  # verl calls it first
    cut = [tu.index_select_tensor_dict(batch, [number]) for number in range(len(rows))]
    pairs = zip(cut, rows, strict=True)
    each = all(torch.equal(one["position_ids"].values(), row["position_ids"]) for one, row in pairs)
    together = torch.cat([row["position_ids"] for row in rows], dim=1)
    return each and torch.equal(batch["position_ids"].values(), together)


@pytest.mark.parametrize("lengths", [[93] * 16, [7], [AXES], [AXES] * 3, [1], [5, 5], [5, 6], [2, 9, 2]])
def test_the_batch_can_be_cut_into_its_rows(lengths):
    rows = rows_of(lengths)
    batch = joined(rows)
    make_tokens_jagged(batch)
    assert cuts_into(batch, rows)
    make_tokens_jagged(batch)  # a second time it changes nothing
    assert cuts_into(batch, rows)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_lengths(lengths):
    rows = rows_of(lengths)
    batch = joined(rows)
    make_tokens_jagged(batch)
    assert cuts_into(batch, rows)


@pytest.mark.parametrize("lengths", [[93] * 16, [7]])
def test_verl_itself_cannot_cut_it(lengths):
    """Once this fails, ``omniq_verl/trainer/position_ids.py`` can go."""
    rows = rows_of(lengths)
    with pytest.raises(RuntimeError):
        cuts_into(joined(rows), rows)


def test_batches_without_several_axes_are_left_as_they_are():
    rows = [{name: row[name] if name != "position_ids" else row[name][0] for name in row} for row in rows_of([3, 3])]
    batch = joined(rows)
    before = batch["position_ids"]
    make_tokens_jagged(batch)
    assert batch["position_ids"] is before
    text = TensorDict({"input_ids": joined(rows)["input_ids"]}, batch_size=[2])
    make_tokens_jagged(text)
    assert list(text.keys()) == ["input_ids"]


class Cutting(GatedTrainingWorker):
    """The worker without a model: it stores the mini-batches that verl cuts for it."""

    def __init__(self) -> None:
        ranks = {"get_data_parallel_size": lambda: 1, "get_data_parallel_rank": lambda: 0}
        modes = {"train_mode": lambda **_: nullcontext(), "is_mp_src_rank_with_outputs": lambda: False}
        self.engine = SimpleNamespace(get_data_parallel_group=lambda: None, **ranks, **modes)
        self.profiler = SimpleNamespace(step=lambda: None)
        self.seen: list[TensorDict] = []

    def train_batch(self, data: TensorDict) -> Any:
        self.seen.append(data)


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_mini_batches_of_rows_of_one_length(one_rank):
    rows = rows_of([6] * 8)
    batch = joined(rows)
    tu.assign_non_tensor(batch, mini_batch_size=2, dataloader_kwargs={"shuffle": False})
    worker = Cutting()
    worker.train_mini_batch(batch)
    assert len(worker.seen) == 4
    found = [row for part in worker.seen for row in part["position_ids"].unbind()]
    assert all(torch.equal(one, row["position_ids"]) for one, row in zip(found, rows, strict=True))
