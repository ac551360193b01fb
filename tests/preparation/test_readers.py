"""What the readers of label files share: numbers, draws, names on the disk, tables."""

import argparse
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_builders import written

from omniq_verl.preparation.cli import Request
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.readers import draw, label_files, number, on_disk, read_records, read_table, share, text


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("3.5", 3.5),
        (" 3.5\t", 3.5),
        ("1e1", 10.0),
        (4, 4.0),
        (np.float64(0.5), 0.5),
        ("3_1", None),  # Python reads 31
        ("nan", None),
        (float("inf"), None),
        ("", None),
        ("#REF!", None),
        (None, None),
        (True, None),
        ([3], None),
        (10**400, None),
    ],
    ids=repr,
)
def test_a_number_is_read_as_such_or_not_at_all(cell, value):
    assert number(cell) == value


@settings(deadline=None)
@given(st.integers(), st.text(), st.text())
def test_a_draw_depends_on_seed_and_key_alone(seed, first, second):
    drawn = draw(seed, first, second)
    assert 0.0 <= drawn < 1.0
    assert drawn == draw(seed, first, second)


def test_draws_are_even_and_independent():
    drawn = np.array([[draw(seed, str(key)) for key in range(4000)] for seed in (0, 1)])
    assert len(np.unique(drawn)) == 8000
    counts = np.histogram(drawn[0], bins=10, range=(0, 1))[0]
    # 4,000 draws into ten bins: 400 each, a standard deviation of 19; five of them.
    assert abs(counts - 400).max() < 95
    # The correlation of independent draws has a standard deviation of 0.016.
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.08
    assert draw(0, "ab", "c") != draw(0, "a", "bc")


@pytest.mark.parametrize("given", ["-0.1", "1.1", "nan", "x", ""])
def test_a_share_lies_between_0_and_1(given):
    with pytest.raises(argparse.ArgumentTypeError, match="not a share from 0 to 1"):
        share(given)
    assert (share("0"), share("1"), share("0.25")) == (0.0, 1.0, 0.25)


@pytest.mark.parametrize(
    ("there", "name", "found", "why"),
    [
        (["a.png"], "a.png", "a.png", "as it is named"),
        (["a.jpg"], "a.png", "a.jpg", "only the other is there"),
        (["a.png", "a.jpg"], "a.png", "a.png", "both are there"),
        ([], "a.png", "a.png", "neither is there"),
        (["a.jpg"], "../a.png", "../a.png", "no name to follow"),
        (["a.jpg"], "", "", "no name"),
    ],
)
def test_another_suffix_is_taken_only_where_the_named_file_is_missing(tmp_path, there, name, found, why):
    for path in there:
        written(tmp_path / path, "x")
    assert on_disk(FileIndex(tmp_path), name, ".jpg") == found, why


def test_several_label_files_are_found_below_the_labels_folder_alone(tmp_path):
    written(tmp_path / "images" / "a.csv", "x")
    written(tmp_path / "labels" / "deep" / "A.csv", "x")
    written(tmp_path / "labels" / "b.csv", "x")
    request = Request(FileIndex(tmp_path / "images"), "technical", tmp_path / "labels", argparse.Namespace())
    assert label_files(request, "a.csv", "b.csv") == [tmp_path / "labels/deep/A.csv", tmp_path / "labels/b.csv"]
    with pytest.raises(LabelFileError, match=r"there is no c\.csv, no d\.csv below it"):
        label_files(request, "a.csv", "c.csv", "d.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.jsonl"])
def test_a_table_is_read_by_its_suffix(tmp_path, name):
    rows = "image,score\na.png,3\n" if name.lower() == "t.csv" else '{"image": "a.png", "score": "3"}\n'
    assert list(read_table(written(tmp_path / name, rows), ["image"], ["score"])) == [{"image": "a.png", "score": "3"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", "image\tscore\n", r"neither in \.csv nor in \.jsonl"),
        ("t.csv", "image\na.png\n", "no column score"),
        ("t.jsonl", '{"image": "a.png"}\n', "entry 1 lacks score"),
        ("t.jsonl", '{"image": null, "score": 3}\n', "entry 1 lacks image"),
    ],
)
def test_a_table_without_a_column_is_rejected(tmp_path, name, content, message):
    with pytest.raises(LabelFileError, match=message):
        list(read_table(written(tmp_path / name, content), ["image"], ["score"]))


def test_records_are_read_in_their_order(tmp_path):
    records = [{"image": "b"}, {"image": "a", "more": 3}]
    assert list(read_records(written(tmp_path / "t.json", json.dumps(records)), ["image"])) == records


@pytest.mark.parametrize(("cell", "found"), [("x", "x"), ("", ""), (None, None), (3, None)])
def test_only_text_is_text(cell, found):
    assert text(cell) == found
