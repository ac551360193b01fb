"""A data set that is written again, with other options, beside files of others, with images outside; and errors."""

import os
import pickle
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from data_builders import (
    MADE,
    SHARDED,
    faulty_set,
    image_file,
    prepare_made,
    rejects_of,
    rows_of,
    tree,
    whole_set,
    write_labels,
    written_at,
)
from hydra.core.override_parser.overrides_parser import OverridesParser
from image_builders import decoded, saved, smooth
from omegaconf import OmegaConf
from rich.console import Console

from omniq_verl.data.images import load_image
from omniq_verl.preparation.build import BuildOptions, Item, Source, prepare
from omniq_verl.preparation.cli import main, override
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_map import LabelMap


@pytest.fixture
def root(tmp_path: Path) -> Path:
    whole_set(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# Again


def test_a_second_run_writes_no_shard_and_changes_no_byte(tmp_path, out):
    faulty_set(tmp_path / "root")
    prepare_made(tmp_path / "root", out, *SHARDED)
    before, times = tree(out), written_at(out)
    prepare_made(tmp_path / "root", out, *SHARDED)
    assert tree(out) == before
    assert written_at(out) == times


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


def test_a_fixed_image_is_taken_in(root, out):
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
        ("train.parquet", b"mine", "train.parquet was not made by this script. Fix: move it, or give another --out"),
        ("dataset_card.json", b'{"data_source": "koniq"}', "holds another data set. Fix: choose another folder"),
        ("dataset_card.json", b"mine", "holds another data set. Fix: choose another folder"),
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
            r"none of the label files labels.csv is below it. Fix: name it with",
        ),
        (lambda root: (root / "labels.csv").write_text("a,b\n1,2\n"), "it has no column image, split, mos"),
        (
            lambda root: (root / "labels.csv").write_text("image,split,mos\n"),
            "no image was found below it, or named by a label file",
        ),
        (
            lambda root: (root / "labels.csv").write_bytes(b"image,split,mos\n000.jpg,train,\0\n"),
            "labels.csv: line 2 has a NUL character. Fix",
        ),
        (
            lambda root: (root / "labels.csv").write_bytes(b"image,split,mos\n" + b"x" * 10_000_000 + b"\n"),
            "labels.csv: line 2 has more than 1,048,576 characters. Fix",
        ),
        (
            lambda root: (root / "labels.csv").write_bytes(pickle.dumps([("000.jpg", "train", 50)])),
            "labels.csv: it is a Python pickle, which is never loaded. Fix",
        ),
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


def test_where_every_row_is_a_reject_the_first_reason_is_the_error(root, out):
    (root / "labels.csv").write_text("image,split,mos\ngone.jpg,train,50\nalso.jpg,train,50\n")
    with pytest.raises(SystemExit, match=r"no rows, all 2 were rejected; the first, made/gone.jpg: .*no such file"):
        prepare_made(root, out)


NAMES = ["plain", "my set (1)", "v=1, \u00fc", "o'clock [x]", "$HOME", "a\\b", "a\\'b", "${a}", "a\\${b}", "\\'\\'"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_to_train_with_is_read_by_shell_and_hydra(tmp_path, name):
    files = [tmp_path / name / "a.parquet", tmp_path / name / "b.parquet"]
    (word,) = shlex.split(override("data.train_files", files))
    (found,) = OverridesParser.create().parse_overrides([word])
    read = OmegaConf.create({"files": found.value()}).files  # verl resolves interpolations
    assert found.key_or_group == "data.train_files" and list(map(str, read)) == list(map(str, files))


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
def test_options_that_make_no_sense_are_rejected(root, out, options, capsys):
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
        prepare(source, FileIndex(root), out, BuildOptions(workers=2, shard_rows=2), Console(quiet=True))
    assert not (out / "train-00003-of-00006.parquet").exists() and not (out / "dataset_card.json").exists()
    for path in out.glob("*.parquet"):
        assert pq.read_metadata(path).num_rows == 2
