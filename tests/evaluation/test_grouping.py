"""Groups of an evaluation: by what they can be made, and what is rejected before a model is asked."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from evaluation_builders import RATER, grey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.evaluation.grouping import group_names, in_order

MISSING = object()


def write(path: Path, values: list[Any]) -> Path:
    """Rows whose details have these values under ``key``."""
    rows = [
        Row("x", f"x/{n}", "technical", "test", 1.0 + n % 4, 1.0 + n % 4, (1.0, 5.0),
            details={"other": n % 2} if value is MISSING else {"key": value})
        for n, value in enumerate(values)
    ]  # fmt: skip
    write_parquet([one.record(n, grey(9 * n)) for n, one in enumerate(rows)], path)
    return path


def evaluate(folder: Path, values: list[Any], engine: str, key: str = "key") -> tuple[int, str]:
    file = write(folder / "test.parquet", values)
    words = ["eval", "--model", "m", "--engine", engine, "--data", str(file), "--out", str(folder / "out")]
    result = CliRunner().invoke(app, [*words, "--by", key, "--resamples", "20"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1, 0], [1, 1]] * 3, "the value in technical/x/0 is a list"),
        (["a", "b", ["a"]], "the value in technical/x/2 is a list"),
        ([[], []], "the value in technical/x/0 is a list"),
        ([{"a": 1}, {"a": 1}], "the value in technical/x/0 is an object"),
        ([1, "1", 1], "different types: 1 (a number, technical/x/0) and '1' (text, technical/x/1)"),
        ([True, 1, True], "different types"),
        ([True, "True"], "different types"),
        ([None, None, math.nan], "no row has 'key'"),
        ([MISSING, MISSING], "no row has 'key' to group by; keys of the details: other"),
        ([0.5 * n for n in range(30)], "all 30 rows have different values"),
        ([f"name {n}" for n in range(30)], "all 30 rows have different values"),
    ],
)
def test_what_makes_no_groups_is_rejected_before_the_model_is_asked(tmp_path, values, said):
    code, text = evaluate(tmp_path, values, "evaluation_builders:never")
    assert code == 1 and said in text and "\n" not in text.strip(), text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "groups", "ungrouped"),
    [
        (["a", "b", "a", "a"], {"a": 3, "b": 1}, 0),
        ([True, False, True], {"False": 1, "True": 2}, 0),
        ([10, 9, 10, 100], {"9": 1, "10": 2, "100": 1}, 0),
        ([1, 1.0, 2.5], {"1": 2, "2.5": 1}, 0),
        ([1, None, math.nan, MISSING, 1], {"1": 2}, 3),
        (["a", None, "a", MISSING], {"a": 2}, 2),
        (["", " ", ""], {"": 2, " ": 1}, 0),
    ],
)
def test_every_image_is_in_one_group_or_counted(tmp_path, values, groups, ungrouped):
    code, text = evaluate(tmp_path, values, RATER)
    assert code == 0, text
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["sets"]["x"]
    assert {name: one["images"] for name, one in found["groups"]["key"].items()} == groups
    assert list(found["groups"]["key"]) == list(groups) and found["ungrouped"]["key"] == ungrouped
    report = (tmp_path / "out" / "report.md").read_text()
    assert (f"{ungrouped} of {len(values)} images have no 'key'" in report) == bool(ungrouped)


@pytest.mark.parametrize("key", ["score", "answers", "parsed", "spread", "level_right"])
def test_a_key_of_the_details_is_not_mistaken_for_a_result_of_the_same_name(tmp_path, key):
    rows = [Row("x", f"x/{n}", "technical", "test", 2.0, 2.0, (1.0, 5.0), details={key: "ab"[n % 2]}) for n in range(4)]
    write_parquet([one.record(n, grey(9 * n)) for n, one in enumerate(rows)], tmp_path / "test.parquet")
    words = ["eval", "--model", "m", "--engine", RATER, "--data", str(tmp_path / "test.parquet"), "--by", key]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--resamples", "20"])
    assert result.exit_code == 0, result.output
    groups = json.loads((tmp_path / "out" / "metrics.json").read_text())["sets"]["x"]["groups"][key]
    assert {name: one["images"] for name, one in groups.items()} == {"a": 2, "b": 2}


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(max_size=2), SCALARS, max_size=2))


@settings(deadline=None, max_examples=500)
@given(st.lists(VALUES, min_size=1, max_size=6))
def test_groups_are_of_equal_values_or_rejected_by_name(values):
    labels = pd.DataFrame({"key": [f"row {n}" for n in range(len(values))]})
    labels["details"] = [json.dumps({"it": value}) for value in values]
    try:
        names = group_names(labels, "it")
    except ValueError as error:
        assert "it" in str(error)
        return
    for value, name in zip(values, names, strict=True):
        assert (name is None) == (value is None or value != value)
    known = [(value, name) for value, name in zip(values, names, strict=True) if name is not None]
    for value, name in known:
        assert all((value == other) == (name == another) for other, another in known)
    assert sorted(in_order(names)) == sorted({name for _, name in known})
