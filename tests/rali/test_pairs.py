"""Image-text pairs from a stand-in for a reasoning model: what is kept, what is counted, what is rejected."""

import json

import pyarrow.parquet as pq
import pytest
from rali_builders import CRITIC, make_tiny_pairs, write_labelled
from rich.console import Console

from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import RunOptions
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import OtherConfig
from omniq_verl.rali.pairs import PairsConfig, make_pairs, read_pairs
from omniq_verl.rali.pixels import pixels_of
from omniq_verl.rali.preprocessing import Preprocessing

QUIET = Console(quiet=True)


def config(tmp_path, model: str = "", seeds: int = 3, **settings) -> PairsConfig:
    data = tmp_path / "train.parquet"
    if not data.exists():
        write_labelled(data, [1.0, 2.0, 3.0, 4.0, 5.0, 2.5])
    return PairsConfig(
        [data], tmp_path / "run", EngineSpec(model, CRITIC), Sampling(seeds, 1.0), RunOptions("here"), **settings
    )


def test_reasoning_scores_and_labels_are_kept(tmp_path):
    counts = make_pairs(config(tmp_path), QUIET)
    lines = pq.read_table(tmp_path / "run" / "pairs.parquet").to_pylist()
    assert counts["answers"] == {"ok": 18} and (counts["images"], counts["images_with_text"]) == (6, 6)
    assert [line["target"] for line in lines] == [1.0, 2.0, 3.0, 4.0, 5.0, 2.5]
    assert [line["key"] for line in lines] == [f"technical/made/{n}" for n in range(6)]
    assert all(len(line["texts"]) == len(line["scores"]) == 3 for line in lines)
    assert "<" not in lines[0]["texts"][0] and lines[0]["texts"][0][:-1] == lines[0]["texts"][2][:-1]
    assert all(1 <= score <= 5 for line in lines for score in line["scores"])


def test_what_cannot_be_read_is_counted_and_left_out(tmp_path):
    counts = make_pairs(config(tmp_path, "hostile", seeds=6), QUIET)
    assert sum(counts["answers"].values()) == 36 and counts["answers"]["ok"] == 24
    assert set(counts["answers"]) <= {"ok", "no_answer", "no_reasoning", "out_of_range"} and len(counts["answers"]) > 2
    assert json.loads((tmp_path / "run" / "counts.json").read_text()) == counts
    assert all(len(texts) == 4 for _, texts in read_pairs(tmp_path / "run" / "pairs.parquet"))


def test_a_model_that_says_nothing_is_named_with_its_counts(tmp_path):
    with pytest.raises(ValueError, match=r"no answer contains reasoning and a score.*'no_answer': 18"):
        make_pairs(config(tmp_path, "silent"), QUIET)
    assert not (tmp_path / "run" / "pairs.parquet").exists()
    assert json.loads((tmp_path / "run" / "counts.json").read_text())["answers"] == {"no_answer": 18}


def test_the_same_again_asks_nothing_and_other_settings_are_rejected(tmp_path):
    make_pairs(config(tmp_path), QUIET)
    before = (tmp_path / "run" / "pairs.parquet").read_bytes()
    make_pairs(config(tmp_path), QUIET)
    assert (tmp_path / "run" / "pairs.parquet").read_bytes() == before
    assert len(list((tmp_path / "run" / "answers").glob("0*.jsonl"))) == 1
    with pytest.raises(OtherConfig, match="seed"):
        make_pairs(config(tmp_path, seed=1), QUIET)


def test_images_are_found_again_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setattr("omniq_verl.rali.pixels._AT_ONCE", 3)
    data = write_labelled(tmp_path / "train.parquet", [1.0 + n / 200 for n in range(600)])  # two row groups
    pairs = read_pairs(make_tiny_pairs(data, tmp_path / "run", seeds=1))
    assert len({ref.group for ref, _ in pairs}) == 2
    square = Preprocessing(16, True, (0.0,) * 3, (1.0,) * 3)
    some = [ref for ref, _ in pairs[::150]]
    found = [pixels.tobytes() for pixels in pixels_of(some, square)]
    direct = {ref.info["id"]: number for number, ref in enumerate(some)}
    rows = pq.read_table(data, columns=["images", "extra_info"]).to_pylist()
    for row in rows:
        if (number := direct.get(row["extra_info"]["id"])) is not None:
            assert square(row["images"][0]["bytes"]).tobytes() == found[number]
    write_labelled(data, [1.0] * 300)
    for number in (400, 599):  # of the first and of the second row group
        with pytest.raises(ValueError, match="rows are missing"):
            list(pixels_of([ref for ref, _ in pairs if ref.info["id"] == f"made/{number}"], square))
    write_labelled(data, [1.0] * 600, source="other")
    with pytest.raises(ValueError, match="has changed"):
        list(pixels_of(some, square))


@pytest.mark.parametrize("split", ["test", "val", "validation"])
def test_held_out_rows_are_rejected(tmp_path, split):
    write_labelled(tmp_path / "train.parquet", [1.0], split)
    with pytest.raises(ValueError, match=f"{split}.*Fix: give train files"):
        make_pairs(config(tmp_path), QUIET)


def test_no_rows_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        make_pairs(config(tmp_path, limit=0), QUIET)


def test_what_is_no_file_of_pairs_is_named(tmp_path):
    data = write_labelled(tmp_path / "train.parquet", [1.0, 2.0])
    (tmp_path / "text.parquet").write_text("text")
    for path in (data, tmp_path / "text.parquet", tmp_path / "gone.parquet"):
        with pytest.raises(ValueError, match=r"is not a pairs\.parquet"):
            read_pairs(path)
