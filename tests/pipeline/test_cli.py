"""``omniq reproduce`` from the command line: plan, status, run, and what is wrong in one sentence."""

import json
import shutil
from pathlib import Path

import pytest
from doctor_builders import tiny_model
from pipeline_builders import python_stage, quick_experiment, runs, writer
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.pipeline import experiments, marks, runner
from omniq_verl.pipeline.checkpoint import link
from omniq_verl.pipeline.experiment import Experiment
from omniq_verl.trainer.best_checkpoint import keep_best

WIDE = {"COLUMNS": "250", "TERM": "dumb"}


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["reproduce", *map(str, words)], env=WIDE)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick commands take the place of Q-Insight's trainings, and their results that of what is measured."""
    monkeypatch.setitem(experiments.TINY, "q_insight", lambda _repo, root, seeds: quick_experiment(root, seeds))
    monkeypatch.setattr(runner, "_TICK", 0.02)


def test_a_run_ends_with_its_tables_and_a_second_one_does_nothing(quick, tmp_path):
    code, text = invoke("q_insight", "--out", tmp_path / "run", "--seeds", "0", "2", "--jobs", "3")
    assert code == 0 and f"tables: {tmp_path / 'run' / 'tables.md'}" in text, text
    tables = (tmp_path / "run" / "tables.md").read_bytes()
    assert b"Q-Insight (ours), score only" in tables and b"one data set is too few" in tables
    assert json.loads((tmp_path / "run" / "tables.json").read_text())["seeds"] == [0, 2]
    code, text = invoke("q_insight", "--out", tmp_path / "run", "--seeds", "0", "2")
    assert code == 0 and text.count("done before") == 8
    assert (tmp_path / "run" / "tables.md").read_bytes() == tables and len(runs(tmp_path / "run")) == 8


def test_the_status_shows_what_is_done_and_starts_nothing(quick, tmp_path):
    code, text = invoke("q_insight", "--out", tmp_path / "run", "--status")
    assert code == 0 and "0 of 4 stages are done" in text and not (tmp_path / "run").exists()
    invoke("q_insight", "--out", tmp_path / "run", "--only", "b")
    code, text = invoke("q_insight", "--out", tmp_path / "run", "--status")
    assert code == 0 and "2 of 4 stages are done" in text and text.count("to do") == 2


def test_only_some_stages_are_run_and_the_tables_name_what_is_missing(quick, tmp_path):
    code, text = invoke("q_insight", "--out", tmp_path / "run", "--only", "b", "c")
    assert code == 0 and sorted(runs(tmp_path / "run")) == ["a", "b", "c"]
    assert "joint: seed0/d is not done yet" in text.replace("\n", " ")
    code, text = invoke("q_insight", "--out", tmp_path / "run", "--only", "x")
    assert code == 1 and "--only x matches no stage. Fix: use one of" in text


@pytest.mark.parametrize("name", ["Qwen 7B", "step=100", "a,b", "model[1]", "mod\u00e8le"])
def test_a_model_whose_name_hydra_would_not_read_is_named_before_anything_starts(tmp_path, name):
    (tmp_path / name).mkdir()
    words = ("omniquality_r", "--scale", "paper", "--out", tmp_path / "run", "--dry-run", "--model")
    code, text = invoke(*words, tmp_path / name)
    assert code == 1
    assert f"{name} has characters that are not allowed in training settings. Fix: link the model's" in text


def test_a_models_folder_is_the_same_wherever_a_stage_runs(tmp_path, monkeypatch):
    (tmp_path / "models" / "base").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "models")
    for model in ("base", "~/models/base", str(tmp_path / "models" / "base")):
        found = experiments.build("omniquality_r", "paper", tmp_path / "run", [0], None, model)
        words = [word for stage in found.stages for word in stage.command if word.startswith("model.path=")]
        assert f"model.path={tmp_path / 'models' / 'base'}" in words
    named = experiments.build("omniquality_r", "paper", tmp_path / "run", [0], None, "Qwen/Qwen2.5-VL-3B-Instruct")
    assert any("model.path=Qwen/Qwen2.5-VL-3B-Instruct" in stage.command for stage in named.stages)


def test_a_plan_needs_no_data_and_names_what_is_missing(tmp_path):
    (tmp_path / "data").mkdir()
    words = (
        "omniquality_r",
        "--scale",
        "paper",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "run",
        "--only",
        "sft",
    )
    code, text = invoke(*words, "--dry-run")
    assert code == 0 and "ava, evalmuse, koniq not found" in text.replace("\n", " ") and "\n  sft " in text
    code, text = invoke(*words)
    assert code == 1 and "needed for training. Fix: download them" in text.replace("\n", " ")


def test_a_dry_run_prints_every_stage_with_its_cost_and_starts_nothing(tmp_path):
    code, text = invoke("q_insight", "--out", tmp_path / "run", "--dry-run")
    assert code == 0 and "\nseed0" in text and "\n  joint_test " in text and "quickstart, two cores" in text
    assert "all stages one after the other" in text and not (tmp_path / "run").exists()


def test_the_papers_plan_needs_no_data_and_its_status_lists_the_data_sets(tmp_path):
    code, text = invoke("q_insight", "--scale", "paper", "--out", tmp_path / "run", "--dry-run", "--only", "joint")
    assert code == 0 and "GPU-hours" in text and "docs/benchmarks.md" in text
    code, text = invoke("q_insight", "--scale", "paper", "--out", tmp_path / "run", "--status")
    assert code == 0 and "0 of 16 data sets are ready" in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing"], 1, "no experiment 'nothing'. Fix: use one of omniquality_r, q_insight, ract, rali, findings"),
        (["findings", "--scale", "paper", "--dry-run"], 1, "findings has no scale paper. Fix: use --scale tiny"),
        (["ract", "--scale", "huge"], 1, "Fix: use --scale tiny or --scale paper"),
        (["ract", "--scale", "paper"], 1, "--scale paper needs data. Fix: add --data FOLDER"),
        (["ract", "--data", "."], 1, "have no effect with --scale tiny. Fix: leave them out"),
        (["ract", "--seeds", "1", "--seeds", "1"], 1, "each once"),
        (["ract", "7"], 2, "7 belongs to no option. Fix: put --seeds before it"),
        (["ract", "sft"], 2, "sft belongs to no option. Fix: put --only before it"),
        (["ract", "--changed", "maybe"], 1, "--changed maybe is none of stop, keep, again. Fix: use one of them"),
        (["ract", "--scale", "paper", "--data", "no/folder", "--dry-run"], 1, "Fix: name the folder that holds"),
        (["ract", "--status", "--dry-run"], 1, "--status and --dry-run show different things. Fix: give one of them"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, words, code, said):
    found, text = invoke(*words, "--out", tmp_path / "run")
    assert found == code and said in " ".join(text.replace("│", " ").split()), text


def test_figures_of_other_code_are_not_mixed_into_a_table(quick, tmp_path, monkeypatch):
    run = tmp_path / "run"
    invoke("q_insight", "--out", run)
    monkeypatch.setattr(marks, "code_digest", lambda: "other")
    code, text = invoke("q_insight", "--out", run, "--only", "b", "--changed", "again")
    assert code == 0 and "joint: seed0/d is out of date: other code" in text.replace("\n", " ")
    tables = json.loads((run / "tables.json").read_text())["tables"]["q_insight:4"]
    assert list(tables["rows"]) == ["score only"] and "seed0/d is out of date: other code" in tables["missing"][0]
    assert invoke("q_insight", "--out", run, "--changed", "keep")[0] == 0  # accepted: its figures stand again
    tables = json.loads((run / "tables.json").read_text())["tables"]["q_insight:4"]
    assert list(tables["rows"]) == ["joint", "score only"] and len(runs(run)) == 6


@pytest.mark.parametrize(("gpus", "code"), [(2, 0), (3, 1)])
def test_stages_get_the_gpus_that_the_user_has_named(tmp_path, monkeypatch, gpus, code):
    def on_gpus(_repo: Path, root: Path, seeds: tuple[int, ...]) -> Experiment:
        note = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
        return Experiment("x", "tiny", seeds, [python_stage("a", note, root / "a" / "seen", gpus=gpus)], ())

    monkeypatch.setitem(experiments.TINY, "q_insight", on_gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    found, text = invoke("q_insight", "--out", tmp_path)
    assert found == code, text
    if code:
        assert "stage a needs 3 GPUs, but 2 are here. Fix: " in text and "CUDA_VISIBLE_DEVICES" in text
    else:
        assert (tmp_path / "a" / "seen").read_text() == "4,6"


def test_a_folder_that_other_settings_made_is_not_overwritten(quick, tmp_path, monkeypatch):
    invoke("q_insight", "--out", tmp_path / "run")

    def other(_repo: Path, root: Path, seeds: tuple[int, ...]) -> Experiment:
        return Experiment("q_insight", "tiny", seeds, [writer(root, "seed0/a")], ())

    monkeypatch.setitem(experiments.TINY, "q_insight", other)
    code, text = invoke("q_insight", "--out", tmp_path / "run")
    assert code == 1 and "was made with other settings. Fix: name another folder, or add --changed again" in text
    assert invoke("q_insight", "--out", tmp_path / "run", "--changed", "again")[0] == 0


def checkpoint(run: Path, step: int) -> Path:
    folder = run / f"global_step_{step}" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (run / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def test_the_link_leads_to_the_newest_checkpoint_and_can_be_made_again(tmp_path):
    first = checkpoint(tmp_path / "run", 5)
    assert link(tmp_path / "run", tmp_path / "model").resolve() == first
    second = checkpoint(tmp_path / "run", 10)
    assert link(tmp_path / "run", tmp_path / "model").resolve() == second
    (tmp_path / "moved").mkdir()
    (tmp_path / "run").rename(tmp_path / "moved" / "run")
    (tmp_path / "model").rename(tmp_path / "moved" / "model")
    assert (tmp_path / "moved" / "model" / "huggingface" / "config.json").is_file()  # a run's folder can be moved


def trained(run: Path) -> Path:
    """A run whose fifth step validated best and whose tenth is its newest; verl has deleted the fifth."""
    tiny_model(run / "global_step_5" / "actor" / "huggingface")
    for step, srcc in ((5, 0.9), (10, 0.8)):
        metrics = {"val-aux/a/scored": 8.0, "val-core/a/srcc": srcc, "val-core/mean/srcc": srcc}
        keep_best(run, step, metrics, "srcc")
    shutil.rmtree(run / "global_step_5")
    return checkpoint(run, 10)


def test_the_link_leads_to_the_checkpoint_that_validated_best(tmp_path, capsys):
    run = tmp_path / "run"
    newest = trained(run)
    assert link(run, tmp_path / "model").resolve() == run / "best" / "global_step_5"
    assert "the best checkpoint by val-core/mean/srcc" in capsys.readouterr().out
    (run / "best_checkpoint.json").unlink()
    assert link(run, tmp_path / "model").resolve() == newest
    assert "the newest checkpoint" in capsys.readouterr().out


def test_a_best_checkpoint_that_is_gone_is_an_error_and_not_the_newest(tmp_path):
    trained(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "best")
    with pytest.raises(ValueError, match=r"best/global_step_5: .* holds no model. Fix: "):
        link(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_run_without_a_checkpoint_has_no_link(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=r"holds no checkpoint. Fix: "):
        link(tmp_path / "run", tmp_path / "model")
