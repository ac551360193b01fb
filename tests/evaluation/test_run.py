"""Whole evaluations with a stand-in for the model: figures, files, restarts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_builders import RATER, grey, write_distorted, write_scored
from rich.console import Console
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import list_rows
from omniq_verl.data.rows import Row
from omniq_verl.evaluation.answers import NO_DISTORTION, judge_answers, per_image, read_answer, read_labels
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.evaluation.metrics import confusion
from omniq_verl.evaluation.report import figure_text
from omniq_verl.evaluation.run import EvalConfig, evaluate
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import RunOptions
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import OtherConfig
from omniq_verl.tasks import DEGRADATION, SEVERITIES, TECHNICAL

BUILDERS = Path(__file__).parents[1] / "builders"
VALUES = [0, 30, 60, 90, 120, 150, 180, 210, 240, 255]
TARGETS = [1.2, 1.4, 2.4, 2.0, 3.1, 3.3, 3.6, 4.6, 4.4, 4.9]


def run(data: list[Path], out: Path, script: str = "", **settings) -> dict:
    run_options = RunOptions(on="here", batch=4)
    config = EvalConfig(data, out, EngineSpec(script, RATER), run_options=run_options, resamples=50, **settings)
    return evaluate(config, Console(quiet=True))


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    return write_scored(tmp_path_factory.mktemp("scored") / "test.parquet", VALUES, TARGETS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scored) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("finished")
    worn = write_distorted(out / "worn.parquet", VALUES)
    return out / "run", run([scored, worn], out / "run", script="hostile", by=["dark"])


def test_figures_are_those_of_the_answers(finished):
    _, metrics = finished
    found = metrics["sets"]["made"]
    pairs = [(round(1 + 4 * v / 255, 2), t) for v, t in zip(VALUES, TARGETS, strict=True) if v / 255 >= 0.25]
    expected = correlations(*zip(*pairs, strict=True))
    assert {name: found[name]["value"] for name in ("plcc", "srcc", "krcc", "rmse")} == {
        name: pytest.approx(expected[name], abs=1e-12) for name in ("plcc", "srcc", "krcc", "rmse")
    }
    assert found["mae"] == pytest.approx(np.mean([abs(a - b) for a, b in pairs]))
    # Rejected are counted, are no pair, and are wrong for the accuracy.
    assert (found["images"], found["scored"], found["status"]) == (10, 7, {"ok": 7, "truncated": 3})
    right = sum(TECHNICAL.scale.level(a) == TECHNICAL.scale.level(b) for a, b in pairs)
    assert found["level_accuracy"]["value"] == pytest.approx(right / 10)


def test_distortions_are_counted_by_class_and_level(finished):
    # Labels in turn: noise slight, compression moderate, blur obvious, darken serious, none; twice. Answers: the three
    # darkest rejected, then noise slight up to 120, then none.
    found = finished[1]["sets"]["worn"]
    assert found["confusion"]["darken"]["noise"] == 1 and found["confusion"]["null"] == {
        **dict.fromkeys(("noise", "compression", "blur", "darken", "other", "rejected"), 0),
        "null": 1,
        "noise": 1,
    }
    assert found["confusion"]["noise"]["rejected"] == 1 and found["confusion"]["noise"]["null"] == 1
    # Of the eight with a distortion no level is right; of those without, that there is none says nothing of levels.
    assert found["class_accuracy"]["value"] == pytest.approx(1 / 10) and found["level_accuracy"]["value"] == 0.0
    null, noise = found["classes"]["null"], found["classes"]["noise"]
    assert (null["images"], null["class_accuracy"]["value"], null["level_accuracy"]["value"]) == (2, 0.5, None)
    assert (noise["images"], noise["class_accuracy"]["value"], noise["level_accuracy"]["value"]) == (2, 0.0, 0.0)
    assert sum(map(sum, (row.values() for row in found["confusion"].values()))) == 10


def test_a_confusion_matrix_has_levels_that_no_label_or_answer_has():
    target, answered = pd.Series(["slight", "slight", "serious"]), pd.Series(["slight", "awful", None])
    names = (*SEVERITIES, NO_DISTORTION)
    found = confusion(target, answered, names)
    assert list(found) == [*names] and all(list(row) == [*names, "other", "rejected"] for row in found.values())
    counted = {(label, said): number for label, row in found.items() for said, number in row.items() if number}
    assert counted == {("slight", "slight"): 1, ("slight", "other"): 1, ("serious", "rejected"): 1}


def test_groups_are_measured_apart(finished):
    groups = finished[1]["sets"]["made"]["groups"]["dark"]
    assert (groups["True"]["images"], groups["True"]["scored"], groups["False"]["images"]) == (5, 2, 5)
    bright = [(round(1 + 4 * v / 255, 2), t) for v, t in zip(VALUES, TARGETS, strict=True) if v >= 128]
    assert groups["False"]["plcc"]["value"] == pytest.approx(correlations(*zip(*bright, strict=True))["plcc"])
    assert groups["True"]["plcc"]["value"] is None


def test_everything_there_is_to_read_is_written(finished):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    answers, images = pd.read_parquet(out / "answers.parquet"), pd.read_parquet(out / "images.parquet")
    assert len(answers) == len(images) == 20
    assert answers.answer[0] == "<think>? | <b>no end"  # half a character has no place in a file
    report, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert figure_text(metrics["sets"]["made"]["plcc"]) in report
    assert "truncated 3" in report and "truncated 3" in page
    for name in ("made", "worn__class", "worn__level"):
        assert (out / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"plots/{name}.png" in report
    assert "<b>no end" not in page and page.count("<article>") == 14
    off = [float(label) - float(score) for score, label in re.findall(r"score ([\d.]+), label ([\d.]+)", page)]
    assert len(off) == 7 and np.all(np.diff(np.abs(off)) <= 1e-9)


def test_several_answers_are_averaged(tmp_path, scored):
    metrics = run([scored], tmp_path, sampling=Sampling(n=3, temperature=1.0))
    images = pd.read_parquet(tmp_path / "images.parquet").set_index("id")
    # 1 + 4 * 60 / 255 = 1.9412 -> 1.94, 1.95, 1.96.
    assert images.score["2"] == pytest.approx(1.95) and images.spread["2"] == pytest.approx(np.std([1.94, 1.95, 1.96]))
    assert (metrics["sets"]["made"]["answers"], metrics["sets"]["made"]["scored"]) == (30, 10)


def test_one_source_asked_two_tasks_makes_two_sets(tmp_path, scored):
    worn = write_distorted(tmp_path / "worn.parquet", VALUES[:5], source="made")
    assert set(run([scored, worn], tmp_path / "run")["sets"]) == {"made/technical", "made/degradation"}


def test_a_finished_run_asks_nothing_again_and_other_settings_are_rejected(tmp_path, scored):
    first = run([scored], tmp_path)
    stored = (tmp_path / "answers" / "0001.jsonl").read_bytes()
    assert run([scored], tmp_path) == first
    assert sorted(path.name for path in (tmp_path / "answers").glob("*.jsonl")) == ["0001.jsonl"]
    assert (tmp_path / "answers" / "0001.jsonl").read_bytes() == stored
    with pytest.raises(OtherConfig, match="seed"):
        run([scored], tmp_path, seed=1)


def test_answers_about_other_pictures_of_the_same_name_are_not_taken_for_these(tmp_path):
    data = write_scored(tmp_path / "test.parquet", VALUES, TARGETS)
    run([data], tmp_path / "out")
    write_scored(data, [255 - value for value in VALUES], TARGETS)
    with pytest.raises(OtherConfig, match=r"test\.parquet was rewritten"):
        run([data], tmp_path / "out")


def test_answers_about_another_file_are_not_taken_for_these(tmp_path):
    first = write_scored(tmp_path / "test.parquet", VALUES, TARGETS)
    found = run([first], tmp_path / "out")
    other = write_scored(tmp_path / "other.parquet", [255 - value for value in VALUES], TARGETS)
    with pytest.raises(
        OtherConfig, match=r"another file \(.*test\.parquet\), not to .*other\.parquet\. Fix: give another"
    ):
        run([other], tmp_path / "out")
    moved, more = Path(shutil.copy(first, tmp_path / "moved.parquet")), write_distorted(tmp_path / "worn", VALUES)
    assert run([moved], tmp_path / "out")["sets"] == found["sets"]
    assert set(run([moved, more], tmp_path / "out")["sets"]) == {"made", "worn"}


def test_rows_an_engine_rejects_are_named_errors(tmp_path, scored):
    found = run([scored], tmp_path, script="rejects")["sets"]["made"]
    assert found["status"] == {"ok": 7, "error": 3}


def test_an_answer_is_read_as_training_reads_it():
    read = read_answer("<think>x</think><answer>4.2</answer>", "stop", TECHNICAL)
    assert read == {"status": "ok", "score": 4.2, "level": "excellent", "distortion": None, "severity": None}
    assert read_answer("<answer>4.2</answer>", "error", TECHNICAL)["status"] == "error"
    assert read_answer("<answer>9</answer>", "stop", TECHNICAL)["score"] is None
    read = read_answer('<answer>{"distortion_class": "JPEG", "severity": null}</answer>', "stop", DEGRADATION)
    assert (read["distortion"], read["severity"]) == ("compression", "null")


def test_answers_of_other_rows_are_left_out(scored):
    labels = read_labels(list_rows([scored])[:2])
    records = [
        {"key": f"technical/{n}", "answers": [{"text": "<answer>2</answer>", "finish_reason": "stop", "tokens": 3}]}
        for n in (7, 1)
    ]
    images = per_image(labels, judge_answers(labels, records))
    assert images.key.tolist() == ["technical/1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "brand"], "keys of the details: dark"),
        (["--samples", "4", "--temperature", "0"], "temperature"),
        (["--engine", "vllm"], "no such folder"),
        (["--engine", "magic"], "unknown engine"),
    ],
)
def test_mistakes_are_named(tmp_path, scored, words, said):
    words = words if "--engine" in words else ["--engine", RATER, *words]
    command = ["eval", "--model", "/nowhere", "--data", str(scored), "--out", str(tmp_path), *words]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and said in result.output.replace("\n", " ")


def test_comparisons_are_rejected_before_the_model_is_asked(tmp_path, scored):
    row = Row("pairs", "pairs/0", "q_insight_comparison", "test", choice="first").record(0, grey(1), grey(2))
    write_parquet([row], tmp_path / "pairs.parquet")
    with pytest.raises(ValueError, match=r"pairs.parquet: its task q_insight_comparison compares images.* Fix: "):
        run([scored, tmp_path / "pairs.parquet"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_groups_nobody_belongs_to_are_found_before_the_model_is_asked(tmp_path, scored):
    with pytest.raises(ValueError, match="keys of the details: dark"):
        run([scored], tmp_path / "run", by=["brand"])
    assert not (tmp_path / "run").exists()


def test_several_files_and_a_limit_of_each(tmp_path, scored):
    other = write_scored(tmp_path / "other.parquet", VALUES[:5], TARGETS[:5], source="second")
    words = ["--model", "", "--data", str(scored), str(other), "--out", str(tmp_path / "run"), "--engine", RATER]
    with pytest.raises(ValueError, match="technical/0"):  # ids of two files that could not be told apart
        list_rows([scored, other])
    other.unlink()
    other = write_distorted(tmp_path / "other.parquet", VALUES)
    words[4] = str(other)
    result = CliRunner().invoke(app, ["eval", *words, "--limit", "6", "--resamples", "20"])
    assert result.exit_code == 0, result.output
    sets = json.loads((tmp_path / "run" / "metrics.json").read_text())["sets"]
    assert {name: one["images"] for name, one in sets.items()} == {"made": 6, "worn": 6}
    assert "made" in result.output and "report.html" in result.output


@pytest.mark.slow
def test_killed_at_five_moments_every_image_is_answered_once(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, 2000).tolist()
    data = write_scored(tmp_path / "test.parquet", values, rng.uniform(1, 5, 2000).tolist())
    out = tmp_path / "run"
    words = [sys.executable, "-m", "omniq_verl.cli", "eval", "--model", "", "--engine", RATER, "--data", str(data)]
    words += ["--out", str(out), "--batch", "32", "--resamples", "20"]
    environment = {**os.environ, "PYTHONPATH": str(BUILDERS)}
    for kill in range(5):
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while stored(out) < 40 + 350 * kill and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = stored(out)
    assert 0 < before < 2000  # killed in the midst of it
    subprocess.run(words, env=environment, check=True, capture_output=True)
    lines = [line for part in (out / "answers").glob("*.jsonl") for line in part.read_bytes().splitlines(True)]
    whole = [json.loads(line)["key"] for line in lines if line.endswith(b"\n")]
    assert len(set(whole)) == len(whole) == 2000 and len(lines) <= 2005  # a kill may tear one line each
    answers = pd.read_parquet(out / "answers.parquet")
    assert len(answers) == 2000 and answers.key.is_unique


def stored(out: Path) -> int:
    return sum(part.read_bytes().count(b"\n") for part in (out / "answers").glob("*.jsonl"))


def test_a_model_that_answers_nothing_readable_still_has_its_report(tmp_path):
    dark = [0, 10, 20, 30, 40]
    scored = write_scored(tmp_path / "scored.parquet", dark, TARGETS[:5])
    worn = write_distorted(tmp_path / "worn.parquet", dark)
    metrics = run([scored, worn], tmp_path / "run", script="hostile")["sets"]
    assert metrics["made"]["scored"] == metrics["worn"]["scored"] == 0
    assert metrics["made"]["plcc"] == {
        **{"value": None, "low": None, "high": None, "n": 0, "undefined": 0},
        "why": "no images scored, but three are needed",
    }
    assert metrics["worn"]["class_accuracy"]["value"] == 0.0
    assert "truncated 5" in (tmp_path / "run" / "report.md").read_text()
    assert sorted(path.name for path in (tmp_path / "run" / "plots").iterdir()) == ["made.png", "worn__class.png"]
