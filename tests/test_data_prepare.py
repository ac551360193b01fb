"""A data set as a whole: label file and images -> shards, rejects, card and histogram, however often it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from data_builders import (
    BROKEN,
    MADE,
    ODD,
    faulty_set,
    image_file,
    prepare_made,
    rejects_of,
    rows_of,
    tree,
    whole_set,
    write_labels,
)
from image_builders import decoded, saved, smooth
from rich.console import Console
from xxhash import xxh3_128

from omniq_verl.data import shards
from omniq_verl.data.command import main
from omniq_verl.data.images import load_image
from omniq_verl.data.label_map import LabelMap
from omniq_verl.data.paths import FileIndex
from omniq_verl.data.prepare import How, Item, Source, prepare
from omniq_verl.tasks import ALIGNMENT, TECHNICAL

SCRIPT = Path(__file__).with_name("data_builders.py")
SHARDED = ("--shard-rows", "2")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    whole_set(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def ids(rows: list[dict]) -> list[str]:
    return [row["extra_info"]["id"] for row in rows]


def card_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "dataset_card.json").read_text())


def written_at(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


def prepare_items(root: Path, out: Path, items: list[Item], task: str = "technical") -> dict[str, Any]:
    labels = LabelMap(0.0, 100.0, "x") if task != "degradation" else None
    return prepare(Source("made", task, items, labels), FileIndex(root), out, How(), Console(quiet=True))


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
    monkeypatch.setattr(shards, "_GROUP_BYTES", max(sizes) - 1)
    prepare_made(root, out, "--decode")  # for it to be written anew
    metadata = pq.ParquetFile(out / "train.parquet").metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert rows_of(out, "train") == expected
    assert sum(groups) == len(sizes) and len(groups) > 2
    ends = np.cumsum(groups)
    for end, count in zip(ends, groups, strict=True):
        assert count == 1 or sum(sizes[end - count : end]) < max(sizes)
    monkeypatch.setattr(shards, "_GROUP_ROWS", 1)
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
    assert printed[-1] == "made: 12 rows, 25 rejects (duplicate 3, image 10, label 6, path 6; see rejects.jsonl)"
    assert card_of(out)["rejects"] == {"all": 25, "duplicate": 3, "image": 10, "label": 6, "path": 6}


def test_without_rejects_the_last_line_says_so_and_the_lines_before_it_how_to_train(root, out, capsys):
    prepare_made(root, out, "--shard-rows", "4", "--strict")
    names = [out / "train-00000-of-00002.parquet", out / "train-00001-of-00002.parquet"]
    assert capsys.readouterr().out.splitlines() == [
        f"data.train_files=[{names[0]},{names[1]}]",
        f"data.val_files=[{out / 'val.parquet'}]",
        f"data.val_files=[{out / 'test.parquet'}]",
        "made: 12 rows, 0 rejects",
    ]
    assert (out / "rejects.jsonl").read_bytes() == b""


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
    assert (reject["image"], reject["reason"]) == (name, "image: there is no such file")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item(3.0, "train", 3.0), "label: the image's name is 3.0, no text"),
        (Item(None, "train", 3.0), "label: the image's name is None, no text"),
        (Item("000.jpg", "train", "3.0"), "label: the score '3.0' is no number"),
        (Item("000.jpg", "train", "#REF!"), "label: the score '#REF!' is no number"),
        (Item("000.jpg", "train", None), "label: the score None is no number"),
        (Item("000.jpg", None, 3.0), "label: None is no name of a split"),
        (Item("000.jpg", "", 3.0), "label: '' is no name of a split"),
        (Item("000.jpg", "a/b", 3.0), "label: 'a/b' is no name of a split"),
        (Item("000.jpg", "train", 3.0, text="an <image>"), "label: <image> in its text would stand for an image"),
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


# Card and histogram


def test_the_card_says_what_was_made_and_how(root, out):
    prepare_made(root, out, *SHARDED)
    card = card_of(out)
    assert (card["data_source"], card["task"], card["rows"]) == ("made", "technical", 12)
    assert (card["splits"], card["licence"], card["options"]) == ("column `split`", "none", {})
    assert card["label_map"] == {
        **{"raw": [0.0, 100.0], "scale": [1.0, 5.0]},
        **{"higher_is_better": True, "source": "the range of its sliders"},
    }
    # Twelve scores in equal steps of 4 / 11: their variance is that step's square times 143 / 12.
    assert card["scores"] == {"lowest": 1.0, "highest": 5.0, "mean": 3.0, "standard_deviation": 1.255292}
    assert list(card["files"]) == [f"train-0000{n}-of-00003.parquet" for n in range(3)] + [
        f"{split}-0000{n}-of-00002.parquet" for split in ("val", "test") for n in range(2)
    ]
    for name, about in card["files"].items():
        assert about == {
            "rows": pq.read_metadata(out / name).num_rows,
            "xxh128": xxh3_128((out / name).read_bytes()).hexdigest(),
        }


def test_the_histogram_shows_the_scores(root, out):
    prepare_made(root, out)
    picture = decoded((out / "scores.png").read_bytes())
    assert min(picture.shape[:2]) > 300 and picture.std() > 10
    before = (out / "scores.png").read_bytes()
    write_labels(root, [(image_file(number)[0], "train", "50") for number in range(12)])
    prepare_made(root, out)
    assert (out / "scores.png").read_bytes() != before


# Again


def test_a_second_run_writes_no_shard_and_changes_no_byte(tmp_path, out):
    faulty_set(tmp_path / "root")
    prepare_made(tmp_path / "root", out, *SHARDED)
    before, times = tree(out), written_at(out)
    prepare_made(tmp_path / "root", out, *SHARDED)
    assert tree(out) == before
    assert written_at(out) == times


def test_two_folders_have_the_same_bytes(root, tmp_path):
    for name in ("one", "two"):
        prepare_made(root, tmp_path / name, *SHARDED)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_changed_label_rewrites_its_shard_alone(root, out):
    labels = whole_set(root.parent / "again")
    prepare_made(root, out, *SHARDED)
    times = written_at(out)
    labels[6] = (labels[6][0], "train", "7.25")  # the fourth of the training rows
    write_labels(root, labels)
    prepare_made(root, out, *SHARDED)
    changed = {name for name, moment in written_at(out).items() if moment != times[name]}
    assert changed == {"train-00001-of-00003.parquet"}
    assert [row["extra_info"]["raw_score"] for row in rows_of(out, "train")][3] == 7.25


def test_a_mended_image_is_taken_in(root, out):
    path = root / "images" / "000.jpg"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    prepare_made(root, out, *SHARDED)
    assert len(rejects_of(out)) == 1
    path.write_bytes(data)
    prepare_made(root, out, *SHARDED)
    assert rejects_of(out) == []
    assert rows_of(out, "train")[0]["images"] == [{"bytes": data}]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda out: (out / "train-00000-of-00003.parquet").unlink(), "a shard is gone"),
        (lambda out: os.truncate(out / "train-00000-of-00003.parquet", 1000), "a shard is cut"),
        (lambda out: (out / ".shards" / "train-00000-of-00003.parquet.json").write_text('{"ma'), "what is said is cut"),
        (lambda out: (out / ".shards" / "train-00000-of-00003.parquet.json").write_text("[]"), "what is said is odd"),
        (lambda out: (out / "train-00000-of-00003.parquet.77.part").write_bytes(b"torn"), "a killed run's rest"),
        (lambda out: (out / ".shards" / "x.json.77.part").write_bytes(b"torn"), "and what it would have said"),
        (lambda out: (out / "rejects.jsonl").write_text("torn"), "rejects are cut"),
    ],
)
def test_what_is_damaged_is_written_again(root, out, damage, reason):
    prepare_made(root, out, *SHARDED)
    before = tree(out)
    damage(out)
    prepare_made(root, out, *SHARDED)
    assert tree(out) == before, reason


@pytest.mark.parametrize("options", [("--shard-rows", "5"), ("--images", "path"), ("--scale", "0-5"), ("--decode",)])
def test_other_options_leave_nothing_of_the_ones_before(root, out, tmp_path, options):
    prepare_made(root, out, *SHARDED)
    prepare_made(root, out, *SHARDED, *options)
    changed = tree(out)
    out.rename(tmp_path / "other")
    prepare_made(root, out, *SHARDED, *options)
    assert tree(out) == changed


def test_a_split_that_is_no_more_is_taken_out(root, out):
    prepare_made(root, out)
    write_labels(root, [(image_file(number)[0], "train", "50") for number in range(12)])
    prepare_made(root, out)
    assert list(written_at(out)) == ["train.parquet"]


def test_files_of_others_are_left_alone(root, out):
    out.mkdir()
    mine = {"mine.parquet": b"mine", "images/mine.png": b"mine", "notes.txt": b"mine"}
    (out / "images").mkdir()
    for name, data in mine.items():
        (out / name).write_bytes(data)
    prepare_made(root, out, *SHARDED)
    prepare_made(root, out)
    assert {name: (out / name).read_bytes() for name in mine} == mine


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train.parquet", b"mine", "train.parquet was not made by this script. Mend: move it, or give another --out"),
        ("dataset_card.json", b'{"data_source": "koniq"}', "holds another data set. Mend: give this one a folder"),
        ("dataset_card.json", b"mine", "holds another data set. Mend: give this one a folder"),
    ],
)
def test_files_of_others_under_the_same_names_are_not_overwritten(root, out, name, data, message):
    out.mkdir()
    (out / name).write_bytes(data)
    with pytest.raises(SystemExit, match=message):
        prepare_made(root, out)
    assert tree(out) == {name: data}


# Images that stay outside


def test_rows_may_name_their_images(root, out):
    prepare_made(root, out, "--images", "path")
    rows = [row for split in ("train", "val", "test") for row in rows_of(out, split)]
    images = {row["extra_info"]["id"].removeprefix("made/"): Path(row["images"][0]["image"]) for row in rows}
    assert all(row["images"][0].keys() == {"image"} for row in rows)
    assert images["000.jpg"] == root / "images" / "000.jpg"
    assert images["001.png"] == root / "images" / "001.png"
    for name in ("002.png", "005.bmp"):  # with alpha; no JPEG nor PNG
        assert images[name].parent == out / "converted"
        assert images[name].read_bytes() == load_image(root / "images" / name)
    assert len(list((out / "converted").iterdir())) == 4


def test_two_runs_with_named_images_are_the_same(root, out):
    prepare_made(root, out, "--images", "path", *SHARDED)
    before, times = tree(out), written_at(out)
    prepare_made(root, out, "--images", "path", *SHARDED)
    assert (tree(out), written_at(out)) == (before, times)


def test_a_copy_is_named_after_its_bytes_so_that_it_is_never_out_of_date(root, out):
    prepare_made(root, out, "--images", "path")
    before = set((out / "converted").iterdir())
    (root / "images" / "005.bmp").write_bytes(saved(smooth(seed=99), "BMP"))
    prepare_made(root, out, "--images", "path")
    (new,) = set((out / "converted").iterdir()) - before
    assert rows_of(out, "val")[1]["images"] == [{"image": str(new)}]
    np.testing.assert_array_equal(decoded(new.read_bytes()), smooth(seed=99))


def test_named_images_are_found_from_any_folder(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_made(Path("root"), Path("out"), "--images", "path")
    paths = [row["images"][0]["image"] for row in rows_of(tmp_path / "out", "train")]
    assert all(path.startswith(str(tmp_path)) and Path(path).exists() for path in paths)


# Errors


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda root: (root / "labels.csv").unlink(),
            r"none of the label files labels.csv is below it. Mend: name it by",
        ),
        (lambda root: (root / "labels.csv").write_text("a,b\n1,2\n"), "it has no column image, split, mos"),
        (lambda root: (root / "labels.csv").write_text("image,split,mos\n"), "the label file names no image. Mend"),
        (
            lambda root: root.rename(root.with_name("gone")),
            "root: there is no such folder; name the data set's with --root",
        ),
    ],
)
def test_a_label_file_that_cannot_be_used_is_one_clear_error(root, out, break_it, message):
    break_it(root)
    with pytest.raises(SystemExit, match=message):
        prepare_made(root, out)
    assert not list(out.glob("*.parquet"))


def test_a_label_file_that_is_a_link_to_elsewhere_is_not_followed(root, out, tmp_path):
    (root / "labels.csv").rename(tmp_path / "secret.csv")
    (root / "labels.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(SystemExit, match=r"'labels.csv' is a link to outside of the root"):
        prepare_made(root, out)
    prepare_made(root, out, "--labels", str(tmp_path / "secret.csv"))  # it may be named
    assert len(rows_of(out, "train")) == 6


@pytest.mark.parametrize(
    "options", [("--workers", "0"), ("--workers", "-1"), ("--shard-rows", "0"), ("--engine", "x"), ("--scale", "1-3")]
)
def test_options_that_make_no_sense_are_refused(root, out, options, capsys):
    with pytest.raises(SystemExit):
        main(MADE, "doc", ["--root", str(root), "--out", str(out), *options])
    assert f"argument {options[0]}" in capsys.readouterr().err
    assert not out.exists()


def test_an_error_in_a_worker_ends_the_run_and_leaves_no_torn_shard(root, out):
    items = [
        Item(image_file(number)[0], "train", 3.0, details={"x": {1} if number == 7 else 1}) for number in range(12)
    ]
    source = Source("made", "technical", items, LabelMap(0.0, 100.0, "x"))
    with pytest.raises(TypeError, match="set is not JSON"):
        prepare(source, FileIndex(root), out, How(workers=2, shard_rows=2), Console(quiet=True))
    assert not (out / "train-00003-of-00006.parquet").exists() and not (out / "dataset_card.json").exists()
    for path in out.glob("*.parquet"):
        assert pq.read_metadata(path).num_rows == 2


# Processes


def command(root: Path, out: Path, workers: int) -> list[str]:
    options = ["--root", str(root), "--out", str(out), "--workers", str(workers), *SHARDED]
    return [sys.executable, str(SCRIPT), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}


def run_script(root: Path, out: Path, workers: int = 1) -> str:
    result = subprocess.run(
        command(root, out, workers), env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    faulty_set(tmp_path / "root", 30)
    trees, lines = [], []
    for workers in (1, 2, 4):
        out = tmp_path / f"out{workers}"
        lines.append(run_script(tmp_path / "root", out, workers).splitlines()[-1])
        trees.append(tree(out))
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) > 30
    assert lines[0] == lines[1] == lines[2]


def kill_midway(root: Path, out: Path, workers: int, seconds: float) -> bool:
    """Start the script and kill it so long after it begins to write; returns whether it was still at it."""
    process = subprocess.Popen(
        command(root, out, workers), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (out / ".shards").exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(seconds)
    found = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(found, timeout=20)
    assert not alive, "workers outlive a killed program"
    return killed


def seconds_of_writing(root: Path, out: Path, workers: int) -> float:
    process = subprocess.Popen(command(root, out, workers), env=environment(), stdout=subprocess.DEVNULL)
    while not (out / ".shards").exists():
        time.sleep(0.002)
    started = time.perf_counter()
    assert process.wait() == 0
    return time.perf_counter() - started


def test_a_run_that_was_killed_is_taken_up_where_it_was(tmp_path):
    faulty_set(tmp_path / "root")
    run_script(tmp_path / "root", tmp_path / "undisturbed")
    out = tmp_path / "killed"
    assert kill_midway(tmp_path / "root", out, 1, 0.0)
    assert tree(out) != tree(tmp_path / "undisturbed")
    run_script(tmp_path / "root", out)
    assert tree(out) == tree(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(tmp_path, workers):
    faulty_set(tmp_path / "root", 90)
    length = seconds_of_writing(tmp_path / "root", tmp_path / "undisturbed", workers)
    expected = tree(tmp_path / "undisturbed")
    killed, unfinished = 0, 0
    for moment in np.random.default_rng(workers).uniform(0, length, 10):
        out = tmp_path / "killed"
        killed += kill_midway(tmp_path / "root", out, workers, moment)
        unfinished += tree(out) != expected
        run_script(tmp_path / "root", out, workers)
        assert tree(out) == expected
        out.rename(tmp_path / f"done at {moment}")
    # The machine may be busier at one time than at another, but not so much that nothing was disturbed.
    assert killed >= 5 and unfinished >= 5


@pytest.mark.slow
def test_killed_again_and_again_it_still_comes_to_an_end(tmp_path):
    faulty_set(tmp_path / "root", 90)
    length = seconds_of_writing(tmp_path / "root", tmp_path / "undisturbed", 2)
    for moment in np.random.default_rng(0).uniform(0, length / 3, 4):
        kill_midway(tmp_path / "root", tmp_path / "killed", 2, moment)
    run_script(tmp_path / "root", tmp_path / "killed", 2)
    assert tree(tmp_path / "killed") == tree(tmp_path / "undisturbed")


# VmHWM and not ru_maxrss: that one starts at the parent's, this test process's own, and goes over exec.
PEAK = """
import sys
from pathlib import Path
from data_builders import prepare_made
prepare_made(Path(sys.argv[1]), Path(sys.argv[2]), "--shard-rows", "1000")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (420, 420, 3), dtype=np.uint8)
    data = saved(pixels, "PNG")
    assert 500_000 < len(data) < 600_000
    peaks = []
    for count in (150, 900):
        root = tmp_path / f"root{count}"
        (root / "images").mkdir(parents=True)
        (root / "images" / "0.png").write_bytes(data)
        for number in range(1, count):
            os.link(root / "images" / "0.png", root / "images" / f"{number}.png")
        write_labels(root, [(f"{number}.png", "train", "50") for number in range(count)])
        paths = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parents[1])])
        result = subprocess.run(
            [sys.executable, "-c", PEAK, str(root), str(tmp_path / f"out{count}")],
            **{"env": {**os.environ, "PYTHONPATH": paths}, "capture_output": True, "text": True, "check": True},
        )
        peaks.append(int(result.stdout.splitlines()[-1]) / 1024)
    # MiB; the images that were added are 400.
    assert peaks[1] < 600 and peaks[1] - peaks[0] < 30
