"""Tables of papers beside figures of stages: what is measured, what is missing, and the same bytes again."""

import json
import math
from pathlib import Path

import pytest
from pipeline_builders import python_stage, quiet

from omniq_verl.evaluation.papers import load_table
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
from omniq_verl.pipeline.experiments import build
from omniq_verl.pipeline.process import StageFailed
from omniq_verl.pipeline.readers import evaluated, measured, of_paper, parsable, share_kept
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.summary import markdown_table, spread, value_of
from omniq_verl.pipeline.tables import fill, together, write_tables


def write(folder: Path, name: str, what: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(what))


def score_set(source: str, plcc: float | None, srcc: float, task: str = "technical") -> dict:
    figures = {"plcc": {"value": plcc}, "srcc": {"value": srcc}}
    return {"data_source": source, "task": task, "answers": 10, "status": {"ok": 9, "no_answer": 1}, **figures}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5], "0.500"),
        ([0.0, 1.0, 2.0], "1.000 ± 1.000"),  # sample deviation: sqrt((1 + 0 + 1) / 2)
        ([0.1, math.nan], "-"),
        ([], "-"),
    ],
)
def test_a_cell_is_the_mean_and_the_sample_deviation(values, text):
    assert spread(values) == text


def test_bars_do_not_break_a_table():
    assert markdown_table(["a|b"], [["1"]]) == "| a\\|b |\n| --- |\n| 1 |\n"


def test_what_is_not_defined_is_no_number():
    assert value_of({"value": 0.25}) == 0.25 and math.isnan(value_of({"value": None}))


def test_figures_of_the_quickstarts_measurement(tmp_path):
    mode = {"srcc": 0.6, "plcc": None, "mae": 0.8, "parsed": 1.0, "reward": 0.5}
    write(tmp_path / "x_test", "metrics.json", {"greedy": mode, "sampled": {**mode, "reward": 0.4}})
    steps = [{"step": n, "data": {"filter/groups_kept": 3, "filter/groups_dropped": n}} for n in (1, 2)]
    (tmp_path / "x" / "metrics").mkdir(parents=True)
    (tmp_path / "x" / "metrics" / "001.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    found = measured(tmp_path / "x_test")
    assert found["SRCC (greedy)"] == 0.6 and math.isnan(found["PLCC (greedy)"])
    assert found["reward (temperature 1)"] == 0.4 and found["groups kept"] == pytest.approx(6 / 9)
    assert math.isnan(share_kept(tmp_path / "y"))
    none = {"step": 1, "data": {"filter/groups_kept": 0, "filter/groups_dropped": 4}}
    write(tmp_path / "z" / "metrics", "001.jsonl", none)
    assert share_kept(tmp_path / "z") == 0  # a run that dropped everything is not one without a filter


def test_a_broken_file_of_figures_is_named(tmp_path):
    write(tmp_path / "x", "metrics.json", {})
    (tmp_path / "x" / "metrics.json").write_text('{"sets"')
    with pytest.raises(ValueError, match=r"x/metrics\.json is broken .*Fix: delete its folder and"):
        evaluated({})(tmp_path / "x")
    assert math.isnan(parsable({}))


@pytest.mark.parametrize(("saved", "lost"), [("2", False), ("3", True)])
def test_a_share_without_the_steps_that_a_kill_lost_is_no_figure(tmp_path, saved, lost):
    (tmp_path / "metrics").mkdir()
    steps = [{"step": n, "data": {"filter/groups_kept": 3, "filter/groups_dropped": 1}} for n in (1, 2)]
    (tmp_path / "metrics" / "001.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    assert share_kept(tmp_path) == 0.75
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(saved)
    assert math.isnan(share_kept(tmp_path)) == lost


def test_figures_of_an_evaluation(tmp_path):
    sets = {"a": score_set("a", 0.5, 0.4), "b": {**score_set("b", 0.1, 0.2), "status": {"ok": 5}}}
    write(tmp_path, "metrics.json", {"sets": sets})
    assert evaluated({"A": ("a", "plcc"), "B": ("b", "srcc")})(tmp_path) == {"A": 0.5, "B": 0.2, "parsable": 0.7}
    assert parsable(sets) == 0.7


def paper_sets(without: tuple[str, ...] = (), task: str = "technical") -> list[dict]:
    names = ("koniq", "spaq", "live_wild", "kadid", "pipal", "agiqa3k")
    return [score_set(name, n / 10, n / 20, task) for n, name in enumerate(names, 1) if name not in without]


@pytest.mark.parametrize("task", ["technical", "q_insight_score"])
def test_the_columns_of_a_paper_are_found_by_data_set_and_question(tmp_path, task):
    write(tmp_path, "metrics.json", {"sets": {one["data_source"]: one for one in paper_sets(task=task)}})
    found = of_paper(load_table("omniquality_r:1"))(tmp_path)
    assert found["KonIQ plcc"] == 0.1 and found["AGIQA3k srcc"] == 0.3
    assert found["AVG. plcc"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6) / 6)


def test_a_set_that_was_not_measured_leaves_its_cell_and_the_average_empty(tmp_path):
    sets = {one["data_source"]: one for one in paper_sets(without=("kadid",))}
    sets["koniq/aesthetic"] = score_set("koniq", 0.9, 0.9, "aesthetic")
    write(tmp_path, "metrics.json", {"sets": sets})
    found = of_paper(load_table("omniquality_r:1"))(tmp_path)
    assert math.isnan(found["KADID plcc"]) and math.isnan(found["AVG. plcc"]) and found["KonIQ plcc"] == 0.1


@pytest.mark.parametrize("number", ["4", "A.5"])
def test_an_average_over_the_sets_of_another_table_needs_all_of_them(tmp_path, number):
    tables = build("rali", "paper", tmp_path, [0], None, None).tables
    (read,) = [table.read for table in tables if table.name == f"rali:{number}"]
    measured = [*paper_sets(), score_set("tid2013", 0.9, 0.9)]
    write(tmp_path, "metrics.json", {"sets": {one["data_source"]: one for one in measured}})
    assert math.isnan(read(tmp_path)["AVG. plcc"])  # without CSIQ
    measured.append(score_set("csiq", 0.7, 0.35))
    write(tmp_path, "metrics.json", {"sets": {one["data_source"]: one for one in measured}})
    assert read(tmp_path) == pytest.approx({"AVG. plcc": 0.4, "AVG. srcc": 0.2})  # and without TID2013


def test_accuracies_are_read_by_class(tmp_path):
    of_class = {"class_accuracy": {"value": 0.75}, "level_accuracy": {"value": 0.5}}
    one = {"data_source": "dq495k", "task": "q_insight_degradation", "classes": {"noise": of_class}}
    write(tmp_path, "metrics.json", {"sets": {"dq495k": one}})
    found = of_paper(load_table("q_insight:3"))(tmp_path)
    assert (found["Noise class_accuracy"], found["Noise level_accuracy"]) == (0.75, 0.5)
    assert math.isnan(found["Blur class_accuracy"])


@pytest.mark.parametrize("number", [3, 5])
def test_images_without_a_distortion_have_no_level_to_average(tmp_path, number):
    levels = {"noise": 0.5, "blur": 0.4, "compression": 0.3, "darken": 0.2, "null": None}
    classes = {
        name: {"class_accuracy": {"value": 0.5}, "level_accuracy": {"value": level}} for name, level in levels.items()
    }
    one = {"data_source": "dq495k", "task": "q_insight_degradation", "classes": classes}
    write(tmp_path, "metrics.json", {"sets": {"dq495k": one}})
    found = of_paper(load_table(f"q_insight:{number}"))(tmp_path)
    assert found["Average level_accuracy"] == pytest.approx(0.35) and found["Average class_accuracy"] == 0.5
    classes["null"]["class_accuracy"]["value"] = None
    write(tmp_path, "metrics.json", {"sets": {"dq495k": one}})
    assert math.isnan(of_paper(load_table(f"q_insight:{number}"))(tmp_path)["Average class_accuracy"])


def experiment(*rows: OurRow, seeds: tuple[int, ...] = (0, 1)) -> Experiment:
    name = "omniquality_r:1"
    table = OurTable(name, rows, of_paper(load_table(name)), same_columns=True)
    return Experiment("omniquality_r", "paper", seeds, [], (table,), {"omniquality_r:5": "it needs a detector"})


OURS = OurRow("stage 2", "stage2_test", ("MLLM-based, jointly fine-tuned", "OmniQuality-R (ours)"))


@pytest.fixture
def measured_run(tmp_path):
    for seed in (0, 1):
        sets = paper_sets(without=("kadid",))
        sets[0]["plcc"]["value"] = 0.8 + seed / 10
        write(tmp_path / f"seed{seed}" / "stage2_test", "metrics.json", {"sets": {s["data_source"]: s for s in sets}})
    return tmp_path


def test_ours_stands_above_the_row_of_the_paper_it_reproduces(measured_run):
    (filled,) = fill(experiment(OURS), measured_run)
    lines = together(filled, filled.paper)
    ref = next(index for index, line in enumerate(lines) if "OmniQuality-R (ours)" in line[0])
    assert lines[ref - 1][:2] == ["**measured** stage 2", "0.850 ± 0.071 / 0.050 ± 0.000"]
    (printed,) = [row for row in load_table("omniquality_r:1").rows if row.method == "OmniQuality-R (ours)"]
    assert lines[ref][1] == "{:.3f} / {:.3f}".format(*printed.values[0])
    assert len(lines) == 1 + len(load_table("omniquality_r:1").rows)


def test_what_was_not_run_is_named(measured_run):
    write_tables(experiment(OURS, OurRow("SFT", "sft_test")), measured_run)
    page = (measured_run / "tables.md").read_text()
    assert "- SFT: seed0/sft_test/metrics.json is not there yet" in page
    assert "no figures for KADID plcc, KADID srcc, AVG. plcc, AVG. srcc" in page
    assert "the paper's numbers only: NIQE, BRISQUE" in page
    assert "- `omniquality_r:5`: it needs a detector" in page


def test_a_row_without_one_seed_is_not_averaged_over_the_others(measured_run):
    (measured_run / "seed1" / "stage2_test" / "metrics.json").unlink()
    (filled,) = fill(experiment(OURS), measured_run)
    assert filled.found == {} and "seed1/stage2_test/metrics.json is not there yet" in filled.missing[0]


def test_a_row_below_its_stages_folder_waits_for_the_stage(tmp_path):
    code = (
        "import pathlib, sys; out = pathlib.Path(sys.argv[1]); out.mkdir(exist_ok=True)\n"
        "fails = not (out / 'figure').exists(); (out / 'figure').write_text('0.5'); raise SystemExit(fails)"
    )
    stages = [python_stage("seed0/cases", code, tmp_path / "seed0" / "cases" / "1")]
    rows = (OurRow("no alignment", "cases/1"),)
    table = OurTable(None, rows, lambda folder: {"PLCC": float((folder / "figure").read_text())}, title="x")
    found = Experiment("rali", "tiny", (0,), stages, (table,))
    with pytest.raises(StageFailed):
        run_stages(stages, tmp_path, quiet())
    (filled,) = fill(found, tmp_path)
    assert filled.found == {} and filled.missing == ("no alignment: seed0/cases is not done yet",)
    run_stages(stages, tmp_path, quiet())
    (filled,) = fill(found, tmp_path)
    assert filled.found == {"no alignment": {"PLCC": [0.5]}} and filled.missing == ()


def test_tables_are_the_same_bytes_again_and_hold_every_seed(measured_run):
    write_tables(experiment(OURS), measured_run)
    first = [(measured_run / name).read_bytes() for name in ("tables.md", "tables.json")]
    write_tables(experiment(OURS), measured_run)
    assert first == [(measured_run / name).read_bytes() for name in ("tables.md", "tables.json")]
    data = json.loads(first[1])
    row = data["tables"]["omniquality_r:1"]["rows"]["stage 2"]
    assert row["KonIQ plcc"] == [0.8, 0.9] and row["KADID plcc"] == [None, None] and data["seeds"] == [0, 1]
