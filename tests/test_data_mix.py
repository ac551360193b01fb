"""Prepared data sets -> one joint training set: counts, choice, order, bytes, memory."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image
from rich.console import Console
from scipy.stats import spearmanr
from xxhash import xxh3_128

from data_prep import dq495k, manifest
from data_prep.mix import main
from omniq_verl.data import mix as module
from omniq_verl.data.command import main as prepare
from omniq_verl.data.mix import PRESETS, mix, plan_mix
from omniq_verl.data.rows import Row, schema
from omniq_verl.data.shards import PARQUET


def row(source: str, number: int, task: str = "technical") -> Row:
    row_id = f"{source}/{number:05d}.png"
    if task == "degradation":
        return Row(source, row_id, task, "train", distortion="blur", severity="slight")
    return Row(source, row_id, task, "train", 3.0, 50.0, (0.0, 100.0), text="a cat")


def part(
    folder: Path,
    rows: int,
    files: int = 1,
    task: str = "technical",
    source: str | None = None,
    size: int = 40,
    group: int = 7,
    embedded: bool = True,
) -> Path:
    """A prepared data set of a few random bytes per image, with row groups of a few rows."""
    folder.mkdir(parents=True)
    source, rng = source or folder.name, np.random.default_rng(len(folder.name))
    records = [
        row(source, number, task).record(number, rng.bytes(size) if embedded else f"/data/{number}.png")
        for number in range(rows)
    ]
    names = [f"train-{n:05d}-of-{files:05d}.parquet" for n in range(files)] if files > 1 else ["train.parquet"]
    card = {"data_source": source, "task": task, "files": {}, "options": {"mos": "raw"}}
    for name, numbers in zip(names, np.array_split(np.arange(rows), files), strict=True):
        with pq.ParquetWriter(folder / name, schema(embedded), **PARQUET) as writer:
            for start in range(0, len(numbers), group):
                chunk = [records[number] for number in numbers[start : start + group]]
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema(embedded)))
        card["files"][name] = {"rows": len(numbers), "xxh128": f"of {name}"}
    (folder / "dataset_card.json").write_text(json.dumps(card))
    return folder


def mixed(root: Path, out: Path, *options: str) -> tuple[dict, list[dict]]:
    """Card and rows of a run of the script."""
    main(["--root", str(root), "--out", str(out), *options])
    card = json.loads((out / "dataset_card.json").read_text())
    return card, [row for name in card["files"] for row in pq.read_table(out / name).to_pylist()]


def ids(rows: list[dict]) -> list[str]:
    return [row["extra_info"]["id"] for row in rows]


def refused(*options: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(options))
    return str(ended.value)


@pytest.fixture
def root(tmp_path) -> Path:
    """Three data sets of two tasks, cut in different ways."""
    part(tmp_path / "ava", 100, files=3)
    part(tmp_path / "koniq", 40, group=100)
    part(tmp_path / "dq495k", 30, files=2, task="degradation")
    return tmp_path


TAKE = ("--take", "ava=50", "koniq=20", "dq495k=30")


# What is taken


def test_as_many_rows_of_each_are_taken_as_asked_for(root):
    card, rows = mixed(root, root / "out", *TAKE)
    assert Counter(row["data_source"] for row in rows) == {"ava": 50, "koniq": 20, "dq495k": 30}
    assert card["rows"] == len(rows) == 100


def test_no_row_is_taken_twice(root):
    _, rows = mixed(root, root / "out", *TAKE)
    assert len(set(ids(rows))) == 100


def test_a_row_is_the_one_that_was_prepared_but_for_its_number(root):
    given = {row["extra_info"]["id"]: row for path in root.glob("*/train*") for row in pq.read_table(path).to_pylist()}
    _, rows = mixed(root, root / "out", *TAKE)
    assert [row["extra_info"]["index"] for row in rows] == list(range(100))
    for row in rows:
        before = given[row["extra_info"]["id"]]
        assert row == {**before, "extra_info": {**before["extra_info"], "index": row["extra_info"]["index"]}}


def test_files_have_the_columns_of_every_prepared_data_set(root):
    card, _ = mixed(root, root / "out", *TAKE)
    for name in card["files"]:
        assert pq.read_schema(root / "out" / name).equals(schema(True))


def test_every_row_is_as_likely_as_any_other(tmp_path):
    part(tmp_path / "a", 40)
    taken = Counter(place.number for seed in range(300) for place in plan_mix(tmp_path, {"a": 10}, seed).order)
    # 300 draws of a quarter: 75, a standard deviation of 7.5; five of them.
    assert set(taken) == set(range(40))
    assert all(abs(count - 75) < 37.5 for count in taken.values())


def test_fewer_rows_are_some_of_the_more(tmp_path):
    part(tmp_path / "a", 40)
    fewer, more = ({place.key for place in plan_mix(tmp_path, {"a": count}, seed=3).order} for count in (10, 20))
    assert fewer < more


def test_one_image_may_be_asked_about_by_two_tasks(tmp_path):
    part(tmp_path / "quality", 5, source="agiqa3k")
    part(tmp_path / "fit", 5, source="agiqa3k", task="alignment")
    card, rows = mixed(tmp_path, tmp_path / "out", "--take", "quality=5", "fit=5")
    assert Counter(ids(rows)) == {f"agiqa3k/{number:05d}.png": 2 for number in range(5)}
    assert card["task"] == {"technical": 5, "alignment": 5}
    assert card["data_source"] == ["agiqa3k"]


def test_only_training_rows_are_taken(root):
    for split in ("val", "test"):
        pq.write_table(pa.Table.from_pylist([row("koniq", 900).record(0, b"x")]), root / "koniq" / f"{split}.parquet")
    card = json.loads((root / "koniq" / "dataset_card.json").read_text())
    card["files"] |= {"val.parquet": {"rows": 1, "xxh128": ""}, "test.parquet": {"rows": 1, "xxh128": ""}}
    (root / "koniq" / "dataset_card.json").write_text(json.dumps(card))
    card, rows = mixed(root, root / "out", "--take", "koniq=40")
    assert "koniq/00900.png" not in ids(rows)
    assert card["parts"]["koniq"]["of"] == 40


def test_names_of_images_outside_are_kept(tmp_path):
    part(tmp_path / "a", 20, embedded=False)
    part(tmp_path / "b", 20, embedded=False)
    _, rows = mixed(tmp_path, tmp_path / "out", "--take", "a=10", "b=10")
    assert all(row["images"] == [{"image": f"/data/{int(row['extra_info']['id'][2:7])}.png"}] for row in rows)


# Order


def test_the_order_is_shuffled_over_all_data_sets(tmp_path):
    for name in "abc":
        part(tmp_path / name, 300, files=2)
    _, rows = mixed(tmp_path, tmp_path / "out", "--take", "a=300", "b=300", "c=300")
    sources = [row["data_source"] for row in rows]
    # A third of 100 rows: 33, a standard deviation of 4.5 without replacement; five of them.
    for start in range(0, 900, 100):
        counts = Counter(sources[start : start + 100])
        assert all(abs(counts[name] - 33.3) < 22.5 for name in "abc")
    for name in "abc":
        numbers = [int(row["extra_info"]["id"][2:7]) for row in rows if row["data_source"] == name]
        # The rank correlation of a random order of 300 has a standard deviation of 0.058.
        assert abs(spearmanr(numbers, range(300)).statistic) < 0.29


def test_the_same_seed_gives_the_same_bytes(root):
    names = []
    for out in ("one", "two"):
        card, _ = mixed(root, root / out, *TAKE, "--seed", "5", "--shard-rows", "30")
        names.append(["dataset_card.json", *card["files"]])
    assert names[0] == names[1]
    assert len(names[0]) == 5
    for name in names[0]:
        assert (root / "one" / name).read_bytes() == (root / "two" / name).read_bytes()


def test_another_seed_gives_other_rows_in_another_order(root):
    orders = [[place.key for place in plan_mix(root, {"ava": 50, "koniq": 40}, seed).order] for seed in (0, 1)]
    assert set(orders[0]) != set(orders[1])
    both = [[key for key in order if key in set(orders[0]) & set(orders[1])] for order in orders]
    assert both[0] != both[1]


def test_neither_choice_nor_order_depends_on_how_a_data_set_is_cut_into_files(tmp_path):
    part(tmp_path / "one" / "a", 50)
    part(tmp_path / "five" / "a", 50, files=5, group=3)
    orders = [[place.key for place in plan_mix(tmp_path / cut, {"a": 20}, 0).order] for cut in ("one", "five")]
    assert orders[0] == orders[1]


@pytest.mark.parametrize(("rows", "counts"), [(100, [100]), (40, [40, 40, 20]), (50, [50, 50]), (99, [99, 1])])
def test_the_mix_is_cut_into_files_of_the_size_asked_for(root, rows, counts):
    card, whole = mixed(root, root / "whole", *TAKE)
    cut_card, cut = mixed(root, root / "cut", *TAKE, "--shard-rows", str(rows))
    assert list(card["files"]) == ["train.parquet"]
    assert [about["rows"] for about in cut_card["files"].values()] == counts
    assert cut == whole


# Card


def test_the_card_says_what_was_taken_from_where(root):
    card, _ = mixed(root, root / "out", *TAKE, "--seed", "4")
    assert card["seed"] == 4
    assert card["data_source"] == ["ava", "dq495k", "koniq"]
    assert card["task"] == {"technical": 70, "degradation": 30}
    assert {name: (about["rows"], about["of"], about["share"]) for name, about in card["parts"].items()} == {
        "ava": (50, 100, 0.5),
        "koniq": (20, 40, 0.2),
        "dq495k": (30, 30, 0.3),
    }
    assert card["parts"]["dq495k"]["files"] == {
        "train-00000-of-00002.parquet": "of train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet": "of train-00001-of-00002.parquet",
    }
    assert card["parts"]["koniq"]["options"] == {"mos": "raw"}
    for name, about in card["files"].items():
        assert about["xxh128"] == xxh3_128((root / "out" / name).read_bytes()).hexdigest()


def test_the_script_prints_what_to_train_on(root, capsys):
    mixed(root, root / "out", *TAKE, "--shard-rows", "50")
    files = ",".join(str(root / "out" / f"train-{number:05d}-of-00002.parquet") for number in range(2))
    assert capsys.readouterr().out == (
        f"data.train_files=[{files}]\n100 rows: ava 50 of 100, koniq 20 of 40, dq495k 30 of 30\n"
    )


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        ("omniquality_r", {"ava": 10000, "evalmuse": 10000, "koniq": 7000}),
        ("q_insight", {"koniq": 7000, "dq495k": 7000}),
    ],
)
def test_presets_are_the_mixes_of_the_papers(preset, parts):
    assert PRESETS[preset] == parts


def test_a_preset_is_taken_by_its_name(tmp_path):
    part(tmp_path / "koniq", 20)
    part(tmp_path / "dq495k", 30, task="degradation")
    card, _ = mixed(tmp_path, tmp_path / "out", "--preset", "q_insight", "--all-if-fewer")
    assert {name: about["rows"] for name, about in card["parts"].items()} == {"koniq": 20, "dq495k": 30}


# What is refused, before anything is written


def test_more_rows_than_there_are_is_an_error_unless_all_are_asked_for(root):
    given = ("--root", str(root), "--out", str(root / "out"), "--take", "koniq=41")
    assert "koniq: 41 rows are wanted, but it has 40 for training" in refused(*given)
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
def test_a_data_set_that_cannot_be_mixed_is_refused(root, take, message, why):
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
    assert message in refused("--root", str(root), "--out", str(root / "out"), "--take", *take), why
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--take", "koniq"), "'koniq' is not of the form koniq=7000"),
        (("--take", "koniq=0"), "'0' is no number of rows"),
        (("--take", "koniq=1e3"), "'1e3' is no number of rows"),
        (("--take", "=3"), "'=3' is not of the form koniq=7000"),
        (("--take", "koniq=3", "--shard-rows", "0"), "'0' is no number of rows"),
        (("--preset", "omniquality_r", "--take", "koniq=3"), "not allowed with argument"),
        ((), "one of the arguments --take --preset is required"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(root, capsys, options, message):
    assert refused("--root", str(root), "--out", str(root / "out"), *options) == "2"
    assert message in capsys.readouterr().err


def test_a_data_set_is_not_written_over(root):
    before = (root / "koniq" / "train.parquet").read_bytes()
    for taken, message in (("koniq=3", "it is one of the data sets to be mixed"), ("ava=3", "which is of no mix")):
        assert message in refused("--root", str(root), "--out", str(root / "koniq"), "--take", taken)
    assert (root / "koniq" / "train.parquet").read_bytes() == before


# Killed, and begun again


def test_a_mix_takes_the_place_of_an_earlier_one(root):
    mixed(root, root / "out", *TAKE, "--shard-rows", "10")
    (root / "out" / "train.parquet.part").write_bytes(b"torn")
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


# Memory


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_BYTES", 2**20)
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
    monkeypatch.setattr(module, "_GROUP_BYTES", 12_000)
    part(tmp_path / "a", 30, size=3000)
    mixed(tmp_path, tmp_path / "out", "--take", "a=30")
    found = pq.read_metadata(tmp_path / "out" / "train.parquet")
    # A row takes 2 KB beside its image.
    assert [found.row_group(number).num_rows for number in range(found.num_row_groups)] == [2] * 15


def test_a_row_larger_than_a_group_is_alone_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_BYTES", 1000)
    part(tmp_path / "a", 3, size=3000)
    mixed(tmp_path, tmp_path / "out", "--take", "a=3")
    assert pq.read_metadata(tmp_path / "out" / "train.parquet").num_row_groups == 3


def test_a_row_group_has_no_more_than_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 8)
    part(tmp_path / "a", 20)
    _, rows = mixed(tmp_path, tmp_path / "out", "--take", "a=20")
    found = pq.read_metadata(tmp_path / "out" / "train.parquet")
    assert [found.row_group(number).num_rows for number in range(found.num_row_groups)] == [8, 8, 4]
    assert [row["extra_info"]["index"] for row in rows] == list(range(20))


# From images to the mix


def test_data_sets_their_scripts_have_written_can_be_mixed(tmp_path):
    photo = skimage.data.astronaut()
    for place in range(12):
        name = tmp_path / "images" / "refA_sd_brief" / "dist_imgs" / f"{place:02d}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[place * 8 : place * 8 + 48, :64]).save(name)
    lines = "".join(f"{place:02d}.png,{place}\n" for place in range(12))
    (tmp_path / "images" / "manifest.csv").write_text("image,score\n" + lines)
    common = ["--root", str(tmp_path / "images"), "--workers", "1", "--shard-rows", "5"]
    options = ["--out", str(tmp_path / "mine"), "--data-source", "mine", "--low", "0", "--high", "11"]
    manifest.run([*common, *options])
    records = [
        {"image_A": f"refA_sd_brief/dist_imgs/{place:02d}.png", "distortion_class": "noise", "severity": 1 + place % 5}
        for place in range(12)
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
