"""The conditions that every report carries, and what may not stand in one table."""

import json
import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

import pytest
from evaluation_builders import RATER, write_scored
from omegaconf import OmegaConf
from typer.testing import CliRunner

import omniq_verl
from omniq_verl.cli import app
from omniq_verl.data.files import file_digest
from omniq_verl.data.row_refs import list_rows
from omniq_verl.generation import provenance as module
from omniq_verl.generation.provenance import data_record, lines_of, record_start

VALUES = [0, 30, 60, 90, 120, 150, 180, 210, 240, 255]
TARGETS = [1.2, 1.4, 2.4, 2.0, 3.1, 3.3, 3.6, 4.6, 4.4, 4.9]


def evaluate(data: Path, out: Path, *words: object, model: object = "m") -> str:
    command = ["eval", "--model", model, "--engine", RATER, "--data", data, "--out", out, "--resamples", "50", *words]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    return result.output


def metrics_of(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_scored(folder / "test.parquet", VALUES, TARGETS)
    evaluate(folder / "test.parquet", folder / "all")
    evaluate(folder / "test.parquet", folder / "some", "--limit", 6)
    evaluate(folder / "test.parquet", folder / "more", "--limit", 600)
    return folder


def test_a_report_has_rows_limit_hash_model_sampling_seed_versions_command_and_date(made):
    record = metrics_of(made / "some")["provenance"]
    assert record["data"]["limit"] == metrics_of(made / "some")["limit"] == 6 and record["data"]["rows"] == 6
    (file,) = record["data"]["files"]
    assert file == {
        "path": str(made / "test.parquet"),
        "xxh128": file_digest(made / "test.parquet"),
        "rows": 10,
        "used": 6,
    }
    assert record["versions"]["omniq_verl"] == omniq_verl.__version__
    assert all(record["versions"][name] for name in ("python", "torch", "transformers", "vllm", "verl"))
    assert record["model"]["model"] == "m" and record["sampling"]["n"] == 1 and record["seed"] == 0
    age = datetime.now(timezone.utc) - datetime.fromisoformat(record["date"])
    assert 0 <= age.total_seconds() < 600
    report, page = (made / "some" / "report.md").read_text(), (made / "some" / "report.html").read_text()
    for text in (report, page):
        assert "6 of 10 (--limit 6)" in text and "Only the first 6 rows of each file" in text
        for word in (record["date"], record["data"]["rows_xxh128"], file["xxh128"], record["versions"]["torch"]):
            assert word in text
    assert set(dict(lines_of(record))) >= {"date (UTC)", "command", "rows", "model", "sampling", "seed", "versions"}


def test_the_hash_of_the_rows_is_of_the_rows_that_are_used(made, tmp_path):
    refs = list_rows([made / "test.parquet"])
    hashes = {data_record(some)["rows_xxh128"] for some in (refs, refs[:6], refs[1:])}
    assert len(hashes) == 3 and data_record(refs[::-1])["rows_xxh128"] in hashes
    other = list_rows([write_scored(tmp_path / "test.parquet", VALUES, [*TARGETS[:-1], 4.8])])
    assert data_record(other)["rows_xxh128"] not in hashes


def test_the_same_command_again_leaves_every_file_as_it_was(tmp_path):
    data, out = write_scored(tmp_path / "test.parquet", VALUES, TARGETS), tmp_path / "out"
    evaluate(data, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.suffix != ".png"}
    evaluate(data, out)
    assert {path: path.read_bytes() for path in before} == before


def test_a_start_with_another_command_or_other_versions_is_added(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/omniq", "eval", "--data", "a b.parquet"])
    (first,) = record_start(tmp_path)
    assert first["command"] == "omniq eval --data 'a b.parquet'" and record_start(tmp_path) == [first]
    monkeypatch.setattr("sys.argv", ["/usr/bin/omniq", "eval", "--limit", "3"])
    assert [one["command"] for one in record_start(tmp_path)] == [first["command"], "omniq eval --limit 3"]
    monkeypatch.setattr(module, "versions", lambda: {"torch": "9"})
    *_, last = record_start(tmp_path)
    assert last["versions"] == {"torch": "9"} and len(record_start(tmp_path)) == 3
    (tmp_path / "starts.json").write_text("{torn")
    assert len(record_start(tmp_path)) == 1


def compare(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, words)], env={"COLUMNS": "300", "TERM": "dumb"})
    return result.exit_code, " ".join(result.output.split())


def test_runs_with_other_limits_do_not_stand_in_one_table(made):
    code, text = compare(made / "all", made / "some")
    assert code == 1 and "different rows of made/technical: all 10, some 6 (--limit 6), 6 in common" in text
    assert "Fix: evaluate both with the same --limit" in text
    assert compare(made / "some", made / "all")[0] == 1


def test_a_limit_beyond_the_end_of_the_files_is_no_other_limit(made):
    assert compare(made / "all", made / "more")[0] == 0


def test_a_limited_run_is_marked_wherever_its_figures_stand(made, tmp_path):
    code, text = compare(made / "some", "--paper", "omniquality_r:1", "--out", tmp_path)
    assert code == 0 and "some (--limit 6)" in text and "rows 6 of 10 (--limit 6)" in text
    assert "some measured only the first 6 rows of each file" in text
    page, found = (tmp_path / "compare.md").read_text(), json.loads((tmp_path / "compare.json").read_text())
    assert re.search(r"\| some \(--limit 6\) +\|", page) and "measured only the first 6 rows of each file" in page
    assert "made: 6 of 6 images scored" in page
    assert found["provenance"]["versions"] and found["runs"][0]["provenance"]["data"]["rows"] == 6


def test_runs_over_other_files_are_marked(made, tmp_path):
    data = write_scored(tmp_path / "test.parquet", VALUES[:8], TARGETS[:8])
    evaluate(data, tmp_path / "other")
    code, text = compare(made / "all", tmp_path / "other")
    assert code == 0 and "other (other rows)" in text
    assert "different rows of made/technical: all 10, other 8, 8 in common" in text


@pytest.mark.parametrize(("split", "warned"), [("train", True), ("Training", True), ("val", False), ("test", False)])
def test_training_rows_are_said_on_the_screen_and_in_the_report(tmp_path, split, warned):
    data = write_scored(tmp_path / "rows.parquet", VALUES, TARGETS, split=split)
    said = evaluate(data, tmp_path / "out")
    found = metrics_of(tmp_path / "out")["warnings"]
    assert ("warning: 10 of 10 rows are training rows" in said) == bool(found) == warned
    for name in ("report.md", "report.html"):
        assert ("10 of 10 rows are training rows" in (tmp_path / "out" / name).read_text()) == warned


def test_rows_of_a_file_that_the_model_was_trained_on_are_said(tmp_path):
    data = write_scored(tmp_path / "rows.parquet", VALUES, TARGETS)
    model = tmp_path / "run" / "global_step_3" / "huggingface"
    model.mkdir(parents=True)
    config = tmp_path / "run" / "hydra" / "config.yaml"
    config.parent.mkdir()
    for files, warned in ((str(data), True), ([str(data), "b.parquet"], True), ("c.parquet", False), (None, False)):
        OmegaConf.save({"data": {"train_files": files}, "seed": "${oc.env:NONE}"}, config)
        assert ("rows are training rows" in evaluate(data, tmp_path / "out", model=model)) == warned
        shutil.rmtree(tmp_path / "out")


def test_images_that_come_twice_are_said_and_counted_twice(tmp_path):
    data = write_scored(tmp_path / "rows.parquet", [10, 90, 10, 200, 10], TARGETS[:5])
    said = evaluate(data, tmp_path / "out")
    assert "warning: 2 of 5 rows show an image that another row of their task also shows" in said
    assert metrics_of(tmp_path / "out")["sets"]["made"]["images"] == 5


def test_what_the_tables_leave_out_is_said_below_them(tmp_path):
    data = write_scored(tmp_path / "rows.parquet", [51] * 13 + [255], [1 + n / 4 for n in range(14)])
    said = evaluate(data, tmp_path / "out")
    figures = metrics_of(tmp_path / "out")["sets"]["made"]
    assert figures["plcc"]["low"] is None and figures["plcc"]["undefined"] > 5 and figures["plcc"]["n"] == 14
    sentence = f"made: PLCC, SRCC, KRCC: no interval: {figures['plcc']['undefined']} of 50 resamples are undefined"
    for text in (said, (tmp_path / "out" / "report.md").read_text(), (tmp_path / "out" / "report.html").read_text()):
        assert sentence in text
    constant = write_scored(tmp_path / "constant.parquet", [51] * 5, TARGETS[:5])
    assert "undefined (-): all scores are equal" in evaluate(constant, tmp_path / "constant")
    assert "undefined (-): all scores are equal" in compare(tmp_path / "constant")[1]
