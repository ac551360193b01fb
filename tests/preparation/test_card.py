"""What a data set says of itself: card, histogram, and how many labels were found."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_builders import (
    MADE,
    SHARDED,
    card_of,
    faulty_set,
    image_file,
    prepare_made,
    tree,
    undrawn,
    whole_set,
    write_labels,
)
from image_builders import decoded
from reader_builders import options_of
from xxhash import xxh3_128

from data_prep.agiqa3k import AGIQA3K
from data_prep.ava import AVA
from data_prep.csiq import CSIQ
from data_prep.dq495k import DQ495K
from data_prep.evalmi import EVALMI
from data_prep.evalmuse import EVALMUSE
from data_prep.genai_bench import GENAI_BENCH
from data_prep.kadid import KADID
from data_prep.koniq import KONIQ
from data_prep.live_wild import LIVE_WILD
from data_prep.pipal import PIPAL
from data_prep.spaq import SPAQ
from data_prep.tad66k import TAD66K
from data_prep.tid2013 import TID2013
from omniq_verl.preparation.cli import DataSet, main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    whole_set(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


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


def draw_made(root: Path, out: Path) -> None:
    """As ``prepare_made``, with the histogram."""
    main(MADE, "doc", ["--root", str(root), "--out", str(out), "--workers", "1", *SHARDED])


def test_the_histogram_shows_the_scores(root, out):
    draw_made(root, out)
    picture = decoded((out / "scores.png").read_bytes())
    assert min(picture.shape[:2]) > 300 and picture.std() > 10
    before = (out / "scores.png").read_bytes()
    write_labels(root, [(image_file(number)[0], "train", "50") for number in range(12)])
    draw_made(root, out)
    assert (out / "scores.png").read_bytes() != before


def test_two_folders_have_the_same_bytes(root, tmp_path):
    for name in ("one", "two"):
        draw_made(root, tmp_path / name)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


# How many labels were found


def made_of(expected: int | None) -> DataSet:
    return replace(MADE, expected_rows=lambda options: expected)


@pytest.mark.parametrize("expected", [13, 1000])
def test_a_label_file_with_fewer_rows_than_its_owners_is_told_in_a_line_and_in_the_card(root, out, expected, capsys):
    with undrawn():
        main(made_of(expected), "doc", ["--root", str(root), "--out", str(out), "--workers", "1"])
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert told == [f"warning: {root}: 12 labels found, {expected:,} expected"]
    assert card_of(out)["label_rows"] == {"found": 12, "expected": expected}


def test_the_line_names_the_label_file_that_was_given(root, out, tmp_path, capsys):
    path = tmp_path / "[bold]labels[link].csv"
    (root / "labels.csv").rename(path)
    with undrawn():
        main(made_of(13), "doc", ["--root", str(root), "--out", str(out), "--workers", "1", "--labels", str(path)])
    assert f"warning: {path}: 12 labels found, 13 expected\n" in capsys.readouterr().err


@pytest.mark.parametrize("expected", [None, 11, 12])
def test_a_label_file_of_all_its_rows_or_of_unknown_size_is_no_warning(root, out, expected, capsys):
    with undrawn():
        main(made_of(expected), "doc", ["--root", str(root), "--out", str(out), "--workers", "1"])
    assert "warning" not in capsys.readouterr().err
    assert card_of(out)["label_rows"] == {"found": 12, "expected": expected}


@pytest.mark.parametrize(("last", "warned"), [("0.99", True), ("5.1", False)])
def test_scores_that_lie_close_together_are_asked_about(root, out, last, warned, capsys):
    """Scores from 0 to 1 of a table whose scale is said to be 0 to 100."""
    raw = ["0.01"] * 11 + [last]
    write_labels(root, [(image_file(number)[0], "train", raw[number]) for number in range(12)])
    with undrawn():
        main(MADE, "doc", ["--root", str(root), "--out", str(out), "--workers", "1"])
    said = capsys.readouterr().err
    assert (
        "warning: all scores lie from 1.0004 to 1.0396 on the scale 1 to 5; is the scale of the labels really" in said
    ) == warned


def test_rejects_are_among_the_labels_found(tmp_path, out):
    lines = faulty_set(tmp_path / "root")
    prepare_made(tmp_path / "root", out)
    assert card_of(out)["label_rows"]["found"] == len(lines)


@pytest.mark.parametrize(
    ("dataset", "options", "rows"),
    [
        (KONIQ, (), 10073),
        (KONIQ, ("--deqa",), 7046 + 1000 + 2010),
        (KONIQ, ("--deqa-meta", "train_koniq_7k.json"), None),
        (SPAQ, (), 11125),
        (SPAQ, ("--deqa-meta", "train_spaq_9k.json"), None),
        (LIVE_WILD, (), 1162),
        (LIVE_WILD, ("--training-images",), 1169),
        (KADID, ("--split", "deqa"), 10125),
        (PIPAL, (), 23200),
        (CSIQ, (), 866),
        (TID2013, (), 3000),
        (AGIQA3K, (), 2982),
        (AVA, (), 255530),
        (TAD66K, (), 66327),
        (EVALMI, (), 50400),
        (EVALMUSE, (), None),
        (DQ495K, (), None),
        (GENAI_BENCH, (), None),
    ],
)
def test_expected_are_as_many_rows_as_the_owners_publish(dataset, options, rows):
    assert dataset.expected_rows(options_of(dataset, *options)) == rows
