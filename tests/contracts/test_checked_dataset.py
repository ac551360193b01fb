"""verl's datasets without the rows that cannot be trained on."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doctor_builders import png, records, tiny_model
from omegaconf import OmegaConf
from poison_builders import POISONS, SFT_POISONS, poisoned, poisoned_conversation
from transformers import AutoProcessor

from omniq_verl.data.rows import Row, schema, sft_record
from omniq_verl.tasks import TECHNICAL
from omniq_verl.trainer.rejected_rows import TooManyRejected

ANSWER = "<think>It is sharp.</think><answer>4.2</answer>"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    import omniq_verl.trainer.checked_dataset_verl as module

    return module


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoProcessor.from_pretrained(tiny_model(tmp_path_factory.mktemp("model")))


def prompts(module: ModuleType, processor: Any, folder: Path, rows: list[dict], **settings: Any) -> Any:
    path = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(True)), path)
    config = {"max_prompt_length": 200, "filter_overlong_prompts": False, "cache_dir": str(folder), **settings}
    return module.CheckedDataset(str(path), processor.tokenizer, OmegaConf.create(config), processor)


def conversations(module: ModuleType, processor: Any, folder: Path, rows: list[dict], **settings: Any) -> Any:
    path = folder / "sft.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    config = OmegaConf.create({"max_length": 260, "truncation": "error", **settings})
    return module.CheckedSFTDataset(
        parquet_files=[str(path)], tokenizer=processor.tokenizer, config=config, processor=processor
    )


def sft_rows(count: int = 4) -> list[dict]:
    rows = [Row("koniq", f"koniq/{i}", TECHNICAL.name, "train", 4.2, 80.0, (0.0, 100.0)) for i in range(count)]
    return [sft_record(row, png(), ANSWER) for row in rows]


def test_sound_rows_are_all_there(module, processor, tmp_path):
    data = prompts(module, processor, tmp_path, records(3))
    assert (len(data), data.rejected) == (3, ())
    assert [data[i]["extra_info"]["id"] for i in range(3)] == ["koniq/0", "koniq/1", "koniq/2"]


@pytest.mark.parametrize("kind", POISONS)
def test_a_poisoned_prompt_is_left_out_and_named(module, processor, tmp_path, capsys, kind):
    first, *rest = records(4)
    data = prompts(module, processor, tmp_path, [first, poisoned(first, kind), *rest], max_rejected_share=0.01)
    assert [data[i]["extra_info"]["id"] for i in range(len(data))] == [f"koniq/{i}" for i in range(4)]
    assert [(one.index, one.row, one.source) for one in data.rejected] == [(1, f"poison/{kind}", "koniq")]
    assert f"row 1 (id poison/{kind}): {data.rejected[0].reasons[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(("share", "bad", "fine"), [(0.0, 1, False), (0.01, 1, True), (0.01, 2, False), (0.5, 2, True)])
def test_more_rejected_rows_than_allowed_are_an_error(module, processor, tmp_path, share, bad, fine):
    rows = records(4)
    rows += [poisoned(rows[0], "no JSON") for _ in range(bad)]
    if fine:
        assert len(prompts(module, processor, tmp_path, rows, max_rejected_share=share)) == 4
        return
    with pytest.raises(TooManyRejected, match=rf"{bad} of {4 + bad} rows are rejected.*max_rejected_share={share:g}"):
        prompts(module, processor, tmp_path, rows, max_rejected_share=share)


def test_labels_of_other_rewards_are_not_judged(module, processor, tmp_path):
    rows = [poisoned(row, "no JSON") for row in records(2)]
    assert len(prompts(module, processor, tmp_path, rows, check_labels=False)) == 2


def test_long_prompts_are_verl_s_to_drop_where_it_is_asked_to(module, processor, tmp_path):
    rows = [*records(2), poisoned(records(1)[0], "too long")]
    # No worker processes: for them `datasets` exchanges os.environ, which later tests would notice.
    settings = {"filter_overlong_prompts": True, "filter_overlong_prompts_workers": None}
    data = prompts(module, processor, tmp_path, rows, **settings)
    assert (len(data), data.rejected) == (2, ())


@pytest.mark.parametrize("kind", SFT_POISONS)
def test_a_poisoned_conversation_is_left_out_and_named(module, processor, tmp_path, kind):
    first, *rest = sft_rows()
    rows = [first, poisoned_conversation(first, kind), *rest]
    data = conversations(module, processor, tmp_path, rows, max_rejected_share=0.01)
    assert (len(data), [one.row for one in data.rejected]) == (4, [f"poison/{kind}"])
    clean = conversations(module, processor, tmp_path, [first, *rest])
    for i in range(4):
        assert data[i]["input_ids"].tolist() == clean[i]["input_ids"].tolist()
