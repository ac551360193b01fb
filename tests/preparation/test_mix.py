"""Prepared data sets -> one joint training set: counts, choice, order, card."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mix_builders import TAKE, ids, mixed, part, row_of, three_parts
from scipy.stats import spearmanr
from xxhash import xxh3_128

from omniq_verl.data.rows import schema
from omniq_verl.preparation.mix import PRESETS, plan_mix


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return three_parts(tmp_path)


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
    taken = Counter(ref.number for seed in range(300) for ref in plan_mix(tmp_path, {"a": 10}, seed).order)
    # 300 draws of a quarter: 75, a standard deviation of 7.5; five of them.
    assert set(taken) == set(range(40))
    assert all(abs(count - 75) < 37.5 for count in taken.values())


def test_fewer_rows_are_some_of_the_more(tmp_path):
    part(tmp_path / "a", 40)
    fewer, more = ({ref.key for ref in plan_mix(tmp_path, {"a": count}, seed=3).order} for count in (10, 20))
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
        pq.write_table(
            pa.Table.from_pylist([row_of("koniq", 900).record(0, b"x")]), root / "koniq" / f"{split}.parquet"
        )
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
    orders = [[ref.key for ref in plan_mix(root, {"ava": 50, "koniq": 40}, seed).order] for seed in (0, 1)]
    assert set(orders[0]) != set(orders[1])
    both = [[key for key in order if key in set(orders[0]) & set(orders[1])] for order in orders]
    assert both[0] != both[1]


def test_neither_choice_nor_order_depends_on_how_a_data_set_is_cut_into_files(tmp_path):
    part(tmp_path / "one" / "a", 50)
    part(tmp_path / "five" / "a", 50, files=5, group=3)
    orders = [[ref.key for ref in plan_mix(tmp_path / cut, {"a": 20}, 0).order] for cut in ("one", "five")]
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
