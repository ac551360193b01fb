"""Which images are compared, the order they are shown in, and the script that writes the rows."""

import csv
import json
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_builders import card_of, ids, prepare_items, prepare_made, rejects_of, rows_of, whole_set, written_at
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builders import noise, saved, smooth
from rich.console import Console

from data_prep import comparisons
from omniq_verl.data.rows import schema
from omniq_verl.preparation import shards
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.mix import mix, plan_mix
from omniq_verl.preparation.pairs import Pair, Rated, balanced, choose_pairs
from omniq_verl.tasks import comparison_task

unhurried = settings(deadline=None)  # a busy machine is no error
SPLITS = ("train", "val", "test")
SCORES = st.lists(st.integers(100, 500).map(lambda cents: cents / 100), max_size=30)


def rated(scores: Sequence[float]) -> list[Rated]:
    return [Rated(f"a/{n:03d}", "a", "technical", "train", score, Path(f"{n}")) for n, score in enumerate(scores)]


def run(out: Path, *words: object) -> None:
    comparisons.main([*map(str, words), "--out", str(out), "--workers", "1"])


def details(row: dict) -> dict:
    return json.loads(row["extra_info"]["details"])


def truth(row: dict) -> str:
    return json.loads(row["reward_model"]["ground_truth"])["choice"]


# Which pairs


@unhurried
@given(SCORES, st.integers(1, 300), st.integers(1, 3), st.integers(0, 5))
def test_pairs_are_as_far_apart_as_asked_and_each_image_that_can_be_in_one_is(scores, cents, per_image, seed):
    images = rated(scores)
    known = {image.row_id: round(100 * image.score) for image in images}
    pairs = choose_pairs(images, cents / 100, per_image, seed)
    assert all(known[pair.images[0]] - known[pair.images[1]] >= cents for pair in pairs)
    assert all(
        pair.choice == "first" and pair.refs == tuple(Path(name[-3:].lstrip("0") or "0") for name in pair.images)
        for pair in pairs
    )
    could = {name for two in combinations(known, 2) if abs(known[two[0]] - known[two[1]]) >= cents for name in two}
    assert {name for pair in pairs for name in pair.images} == could
    assert len({frozenset(pair.images) for pair in pairs}) == len(pairs) <= per_image * len(could)


@unhurried
@given(SCORES, st.randoms())
def test_pairs_depend_on_the_rows_and_the_seed_alone(scores, shuffler):
    images = rated(scores)
    pairs = choose_pairs(images, 0.5, 2, 7)
    shuffler.shuffle(images)
    assert choose_pairs(images, 0.5, 2, 7) == pairs
    assert balanced(choose_pairs(images, 0.5, 2, 7), 7) == balanced(pairs, 7)


def test_another_seed_gives_other_pairs_and_more_partners_more_of_them():
    images = rated([1 + 4 * n / 199 for n in range(200)])
    one, other = (choose_pairs(images, 0.5, 1, seed) for seed in (0, 1))
    assert len({frozenset(pair.images) for pair in one} & {frozenset(pair.images) for pair in other}) < 20
    assert 180 < len(one) <= 200 < 360 < len(choose_pairs(images, 0.5, 2, 0)) <= 400
    assert [pair.images for pair in one] != sorted(pair.images for pair in one), "which follows the names"
    assert {pair.images for pair in one} <= {pair.images for pair in choose_pairs(images, 0.5, 2, 0)}


def test_partners_are_drawn_evenly_from_all_that_are_far_enough():
    images = [
        *rated([3.0] * 1),
        *[
            Rated(f"b/{n}", "a", "technical", "train", s, Path("x"))
            for n, s in enumerate([1.0, 2.0, 2.9, 3.1, 4.0, 5.0])
        ],
    ]
    drawn = [pair for seed in range(400) for pair in choose_pairs(images, 1.0, 1, seed) if "a/000" in pair.images]
    counts = {name: sum(name in pair.images for pair in drawn) for name in ("b/0", "b/1", "b/2", "b/3", "b/4", "b/5")}
    assert counts["b/2"] == counts["b/3"] == 0
    assert min(counts[name] for name in ("b/0", "b/1", "b/4", "b/5")) > 100


def test_a_difference_of_exactly_the_margin_is_enough():
    # In floating point 1.00 + 0.14 is more than 1.14, and 1.14 - 0.14 less than 1.00.
    assert len(choose_pairs(rated([1.0, 1.14]), 0.14, 1, 0)) == 1
    assert choose_pairs(rated([1.0, 1.13]), 0.14, 1, 0) == []


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_the_better_image_comes_first_in_half_of_the_rows(count):
    pairs = [
        Pair((f"{n}", f"x{n}"), (Path("a"), Path("b")), random.Random(n).choice(["first", "second"]))
        for n in range(count)
    ]
    shown = balanced(pairs, 0)
    first = sum(pair.choice == "first" for pair in shown)
    assert abs(2 * first - count) <= 1
    for pair, before in zip(shown, pairs, strict=True):
        better = dict(zip(("first", "second"), before.images, strict=True))[before.choice]
        assert pair.images[pair.choice == "second"] == better
        assert pair.refs[pair.images.index(before.images[0])] == Path("a")
    if count == 100:
        assert [pair.choice for pair in shown] != [pair.choice for pair in balanced(pairs, 1)]
        assert len({pair.choice for pair in shown[:10]}) == 2, "no pattern to be learned from"


# Of scored images


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training images and six each to validate and test; a score is the place among them."""
    root = tmp_path_factory.mktemp("scored") / "root"
    whole_set(root, 24)
    prepare_made(root, root.parent / "made", "--shard-rows", "5")
    return root.parent / "made"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


@pytest.fixture(scope="module")
def pairs(scored: Path) -> Path:
    out = scored.parent / "pairs"
    run(out, "--data", *files(scored), "--margin", "0.5", "--per-image", "2", "--shard-rows", "9")
    return out


def test_a_row_holds_both_images_and_which_has_the_higher_score(scored, pairs):
    known = {row["extra_info"]["id"]: row for split in SPLITS for row in rows_of(scored, split)}
    rows = [row for split in SPLITS for row in rows_of(pairs, split)]
    assert len(rows) > 30
    for row in rows:
        told = details(row)
        shown = [known[told[name]] for name in ("image_a", "image_b")]
        assert [image["bytes"] for image in row["images"]] == [one["images"][0]["bytes"] for one in shown]
        scores = [one["extra_info"]["score"] for one in shown]
        assert [told["score_a"], told["score_b"]] == pytest.approx(scores, abs=1e-6)
        assert abs(scores[0] - scores[1]) >= 0.5 - 1e-6
        assert truth(row) == ("first" if scores[0] > scores[1] else "second")
        assert row["prompt"] == comparison_task(False).messages(None) and row["ability"] == "q_insight_comparison"
        assert row["data_source"] == "made_pairs"


def test_no_image_of_a_held_out_split_is_in_a_training_pair(scored, pairs):
    of_split = {split: {row["extra_info"]["id"] for row in rows_of(scored, split)} for split in SPLITS}
    for split in SPLITS:
        rows = rows_of(pairs, split)
        assert {details(row)[name] for row in rows for name in ("image_a", "image_b")} == of_split[split]
        assert {row["extra_info"]["split"] for row in rows} == {split}
        assert abs(sum(truth(row) == "first" for row in rows) - len(rows) / 2) <= 0.5


def test_rows_have_the_schema_of_all_others_and_names_of_their_own(pairs):
    assert all(pq.read_schema(file).equals(schema(True)) for file in files(pairs))
    names = [name for split in SPLITS for name in ids(rows_of(pairs, split))]
    assert len(set(names)) == len(names) and all(name.startswith("made_pairs/") for name in names)
    card = card_of(pairs)
    assert sum(card["choices"].values()) == card["rows"] == len(names) and card["options"]["margin"] == 0.5


def test_a_finished_folder_is_kept_and_a_lost_file_is_written_again_the_same(scored, pairs):
    before, content = written_at(pairs), {file: file.read_bytes() for file in files(pairs)}
    words = ("--data", *reversed(files(scored)), "--margin", "0.5", "--per-image", "2", "--shard-rows", "9")
    lost = files(pairs)[0]
    lost.unlink()
    run(pairs, *words)
    after = written_at(pairs)
    assert [name for name in before if before[name] != after[name]] == [lost.name]
    assert {file: file.read_bytes() for file in files(pairs)} == content


def test_other_processes_write_the_same_bytes(scored, pairs, tmp_path):
    words = ["--data", *map(str, files(scored)), "--margin", "0.5", "--per-image", "2", "--shard-rows", "9"]
    comparisons.main([*words, "--out", str(tmp_path), "--workers", "2"])
    assert {file.name: file.read_bytes() for file in files(tmp_path)} == {
        file.name: file.read_bytes() for file in files(pairs)
    }


def test_rows_that_name_their_images_are_paired_by_the_files(tmp_path):
    whole_set(tmp_path / "root")
    prepare_made(tmp_path / "root", tmp_path / "made", "--images", "path")
    run(tmp_path / "pairs", "--data", *files(tmp_path / "made"))
    rows = rows_of(tmp_path / "pairs", "train")
    known = {row["extra_info"]["id"]: row["images"][0]["image"] for row in rows_of(tmp_path / "made", "train")}
    assert rows and all(
        [image["bytes"] for image in row["images"]]
        == [Path(known[details(row)[name]]).read_bytes() for name in ("image_a", "image_b")]
        for row in rows
    )


def test_pairs_are_mixed_with_the_scored_images_they_were_made_of(scored, pairs):
    plan = plan_mix(scored.parent, {"made": 5, "pairs": 7}, seed=0)
    mix(plan, scored.parent / "joint", 0, 4096, Console(quiet=True))
    rows = rows_of(scored.parent / "joint", "train")
    known = {row["extra_info"]["id"]: row for folder in (scored, pairs) for row in rows_of(folder, "train")}
    assert sorted(len(row["images"]) for row in rows) == [1] * 5 + [2] * 7
    assert all(row["images"] == known[row["extra_info"]["id"]]["images"] for row in rows)


@pytest.mark.parametrize("room", [10, 2_000, 10_000])
def test_images_stay_in_their_rows_however_small_a_row_group_is(scored, pairs, tmp_path, monkeypatch, room):
    monkeypatch.setattr(shards, "GROUP_BYTES", room)
    run(tmp_path, "--data", *files(scored), "--margin", "0.5", "--per-image", "2", "--shard-rows", "9")
    assert [rows_of(tmp_path, split) for split in SPLITS] == [rows_of(pairs, split) for split in SPLITS]


def test_what_cannot_be_compared_is_rejected(scored, tmp_path):
    def said(*words: object) -> str:
        with pytest.raises(SystemExit) as finish_reason:
            run(tmp_path / "out", *words)
        return str(finish_reason.value)

    root = tmp_path / "root"
    whole_set(root)
    prepare_items(
        root, tmp_path / "worn", [Item("000.jpg", "train", distortion="blur", severity="slight")], "degradation"
    )
    prepare_made(root, tmp_path / "other", "--task", "alignment")
    train = files(scored)[-1]
    assert "has no score" in said("--data", tmp_path / "worn" / "train.parquet")
    assert "cannot be compared" in said("--data", train, tmp_path / "other" / "train.parquet")
    assert "occurs twice" in said("--data", train, train)
    assert "cannot be read as parquet" in said("--data", root / "labels.csv")
    assert "there are no pairs" in said("--data", train, "--margin", "9")
    assert "give --data, or --root and --labels" in said("--data", train, "--root", root, "--labels", "x.csv")
    assert "give --data, or --root and --labels" in said("--root", root)
    with pytest.raises(SystemExit):
        run(tmp_path / "out", "--data", train, "--margin", "0")


def test_rows_of_another_maker_are_rejected_with_file_row_and_fix(tmp_path):
    info = {"id": "x/0", "task": "technical", "split": "train", "score": 3.0}
    row = {"data_source": "x", "images": [{"bytes": b"x"}], "extra_info": info}
    for changed, said in (
        ({"extra_info": {"index": 0, "split": "train"}}, "row 1: extra_info.id is None"),
        ({"extra_info": {**info, "task": "beauty"}}, "row 1: extra_info.task is 'beauty'"),
        ({"extra_info": {**info, "id": "x/1", "score": 73.0}}, "row 1: extra_info.score: the label 73 is outside"),
        ({"data_source": None}, "row 1: data_source is None"),
    ):
        pq.write_table(pa.Table.from_pylist([row, {**row, **changed}]), tmp_path / "rows.parquet")
        with pytest.raises(SystemExit, match=said) as finish_reason:
            run(tmp_path / "out", "--data", tmp_path / "rows.parquet")
        assert "rows.parquet" in str(finish_reason.value) and "Fix: " in str(finish_reason.value)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (("--data", "x.parquet", "--split", "val"), "--split"),
        (("--data", "x.parquet", "--keep-order"), "--keep-order"),
        (("--data", "x.parquet", "--root", "x"), "--root"),
        (("--root", "x", "--labels", "x.csv", "--margin", "1"), "--margin"),
        (("--root", "x", "--labels", "x.csv", "--per-image", "2"), "--per-image"),
        (("--root", "x", "--labels", "x.csv", "--keep-order", "--seed", "2"), "--seed"),
    ],
)
def test_options_of_the_other_kind_of_pairs_are_rejected_by_name(tmp_path, capsys, words, idle):
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "out", *words)
    assert f"{idle} has no effect" in capsys.readouterr().err


# Judged pairs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").write_bytes(saved(smooth(20 + number, 24, number), "PNG"))
    (folder / "cut.png").write_bytes(saved(noise(), "PNG")[:-50])
    return folder


def table(root: Path, header: str, *rows: str) -> Path:
    with open(root / "judged.csv", "w", newline="") as file:
        csv.writer(file).writerows(line.split() for line in (header, *rows))
    return root / "judged.csv"


def better(row: dict) -> str:
    return details(row)["image_a" if truth(row) == "first" else "image_b"]


def test_judged_pairs_become_rows_and_the_rest_named_rejects(root, tmp_path):
    rows = ("0.png 1.png image_a", "1.png 2.png B", "2.png 3.png Similar", "4.png 4.png a", "1.png 0.png image_a")
    labels = table(root, "image_a image_b winner", *rows, "5.png gone.png a", "5.png cut.png a", "../x.png 5.png b")
    run(tmp_path / "out", "--root", root, "--labels", labels)
    found = rows_of(tmp_path / "out", "train")
    assert ids(found) == ["judged/0.png|1.png", "judged/1.png|2.png"]
    assert [better(row) for row in found] == ["0.png", "2.png"]
    assert sorted(truth(row) for row in found) == ["first", "second"]
    for row in found:
        names = [details(row)["image_a"], details(row)["image_b"]]
        assert [image["bytes"] for image in row["images"]] == [(root / name).read_bytes() for name in names]
    reasons = {reject["row_id"].partition("/")[2]: reject["reason"] for reject in rejects_of(tmp_path / "out")}
    assert reasons["2.png|3.png"] == "label: the winner is 'Similar', neither image_a nor image_b"
    assert reasons["4.png|4.png"] == "label: both images are the same file"
    assert reasons["1.png|0.png"] == "duplicate: the label file names these images again"
    assert reasons["5.png|gone.png"] == "image: there is no file gone.png"
    assert reasons["5.png|cut.png"].startswith("image: cut.png: it is truncated")
    assert reasons["../x.png|5.png"].startswith("path: ")
    assert len(reasons) == 6


def test_a_reference_is_shown_before_both(root, tmp_path):
    labels = table(root, "reference image_a image_b winner", "7.png 0.png 1.png image_b", "6.png 2.png 3.png image_b")
    run(tmp_path / "out", "--root", root, "--labels", labels, "--keep-order")
    for row, names in zip(rows_of(tmp_path / "out", "train"), (("7", "0", "1"), ("6", "2", "3")), strict=True):
        assert row["prompt"] == comparison_task(True).messages(None)
        assert [image["bytes"] for image in row["images"]] == [(root / f"{name}.png").read_bytes() for name in names]
        assert (truth(row), details(row)["reference"]) == ("second", f"{names[0]}.png")


@pytest.mark.parametrize("order", [1, -1])
def test_pairs_with_and_without_a_reference_are_not_mixed(root, tmp_path, order):
    with_one = {"image_a": "0.png", "image_b": "1.png", "winner": "a", "reference": "7.png"}
    without = {"image_a": "2.png", "image_b": "3.png", "winner": "b"}
    lines = [with_one, without, {**without, "image_a": "4.png", "reference": None}][::order]
    (root / "judged.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(tmp_path / "out", "--root", root, "--labels", root / "judged.jsonl")
    assert [details(row)["reference"] for row in rows_of(tmp_path / "out", "train")] == ["7.png"]
    assert {reject["reason"] for reject in rejects_of(tmp_path / "out")} == {
        "label: it has no reference, which others have. Fix: give it one, or a label file of its own"
    }


def test_an_empty_column_of_references_is_none(root, tmp_path):
    (root / "judged.csv").write_text("reference,image_a,image_b,winner\n,0.png,1.png,a\n")
    run(tmp_path / "out", "--root", root, "--labels", root / "judged.csv")
    (row,) = rows_of(tmp_path / "out", "train")
    assert row["prompt"] == comparison_task(False).messages(None)


def test_a_training_pair_with_a_held_out_image_is_set_aside(root, tmp_path):
    rows = ("0.png 1.png a train", "1.png 2.png a test", "3.png 4.png b val", "5.png 6.png b train", "6.png 7.png a x")
    labels = table(root, "image_a image_b winner split", *rows)
    run(tmp_path / "out", "--root", root, "--labels", labels)
    assert {split: ids(rows_of(tmp_path / "out", split)) for split in SPLITS} == {
        "train": ["judged/5.png|6.png"],
        "val": ["judged/3.png|4.png"],
        "test": ["judged/1.png|2.png"],
    }
    reasons = {reject["row_id"]: reject["reason"] for reject in rejects_of(tmp_path / "out")}
    assert reasons["judged/0.png|1.png"] == "split: the image is in a row of another split, too"
    assert reasons["judged/6.png|7.png"] == "label: 'x' is not a split; known: train, val, test"


def test_the_authors_list_is_read_as_it_is(root, tmp_path):
    records = [{"ref_image": "7.png", "ImageA": "0.png", "ImageB": "1.png", "result": f"Image {name}"} for name in "AB"]
    records[1] |= {"ImageA": "2.png", "ImageB": "3.png"}
    similar = {"ref_image": "7.png", "ImageA": "4.png", "ImageB": "5.png", "result": "Similar"}
    (root / "train_comparison.json").write_text(json.dumps([*records, similar]))
    run(tmp_path / "out", "--root", root, "--labels", root / "train_comparison.json", "--data-source", "diffiqa")
    found = rows_of(tmp_path / "out", "train")
    assert [better(row) for row in found] == ["0.png", "3.png"] and found[0]["data_source"] == "diffiqa"
    assert card_of(tmp_path / "out")["rejects"] == {"all": 1, "label": 1}
