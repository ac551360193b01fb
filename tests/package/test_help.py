"""What commands say of themselves and of their options."""

import pytest
from typer.testing import CliRunner

import omniq_verl
from omniq_verl.cli import app


@pytest.mark.parametrize("wrong", [["--out", "FILE"], ["--limit", "0", "--out", "x"], ["--batch", "0", "--out", "x"]])
def test_options_that_cannot_be_are_rejected_by_name(tmp_path, wrong):
    (tmp_path / "file").write_text("")
    words = [str(tmp_path / "file") if word == "FILE" else word for word in wrong]
    found = CliRunner().invoke(app, ["eval", "--model", "m", *words], env={"COLUMNS": "200", "TERM": "dumb"})
    assert found.exit_code == 2 and f"Invalid value for '{wrong[0]}'" in found.output


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["cot", "run"], "data=[data/koniq/train*.parquet]"),
        (["ract", "align"], "koniq.data=[data/koniq/train*.parquet]"),
    ],
)
def test_brackets_of_an_example_are_no_markup(words, shown):
    assert shown in CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output


def test_the_version_is_printed():
    found = CliRunner().invoke(app, ["--version"])
    assert (found.exit_code, found.output) == (0, f"omniq_verl {omniq_verl.__version__}\n")
