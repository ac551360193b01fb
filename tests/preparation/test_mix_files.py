"""Joint training sets on the disk: what is rejected, taken up again, and how much memory it takes."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from mix_builders import TAKE, mixed, part, rejected, three_parts
from PIL import Image
from rich.console import Console

from data_prep import dq495k, manifest
from omniq_verl import console
from omniq_verl.preparation import mix as module
from omniq_verl.preparation import shards
from omniq_verl.preparation.cli import main as prepare
from omniq_verl.preparation.mix import mix, plan_mix


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return three_parts(tmp_path)


# What is rejected, before anything is written


def test_more_rows_than_there_are_is_an_error_unless_all_are_asked_for(root):
    given = ("--root", str(root), "--out", str(root / "out"), "--take", "koniq=41")
    assert "koniq: 41 rows are wanted, but it has 40 for training" in rejected(*given)
    assert not (root / "out").exists()
    _, rows = mixed(root, root / "out", "--take", "koniq=41", "--all-if-fewer")
    assert len(rows) == 40


@pytest.mark.parametrize(
    ("take", "message", "why"),
    [
        (["spaq=3"], "spaq: there is no prepared data set", "no such folder"),
        (["koniq=3", "koniq=4"], "--take names a data set twice", "which of the two?"),
        (["koniq=3", "copy=4"], "technical/koniq/00000.png is in koniq and in copy", "the same rows under two names"),
        (["koniq=3", "outside=4"], "others (outside) names of files", "a file has one form of images"),
        (["lost=3"], "lost/train.parquet: the card names it, but it is not there", "a file is gone"),
        (["changed=3"], "changed/train.parquet: its rows are not those of the card", "a file was changed"),
        (["foreign=3"], "foreign/train.parquet: its columns are not those of this version", "of another program"),
        (["testing=3"], "testing: it has no training rows", "all of it is for testing"),
        (["mixed=3"], "mixed: it is a mix itself", "its rows are in their own data sets"),
        (["broken=3"], "broken: there is no prepared data set", "no card that can be read"),
    ],
)
def test_a_data_set_that_cannot_be_mixed_is_rejected(root, take, message, why):
    part(root / "copy", 40, source="koniq")
    part(root / "outside", 20, embedded=False)
    (part(root / "lost", 20) / "train.parquet").unlink()
    changed = part(root / "changed", 20)
    pq.write_table(pq.read_table(changed / "train.parquet").slice(1), changed / "train.parquet")
    foreign = part(root / "foreign", 20)
    pq.write_table(pq.read_table(foreign / "train.parquet").drop_columns("ability"), foreign / "train.parquet")
    testing = part(root / "testing", 20)
    (testing / "dataset_card.json").write_text(
        json.dumps({"data_source": "a", "files": {"test.parquet": {"rows": 20}}})
    )
    mixed(root, root / "mixed", "--take", "koniq=3")
    (part(root / "broken", 20) / "dataset_card.json").write_text("{")
    assert message in rejected("--root", str(root), "--out", str(root / "out"), "--take", *take), why
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--take", "koniq"), "'koniq' is not of the form koniq=7000"),
        (("--take", "koniq=0"), "'0' is not a whole number above 0"),
        (("--take", "koniq=1e3"), "'1e3' is not a whole number above 0"),
        (("--take", "=3"), "'=3' is not of the form koniq=7000"),
        (("--take", "koniq=3", "--shard-rows", "0"), "'0' is not a whole number above 0"),
        (("--preset", "omniquality_r", "--take", "koniq=3"), "not allowed with argument"),
        ((), "one of the arguments --take --preset is required"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_rejected(root, capsys, options, message):
    assert rejected("--root", str(root), "--out", str(root / "out"), *options) == "2"
    assert message in capsys.readouterr().err


def test_a_data_set_is_not_written_over(root):
    before = (root / "koniq" / "train.parquet").read_bytes()
    for taken, message in (
        ("koniq=3", "it is one of the data sets to be mixed"),
        ("ava=3", "which does not belong to a mix"),
    ):
        assert message in rejected("--root", str(root), "--out", str(root / "koniq"), "--take", taken)
    assert (root / "koniq" / "train.parquet").read_bytes() == before


# Killed, and begun again


def test_a_mix_takes_the_place_of_an_earlier_one(root):
    mixed(root, root / "out", *TAKE, "--shard-rows", "10")
    (root / "out" / "train.parquet.77.part").write_bytes(b"torn")
    card, _ = mixed(root, root / "out", *TAKE)
    assert sorted(path.name for path in (root / "out").iterdir()) == ["dataset_card.json", "train.parquet"]
    assert list(card["files"]) == ["train.parquet"]


def test_a_killed_mix_can_be_begun_again(root, monkeypatch):
    write = module._write

    def killed(spool: object, order: list, first: int, count: int, path: Path) -> dict:
        if first:
            raise KeyboardInterrupt
        return write(spool, order, first, count, path)

    monkeypatch.setattr(module, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        mixed(root, root / "out", *TAKE, "--shard-rows", "60")
    left = json.loads((root / "out" / "dataset_card.json").read_text())
    assert left["files"] == {}
    assert (root / "out" / "train-00000-of-00002.parquet").exists()
    monkeypatch.undo()
    _, rows = mixed(root, root / "out", *TAKE)
    assert len(rows) == 100
    assert not (root / "out" / "train-00000-of-00002.parquet").exists()


def test_a_log_shows_how_far_a_mix_is(root, monkeypatch, capsys):
    monkeypatch.setattr(console, "REPORT_EVERY", 0.0)
    mixed(root, root / "out", *TAKE, "--shard-rows", "60")
    said = capsys.readouterr().err
    for title in ("choosing", "writing"):
        assert f"{title}: 1 of 100 rows" in said and f"{title}: 100 of 100 rows" in said


# Memory


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_BYTES", 2**20)
    size = 100_000
    for name in ("a", "b"):
        part(tmp_path / name, 400, size=size)  # in row groups of 0.7 MB
    ours = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(ours)
    tracemalloc.start()
    try:
        plan = plan_mix(tmp_path, {"a": 400, "b": 400}, seed=0)
        mix(plan, tmp_path / "out", 0, 4096, Console(quiet=True))
        peak = ours.max_memory() + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert pq.read_metadata(tmp_path / "out" / "train.parquet").num_rows == 800
    # 80 MB of images: a group that is read, one that is written, and copies of it on the way.
    assert peak < 5e6


def test_a_row_group_ends_before_it_has_more_than_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_BYTES", 12_000)
    part(tmp_path / "a", 30, size=3000)
    mixed(tmp_path, tmp_path / "out", "--take", "a=30")
    found = pq.read_metadata(tmp_path / "out" / "train.parquet")
    # A row takes 2 KB beside its image.
    assert [found.row_group(number).num_rows for number in range(found.num_row_groups)] == [2] * 15


def test_a_row_larger_than_a_group_is_alone_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_BYTES", 1000)
    part(tmp_path / "a", 3, size=3000)
    mixed(tmp_path, tmp_path / "out", "--take", "a=3")
    assert pq.read_metadata(tmp_path / "out" / "train.parquet").num_row_groups == 3


def test_a_row_group_has_no_more_than_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_ROWS", 8)
    part(tmp_path / "a", 20)
    _, rows = mixed(tmp_path, tmp_path / "out", "--take", "a=20")
    found = pq.read_metadata(tmp_path / "out" / "train.parquet")
    assert [found.row_group(number).num_rows for number in range(found.num_row_groups)] == [8, 8, 4]
    assert [row["extra_info"]["index"] for row in rows] == list(range(20))


# From images to the mix


def test_data_sets_their_scripts_have_written_can_be_mixed(tmp_path):
    photo = skimage.data.astronaut()
    for ref in range(12):
        name = tmp_path / "images" / "refA_sd_brief" / "dist_imgs" / f"{ref:02d}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[ref * 8 : ref * 8 + 48, :64]).save(name)
    lines = "".join(f"{ref:02d}.png,{ref}\n" for ref in range(12))
    (tmp_path / "images" / "manifest.csv").write_text("image,score\n" + lines)
    common = ["--root", str(tmp_path / "images"), "--workers", "1", "--shard-rows", "5"]
    options = ["--out", str(tmp_path / "mine"), "--data-source", "mine", "--low", "0", "--high", "11"]
    manifest.run([*common, *options])
    records = [
        {"image_A": f"refA_sd_brief/dist_imgs/{ref:02d}.png", "distortion_class": "noise", "severity": 1 + ref % 5}
        for ref in range(12)
    ]
    for name in dq495k.LISTS["refA_sd"]:
        (tmp_path / "images" / name).write_text(json.dumps(records if name.startswith("train") else []))
    prepare(dq495k.DQ495K, "doc", [*common, "--out", str(tmp_path / "dq495k")])
    card, rows = mixed(tmp_path, tmp_path / "out", "--take", "mine=7", "dq495k=6")
    assert Counter(row["data_source"] for row in rows) == {"mine": 7, "dq495k": 6}
    assert card["parts"]["mine"]["label_map"]["raw"] == [0.0, 11.0]
    for row in rows:
        file = tmp_path / "images" / "refA_sd_brief" / "dist_imgs" / Path(row["extra_info"]["id"]).name
        assert row["images"][0]["bytes"] == file.read_bytes()
