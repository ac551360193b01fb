"""A data set as a whole: label file and images -> rows and rejects."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from data_builders import (
    BROKEN,
    ODD,
    SHARDED,
    card_of,
    faulty_set,
    ids,
    image_file,
    prepare_items,
    prepare_made,
    rejects_of,
    rows_of,
    whole_set,
    written_at,
)
from image_builders import decoded, smooth

from omniq_verl.data.images import load_image
from omniq_verl.data.names import real_name
from omniq_verl.preparation import shards
from omniq_verl.preparation.build import Item
from omniq_verl.tasks import ALIGNMENT, TECHNICAL


@pytest.fixture
def root(tmp_path: Path) -> Path:
    whole_set(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# Rows


def test_rows_are_those_of_the_label_file_in_its_order(root, out):
    labels = whole_set(root.parent / "again")
    prepare_made(root, out)
    assert sorted(path.name for path in out.glob("*.parquet")) == ["test.parquet", "train.parquet", "val.parquet"]
    for split in ("train", "val", "test"):
        expected = [(name, float(mos)) for name, of, mos in labels if of == split]
        rows = rows_of(out, split)
        assert ids(rows) == [f"made/{name}" for name, _ in expected]
        for index, (row, (name, mos)) in enumerate(zip(rows, expected, strict=True)):
            info = row["extra_info"]
            assert (info["index"], info["split"], info["raw_score"]) == (index, split, mos)
            assert info["score"] == pytest.approx(1 + 4 * mos / 100)
            assert (info["raw_low"], info["raw_high"], json.loads(info["details"])) == (0, 100, {"mos": str(mos)})
            assert row["prompt"] == TECHNICAL.messages(f"made/{name}")
            assert row["images"] == [{"bytes": load_image(root / "images" / name)}]


def test_jpeg_and_png_keep_their_bytes_and_others_their_pixels(root, out):
    prepare_made(root, out)
    rows = [row for split in ("train", "val", "test") for row in rows_of(out, split)]
    images = {row["extra_info"]["id"]: row["images"][0]["bytes"] for row in rows}
    assert images["made/000.jpg"] == (root / "images" / "000.jpg").read_bytes()
    assert images["made/001.png"] == (root / "images" / "001.png").read_bytes()
    assert images["made/005.bmp"].startswith(b"\x89PNG")
    np.testing.assert_array_equal(decoded(images["made/005.bmp"]), smooth(29, 40, 5))


@pytest.mark.parametrize(
    ("size", "names"),
    [
        (6, ["test.parquet", "train.parquet", "val.parquet"]),
        (5, ["test.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "val.parquet"]),
        (3, ["test.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "val.parquet"]),
    ],
)
def test_a_split_is_cut_into_files_of_so_many_rows(root, out, size, names):
    prepare_made(root, out, "--shard-rows", str(size))
    assert sorted(written_at(out)) == names
    rows = rows_of(out, "train")
    assert [row["extra_info"]["index"] for row in rows] == list(range(6))
    assert ids(rows) == [f"made/{image_file(number)[0]}" for number in (0, 2, 4, 6, 8, 10)]


def test_row_groups_hold_so_many_bytes_or_one_image(root, out, monkeypatch):
    prepare_made(root, out)
    expected = rows_of(out, "train")
    sizes = [len(row["images"][0]["bytes"]) for row in expected]
    monkeypatch.setattr(shards, "GROUP_BYTES", max(sizes) - 1)
    prepare_made(root, out, "--decode")  # for it to be written anew
    metadata = pq.ParquetFile(out / "train.parquet").metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert rows_of(out, "train") == expected
    assert sum(groups) == len(sizes) and len(groups) > 2
    ends = np.cumsum(groups)
    for end, count in zip(ends, groups, strict=True):
        assert count == 1 or sum(sizes[end - count : end]) < max(sizes)
    monkeypatch.setattr(shards, "GROUP_ROWS", 1)
    prepare_made(root, out)
    assert pq.ParquetFile(out / "train.parquet").metadata.num_row_groups == len(sizes)
    assert rows_of(out, "train") == expected


def test_another_task_and_scale_are_asked_for_by_options(root, out):
    prepare_made(root, out, "--task", "alignment", "--scale", "0-5")
    for row in rows_of(out, "train"):
        info = row["extra_info"]
        assert (info["task"], info["text"], info["scale_low"], info["scale_high"]) == ("alignment", "a car", 0, 5)
        assert info["score"] == pytest.approx(5 * info["raw_score"] / 100)
        assert row["prompt"][0]["content"].count('"a car"') == 1
    assert rows_of(out, "train")[0]["ability"] == ALIGNMENT.name
    assert card_of(out)["label_map"]["scale"] == [0.0, 5.0]


def test_a_data_set_of_degradations_has_no_scores(root, out):
    names = [image_file(number)[0] for number in range(3)]
    said = [("blur", "slight"), (None, None), ("haze", "slight")]
    pairs = zip(names, said, strict=True)
    items = [Item(name, "train", distortion=kind, severity=level) for name, (kind, level) in pairs]
    card = prepare_items(root, out, items, "degradation")
    truths = [json.loads(row["reward_model"]["ground_truth"]) for row in rows_of(out, "train")]
    assert truths == [{"distortion_class": kind, "severity": level} for kind, level in said[:2]]
    assert (card["label_map"], card["rejects"]) == (None, {"all": 1, "label": 1})
    assert "scores" not in card and not (out / "scores.png").exists()


# Rejects


def test_every_fault_is_one_reject_with_its_reason_and_nothing_else_is_lost(tmp_path, out):
    lines = faulty_set(tmp_path / "root")
    prepare_made(tmp_path / "root", out)
    rejects = rejects_of(out)
    found = {reject["row_id"]: reject["reason"] for reject in rejects}
    expected = {f"made/{label[0]}": reason for label, reason in lines if reason and "duplicate" not in reason}
    assert {row_id: found[row_id][: len(reason)] for row_id, reason in expected.items()} == expected
    assert sum("duplicate" in reject["reason"] for reject in rejects) == 3
    assert len(rejects) == len(BROKEN) + len(ODD)
    rows = [row for split in ("train", "val", "test") for row in rows_of(out, split)]
    assert sorted(ids(rows)) == sorted(f"made/{label[0]}" for label, reason in lines if reason is None)
    assert len(rows) + len(rejects) == len(lines)
    # None was put in another's place.
    for row in rows:
        name = row["extra_info"]["id"].removeprefix("made/")
        assert row["images"][0]["bytes"] == load_image(tmp_path / "root" / "images" / name)


def test_rejects_name_the_file_where_there_is_one(tmp_path, out):
    faulty_set(tmp_path / "root")
    prepare_made(tmp_path / "root", out)
    images = {reject["row_id"]: reject["image"] for reject in rejects_of(out)}
    assert images["made/cut.jpg"] == "images/cut.jpg"
    assert images["made/gone.jpg"] == "gone.jpg"


def test_the_last_line_counts_rows_and_rejects_by_their_kind(tmp_path, out, capsys):
    faulty_set(tmp_path / "root")
    prepare_made(tmp_path / "root", out)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "made: 12 rows, 27 rejects (duplicate 3, image 12, label 6, path 6; see rejects.jsonl)"
    assert card_of(out)["rejects"] == {"all": 27, "duplicate": 3, "image": 12, "label": 6, "path": 6}


def test_without_rejects_the_last_line_says_so_and_the_lines_before_it_how_to_train(root, out, capsys):
    prepare_made(root, out, "--shard-rows", "4", "--strict")
    names = [out / "train-00000-of-00002.parquet", out / "train-00001-of-00002.parquet"]
    assert capsys.readouterr().out.splitlines() == [
        f"data.train_files=[{names[0]},{names[1]}]",
        f"data.val_files=[{out / 'val.parquet'}]",
        f"test: {out / 'test.parquet'}",
        "made: 12 rows, 0 rejects",
    ]
    assert (out / "rejects.jsonl").read_bytes() == b""


def test_a_test_set_is_never_offered_for_validation(root, out, capsys):
    labels = root / "labels.csv"
    labels.write_text(labels.read_text().replace(",val,", ",train,"))
    prepare_made(root, out)
    printed = capsys.readouterr().out
    assert "val_files" not in printed and f"test: {out / 'test.parquet'}" in printed
    assert "there is no validation split" in printed


def test_strict_makes_a_reject_an_error_after_all_is_written(root, out, capsys):
    (root / "images" / "000.jpg").unlink()
    with pytest.raises(SystemExit, match=r"--strict: 1 rejects, see .*rejects.jsonl"):
        prepare_made(root, out, "--strict")
    assert capsys.readouterr().out.splitlines()[-1].startswith("made: 11 rows, 1 rejects (image 1;")
    assert len(rows_of(out, "train")) == 5 and len(rejects_of(out)) == 1


def test_a_reject_leaves_a_gap_in_the_numbers_of_its_split(root, out):
    (root / "images" / "004.png").write_bytes(b"broken")
    prepare_made(root, out, *SHARDED)
    assert [row["extra_info"]["index"] for row in rows_of(out, "train")] == [0, 1, 3, 4, 5]


def test_a_file_of_rejects_alone_is_a_table_without_rows(root, out):
    for number in (1, 5, 9):
        (root / "images" / image_file(number)[0]).write_bytes(b"broken")
    prepare_made(root, out)
    assert rows_of(out, "val") == []
    assert pq.read_schema(out / "val.parquet") == pq.read_schema(out / "train.parquet")


@pytest.mark.parametrize("name", ["half \ud83d.jpg", "raw \udce9.jpg", "line\nend \u2028 \x1b.jpg"])
def test_a_name_of_any_characters_is_one_line_of_json(root, out, name):
    prepare_items(root, out, [Item("000.jpg", "train", 3.0), Item(name, "train", 3.0)])
    (reject,) = rejects_of(out)
    assert (real_name(reject["image"]), reject["reason"]) == (name, "image: there is no such file")
    assert reject["image"].encode()  # what no UTF-8 could hold would not get this far


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item(3.0, "train", 3.0), "label: the image's name is 3.0, no text"),
        (Item(None, "train", 3.0), "label: the image's name is None, no text"),
        (Item("000.jpg", "train", "3.0"), "label: the score '3.0' is not a number"),
        (Item("000.jpg", "train", "#REF!"), "label: the score '#REF!' is not a number"),
        (Item("000.jpg", "train", None), "label: the score None is not a number"),
        (Item("000.jpg", None, 3.0), "label: None is not the name of a split"),
        (Item("000.jpg", "", 3.0), "label: '' is not the name of a split"),
        (Item("000.jpg", "a/b", 3.0), "label: 'a/b' is not the name of a split"),
        (Item("000.jpg", "train", 3.0, text="an <image>"), "label: its text contains <image>"),
        (Item("000.jpg", "train", 3.0, fault="made up"), "label: made up"),
    ],
)
def test_what_a_reader_should_not_have_passed_on_is_a_reject_all_the_same(root, out, item, reason):
    prepare_items(root, out, [Item("001.png", "train", 3.0), item])
    (reject,) = rejects_of(out)
    assert reject["reason"].startswith(reason)
    assert ids(rows_of(out, "train")) == ["made/001.png"]


def test_of_an_image_that_is_named_twice_the_first_line_counts(root, out):
    prepare_items(root, out, [Item("000.jpg", "train", 10.0), Item("000.jpg", "train", 90.0)])
    assert [row["extra_info"]["raw_score"] for row in rows_of(out, "train")] == [10.0]
