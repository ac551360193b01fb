"""Rows and the parquet files they are written into."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omniq_verl.data import parquet
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row, schema, sft_record
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.tasks import TECHNICAL, Scale

ON_FIVE = Scale(0.0, 5.0)


def row(**changes: Any) -> Row:
    values = {
        "data_source": "koniq",
        "row_id": "koniq/000042",
        "task": "technical",
        "score": 3.4,
        "raw_score": 60.0,
        "raw_bounds": (0.0, 100.0),
        "split": "train",
    }
    return Row(**{**values, **changes})


def compared(reference: bool = False) -> Row:
    task = "q_insight_comparison" + "_reference" * reference
    return row(task=task, score=None, raw_score=None, raw_bounds=None, choice="second")


def numbers(count: int) -> list[dict]:
    return [{"number": number, "text": f"row {number}"} for number in range(count)]


def failing_after(count: int) -> Iterator[dict]:
    yield from numbers(count)
    raise OSError("the disk is gone")


# Rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "beauty"},
            r"koniq/000042: task is 'beauty', an unknown task. Fix: name one of technical, aesthetic, alignment, ",
        ),
        ({"score": 0.9}, r"koniq/000042: the label 0.9 is outside the scale \[1, 5\] of the task technical"),
        ({"score": 5.1}, r"koniq/000042: the label 5.1 is outside the scale \[1, 5\] of the task technical"),
        ({"score": math.nan}, r"koniq/000042: there is no number under 'score' \(nan\)"),
        ({"raw_score": 100.5}, r"koniq/000042: raw score 100.5 is outside \(0.0, 100.0\)"),
        ({"raw_score": -0.5}, r"koniq/000042: raw score -0.5 is outside \(0.0, 100.0\)"),
        ({"raw_score": math.nan}, r"koniq/000042: raw score nan is outside"),
        ({"raw_score": None}, r"koniq/000042: it has raw_bounds but no raw_score. Fix: give both, or neither"),
        ({"raw_bounds": (100.0, 0.0)}, r"koniq/000042: raw score 60.0 is outside \(100.0, 0.0\)"),
        ({"scale": ON_FIVE, "score": 5.1}, r"koniq/000042: the label 5.1 is outside the scale \[0, 5\]"),
        ({"score": None}, r"koniq/000042: there is no number under 'score' \(None\)"),
        ({"task": "degradation", "distortion": "haze"}, r"koniq/000042: distortion_class is 'haze'"),
        ({"task": "q_insight_comparison"}, r"koniq/000042: choice is None; known: first, second"),
        ({"task": "q_insight_comparison", "choice": "A"}, r"koniq/000042: choice is 'A'; known: first, second"),
        ({"task": "alignment"}, r"koniq/000042: the task alignment needs the prompt of the image"),
        ({"task": "alignment", "text": " \n"}, r"koniq/000042: the task alignment needs the prompt of the image"),
        ({"task": "alignment", "text": "an <image>"}, "koniq/000042: its text contains <image>"),
        ({"text": "a <video> nobody asks about"}, "koniq/000042: its text contains <video>"),
        ({"text": "half a smile \ud83d"}, "koniq/000042: its text contains half a character"),
        ({"row_id": "koniq/\ud83d.jpg"}, r"koniq/\ud83d.jpg: its name contains half a character"),
    ],
)
def test_a_row_that_makes_no_sense_is_rejected_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^row {message}"):
        row(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        *({"score": 1.0}, {"score": 5.0}, {"raw_score": 0.0}, {"raw_score": 100.0}),
        *({"score": 0.0, "scale": ON_FIVE}, {"score": 5.0, "scale": ON_FIVE}),
    ],
)
def test_bounds_belong_to_the_scale(changes):
    assert row(**changes).record(0, b"PNG")["data_source"] == "koniq"


def test_a_scale_for_a_task_that_asks_for_no_score_is_rejected():
    with pytest.raises(ValueError, match="the task degradation has no score"):
        row(task="degradation", scale=ON_FIVE)


def test_a_record_has_the_columns_verl_reads():
    assert row(details={"camera": "x", "age": 3}).record(7, b"PNG") == {
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
            "text": None,
            "details": '{"age": 3, "camera": "x"}',
        },
    }


def test_a_record_on_another_scale_asks_on_it_and_says_so():
    record = row(scale=ON_FIVE, score=0.5).record(0, b"PNG")
    assert "from 0 (bad) to 5 (excellent)" in record["prompt"][0]["content"]
    assert (record["extra_info"]["scale_low"], record["extra_info"]["scale_high"]) == (0.0, 5.0)


def test_a_record_about_a_degradation_has_its_names_and_no_score():
    made = row(task="degradation", score=None, raw_score=None, raw_bounds=None, distortion="blur", severity="slight")
    record = made.record(0, b"PNG")
    assert json.loads(record["reward_model"]["ground_truth"]) == {"distortion_class": "blur", "severity": "slight"}
    empty = ("score", "scale_low", "scale_high", "raw_score", "raw_low", "raw_high")
    assert [record["extra_info"][name] for name in empty] == [None] * len(empty)


def test_a_record_about_a_prompt_has_it_in_its_question():
    record = row(task="alignment", text='a "red" {car}').record(0, b"PNG")
    assert '"a "red" {car}"' in record["prompt"][0]["content"]
    assert record["extra_info"]["text"] == 'a "red" {car}'


def test_an_image_that_stays_outside_is_named_by_its_file():
    assert row().record(0, "/data/koniq/1.jpg")["images"] == [{"image": "/data/koniq/1.jpg"}]


def test_the_label_keeps_six_decimals():
    record = row(score=2 / 3 + 1).record(0, b"PNG")
    assert json.loads(record["reward_model"]["ground_truth"]) == {"score": 1.666667}


def test_a_record_for_supervised_training_is_the_prompt_with_its_answer():
    assert sft_record(row(), b"PNG", "<answer>3</answer>") == {
        "messages": [
            {"role": "user", "content": "<image>" + TECHNICAL.question("koniq/000042")},
            {"role": "assistant", "content": "<answer>3</answer>"},
        ],
        "images": [{"bytes": b"PNG"}],
        "extra_info": {"id": "koniq/000042"},
    }


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"task": "alignment", "text": "a car"},
        {"task": "degradation", "score": None, "raw_score": None, "raw_bounds": None},
        {"details": {"nested": [1, {"a": None}]}},
    ],
    ids=["score", "text", "degradation", "details"],
)
def test_one_schema_keeps_rows_of_every_task(embedded, changes):
    record = row(**changes).record(3, b"PNG" if embedded else "a.png")
    table = pa.Table.from_pylist([record], schema=schema(embedded))
    assert table.to_pylist() == [record]


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("embedded", [False, True])
def test_a_comparison_keeps_its_images_in_their_order_in_the_same_schema(embedded, reference):
    images = [b"R", b"A", b"B"][not reference :] if embedded else ["r.png", "a.png", "b.png"][not reference :]
    record = compared(reference).record(3, *images)
    assert [*record["images"]] == [{"bytes" if embedded else "image": image} for image in images]
    assert record["reward_model"]["ground_truth"] == '{"choice": "second"}'
    assert sum(turn["content"].count("<image>") for turn in record["prompt"]) == len(images)
    table = pa.Table.from_pylist([record], schema=schema(embedded))
    assert table.to_pylist() == [record]


@pytest.mark.parametrize(("made", "count"), [(compared(), 1), (compared(), 3), (compared(True), 2), (row(), 2)])
def test_a_row_has_as_many_images_as_its_task_is_about(made, count):
    with pytest.raises(ValueError, match=f"is about {made.asked.images} images, not {count}"):
        made.record(0, *[b"PNG"] * count)


# Label maps


@pytest.mark.parametrize(
    ("labels", "raw", "scale", "score", "reason"),
    [
        (LabelMap(0.0, 100.0, "x"), 0.0, None, 1.0, "the lower end"),
        (LabelMap(0.0, 100.0, "x"), 100.0, None, 5.0, "the upper end"),
        (LabelMap(0.0, 100.0, "x"), 25.0, None, 2.0, "a quarter of the way"),
        (LabelMap(0.0, 100.0, "x"), 25, None, 2.0, "a whole number"),
        (LabelMap(0.0, 100.0, "x", higher_is_better=False), 25.0, None, 4.0, "less is better, as in DMOS"),
        (LabelMap(0.0, 100.0, "x", higher_is_better=False), 0.0, None, 5.0, "its best end"),
        (LabelMap(-3.0, 3.0, "x"), 0.0, ON_FIVE, 2.5, "the middle, on another scale"),
        (LabelMap(1.0, 10.0, "x"), 10.0 + 1e-9, None, 5.0, "beyond the end by rounding"),
    ],
)
def test_a_label_map_is_the_line_through_both_ends(labels, raw, scale, score, reason):
    fields = labels.fields(raw, "technical", scale)
    assert fields["score"] == pytest.approx(score, abs=1e-12), reason
    assert fields["raw_bounds"] == (labels.low, labels.high)
    assert type(fields["raw_score"]) is float and labels.low <= fields["raw_score"] <= labels.high


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (100.001, r"the score 100.001 is outside \[0, 100\]"),
        (-1, r"the score -1 is outside \[0, 100\]"),
        (math.nan, "the score nan is outside"),
        (math.inf, "the score inf is outside"),
        (None, "the score None is not a number"),
        ("3.5", "the score '3.5' is not a number"),
        ("#REF!", "the score '#REF!' is not a number"),
        (True, "the score True is not a number"),
    ],
)
def test_a_label_that_is_not_a_number_within_the_bounds_is_rejected(raw, message):
    with pytest.raises(ValueError, match=message):
        LabelMap(0.0, 100.0, "x").fields(raw, "technical", None)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_a_label_map_needs_a_lower_and_an_upper_end(low, high):
    with pytest.raises(ValueError, match="low < high"):
        LabelMap(low, high, "x")


# Parquet


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_all_records_are_read_back_in_order(tmp_path, monkeypatch, count):
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 3)
    assert write_parquet(iter(numbers(count)), tmp_path / "rows.parquet") == count
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == numbers(count)


def test_a_row_is_read_back_as_it_was_written(tmp_path):
    records = [row(row_id=f"koniq/{number}").record(number, bytes([number])) for number in range(3)]
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
    with pytest.raises(ValueError, match="no rows to write"):
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
