"""The commands of ``omniq findings``: one line where something is wrong, one real run from end to end, and names."""

from pathlib import Path

import pytest
import typer
from findings_builders import save_model, setup_of, write_rows
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.findings.setup import questions

COMMANDS = [*typer.main.get_command(app).commands["findings"].commands]
READ = [name for name in COMMANDS if name not in ("reward-hacking", "sft-data")]


def run(*words: object):
    return CliRunner().invoke(app, ["findings", *map(str, words)])


def test_every_finding_of_the_guide_is_a_command():
    assert set(COMMANDS) == {
        *("attention", "swap", "self-consistency", "text-only", "domain-gap", "reward-hacking", "gate"),
        *("no-reasoning", "sft-data"),
    }


@pytest.mark.parametrize("name", READ)
def test_a_file_that_is_not_there_is_one_line_with_the_fix(tmp_path, name):
    folder = tmp_path / "step"
    folder.mkdir()
    more = ["--vision", folder] if name == "swap" else []
    words = ["--model", folder, "--data", tmp_path / "no.parquet", "--out", tmp_path / "out", "--engine", "hf", *more]
    found = run(name, *words)
    assert found.exit_code == 1
    assert "Fix: " in found.output and len(found.output.strip().splitlines()) <= 2, found.output


def test_one_model_twice_is_one_line(tmp_path):
    folder = save_model(tmp_path / "step")
    data = write_rows(tmp_path / "rows.parquet", [1.0])
    found = run("attention", "--model", folder, "--model", folder, "--data", data, "--out", tmp_path / "out")
    assert found.exit_code == 1 and "given twice" in found.output


def test_a_run_that_is_not_there_is_one_line(tmp_path):
    found = run("reward-hacking", "--run", tmp_path / "none", "--out", tmp_path / "out")
    assert found.exit_code == 1 and "no metrics" in found.output


def test_no_reasoning_from_the_command_line_to_the_page(tmp_path):
    folder, data = save_model(tmp_path / "step"), write_rows(tmp_path / "rows.parquet", [1.5, 2.5, 3.5, 4.5])
    words = ["--model", folder, "--data", data, "--engine", "hf", "--max-tokens", 4, "--resamples", 50]
    found = run("no-reasoning", *words, "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "out/no_reasoning.html").is_file() and "no_reasoning.json" in found.output.replace("\n", "")
    for ending in ("pdf", "png"):
        assert (tmp_path / f"out/no_reasoning.{ending}").stat().st_size > 3000


def test_models_are_named_by_what_tells_them_apart(tmp_path):
    runs = [tmp_path / name / "global_step_20/actor/huggingface" for name in ("first", "second")]
    assert setup_of(tmp_path, runs, []).names() == ["first", "second"]
    assert setup_of(tmp_path, runs[:1], []).names() == ["global_step_20"]
    assert setup_of(tmp_path, [Path("models/base"), runs[0]], []).names()[0].endswith("base")


def test_a_row_whose_image_is_gone_asks_without_one(tmp_path):
    from omniq_verl.data.parquet import write_parquet
    from omniq_verl.data.rows import Row

    row = Row("made", "1", "technical", "test", 2.0, 2.0, (1.0, 5.0)).record(0, str(tmp_path / "gone.png"))
    write_parquet([row], tmp_path / "rows.parquet")
    [asked] = questions(setup_of(tmp_path, [tmp_path], [tmp_path / "rows.parquet"]).refs())
    assert asked.images == () and asked.messages[0]["content"].startswith("<image>")
