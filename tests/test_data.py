"""Rows and the parquet files they are written into."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from omniq_verl.data import parquet
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row, sft_record
from omniq_verl.tasks import TECHNICAL


def row(**changes: Any) -> Row:
    values = {
        "data_source": "koniq",
        "row_id": "koniq/000042",
        "task": "technical",
        "image": b"PNG",
        "score": 3.4,
        "raw_score": 60.0,
        "raw_bounds": (0.0, 100.0),
        "split": "train",
    }
    return Row(**{**values, **changes})


def numbers(count: int) -> list[dict]:
    return [{"number": number, "text": f"row {number}"} for number in range(count)]


def failing_after(count: int) -> Iterator[dict]:
    yield from numbers(count)
    raise OSError("the disk is gone")


# Rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "aesthetic"}, r"koniq/000042: unknown task 'aesthetic'; known: \['degradation', 'technical'\]"),
        ({"score": 0.9}, r"koniq/000042: the label 0.9 lies outside of the scale \[1, 5\] of the task technical"),
        ({"score": 5.1}, r"koniq/000042: the label 5.1 lies outside of the scale \[1, 5\] of the task technical"),
        ({"score": math.nan}, r"koniq/000042: there is no number under 'score' \(nan\)"),
        ({"raw_score": 100.5}, r"koniq/000042: raw score 100.5 lies outside of \(0.0, 100.0\)"),
        ({"raw_score": -0.5}, r"koniq/000042: raw score -0.5 lies outside of \(0.0, 100.0\)"),
        ({"raw_score": math.nan}, r"koniq/000042: raw score nan lies outside"),
        ({"raw_bounds": (100.0, 0.0)}, r"koniq/000042: raw score 60.0 lies outside of \(100.0, 0.0\)"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^row {message}"):
        row(**changes)


@pytest.mark.parametrize("changes", [{"score": 1.0}, {"score": 5.0}, {"raw_score": 0.0}, {"raw_score": 100.0}])
def test_bounds_belong_to_the_scale(changes):
    assert row(**changes).record(0)["data_source"] == "koniq"


def test_a_record_has_the_columns_verl_reads():
    assert row(details={"camera": "x"}).record(7) == {
        "data_source": "koniq",
        "prompt": [{"role": "user", "content": "<image>" + TECHNICAL.question("koniq/000042")}],
        "images": [{"bytes": b"PNG"}],
        "ability": "technical",
        "reward_model": {"style": "rule", "ground_truth": '{"score": 3.4}'},
        "extra_info": {
            "index": 7,
            "id": "koniq/000042",
            "split": "train",
            "task": "technical",
            "raw_score": 60.0,
            "raw_low": 0.0,
            "raw_high": 100.0,
            "score": 3.4,
            "scale_low": 1.0,
            "scale_high": 5.0,
            "camera": "x",
        },
    }


def test_the_label_keeps_six_decimals():
    assert json.loads(row(score=2 / 3 + 1).record(0)["reward_model"]["ground_truth"]) == {"score": 1.666667}


def test_a_record_for_supervised_training_is_the_prompt_with_its_answer():
    assert sft_record(row(), "<answer>3</answer>") == {
        "messages": [
            {"role": "user", "content": "<image>" + TECHNICAL.question("koniq/000042")},
            {"role": "assistant", "content": "<answer>3</answer>"},
        ],
        "images": [{"bytes": b"PNG"}],
        "extra_info": {"id": "koniq/000042"},
    }


# Parquet


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_all_records_are_read_back_in_order(tmp_path, monkeypatch, count):
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 3)
    assert write_parquet(iter(numbers(count)), tmp_path / "rows.parquet") == count
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == numbers(count)


def test_a_row_is_read_back_as_it_was_written(tmp_path):
    records = [row(image=bytes([number]), row_id=f"koniq/{number}").record(number) for number in range(3)]
    write_parquet(records, tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == records


def test_records_are_streamed_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 4)
    alive = 0

    def watched() -> Iterator[dict]:
        nonlocal alive
        for record in numbers(10):
            alive += 1
            yield record

    assert write_parquet(watched(), tmp_path / "rows.parquet") == alive == 10
    metadata = pq.ParquetFile(tmp_path / "rows.parquet").metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [4, 4, 2]


def test_a_group_is_written_before_the_next_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 4)
    begun = []

    def watched() -> Iterator[dict]:
        for record in numbers(5):
            begun.append((tmp_path / "rows.parquet.part").exists())
            yield record

    write_parquet(watched(), tmp_path / "rows.parquet")
    assert begun == [False, False, False, False, True]


@pytest.mark.parametrize("rows_before", [0, 1, 4, 6])
def test_an_error_midway_leaves_no_file_under_the_final_name(tmp_path, monkeypatch, rows_before):
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 4)
    with pytest.raises(OSError, match="the disk is gone"):
        write_parquet(failing_after(rows_before), tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()


def test_an_error_midway_leaves_an_earlier_file_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 4)
    write_parquet(numbers(2), tmp_path / "rows.parquet")
    with pytest.raises(OSError, match="the disk is gone"):
        write_parquet(failing_after(6), tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == numbers(2)


def test_a_finished_file_replaces_the_rest_of_one_that_was_killed(tmp_path):
    (tmp_path / "rows.parquet.part").write_bytes(b"torn")
    write_parquet(numbers(2), tmp_path / "rows.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_no_record_at_all_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="no row to write"):
        write_parquet([], tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "rows.parquet"
    write_parquet(numbers(1), path)
    assert path.exists()


def test_equal_records_give_equal_bytes(tmp_path):
    paths: list[Path] = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for path in paths:
        write_parquet(numbers(5), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
