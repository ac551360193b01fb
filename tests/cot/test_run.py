"""The stages of plan-then-reason data, one after the other. The generator is a script; all else is the real thing."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cot_builders import STEP, Generator
from generation_builders import png, write_rows
from rich.console import Console
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.cot.run import CotConfig, NotFinished, make_paths, make_plans, select_paths
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import HeldOutRows
from omniq_verl.data.rows import Row
from omniq_verl.generation.config import read_config
from omniq_verl.generation.request import Answer
from omniq_verl.generation.store import OtherConfig
from omniq_verl.pipeline import omniquality_r
from omniq_verl.pipeline.tiny_stages import Settings

QUIET = Console(quiet=True)


def settings(root: Path, *more: str) -> list[str]:
    return [
        f"data=[{root / 'train.parquet'}]",
        f"out={root / 'out'}",
        "engine.model=x",
        "engine.kind=cot_builders:Generator",
        "run_options.on=here",
        "paths=8",
        *more,
    ]


@pytest.fixture
def root(tmp_path):
    write_rows(tmp_path / "train.parquet", np.linspace(1, 5, 20), source="alpha")
    return tmp_path


def run(root: Path, *more: str) -> dict:
    config = read_config(CotConfig, None, settings(root, *more))
    make_plans(config, QUIET)
    make_paths(config, QUIET)
    return select_paths(config)


def test_a_file_where_a_list_belongs_is_told_how_to_write_one():
    with pytest.raises(ValueError, match=r"^settings: data: .* Fix: write a list, data=\[VALUE,...\]"):
        read_config(CotConfig, None, ["data=train.parquet"])


def test_other_plans_need_another_folder_as_the_reasoning_is_about_the_old_ones(root):
    run(root)
    with pytest.raises(OtherConfig, match=f"sampling: .*delete {root / 'out'}$"):
        run(root, "plan.temperature=0.5")


def test_the_plan_never_reaches_the_sft_file(root):
    run(root)
    assert STEP in (root / "out" / "plan" / "0001.jsonl").read_text()  # or the test could not fail
    for path in (root / "out").glob("*.parquet"):
        assert STEP.encode() not in path.read_bytes()
        assert STEP not in str(pd.read_parquet(path).to_dict("records"))


def test_the_records_hold_question_image_and_right_paths(root):
    counts = run(root, "select.number=label", "select.emphasis=right")
    records = pd.read_parquet(root / "out" / "sft.parquet").to_dict("records")
    rows = {row["extra_info"]["id"]: row for row in pd.read_parquet(root / "train.parquet").to_dict("records")}
    assert len(records) == counts["records"] == counts["sources"]["alpha"]["paths"]["learned"]
    for record in records:
        row = rows[record["extra_info"]["id"]]
        assert record["messages"][0] == row["prompt"][0]
        assert record["images"][0]["bytes"] == row["images"][0]["bytes"]
        assert record["messages"][1]["content"].endswith(f"</think><answer>{row['extra_info']['score']:.2f}</answer>")


def test_everything_is_counted(root):
    counts = run(root, "select.emphasis=right")
    # 8 paths: 2 broken, the levels 0 1 2 3 4 0: two of eight are right where the level is the worst, else one.
    assert counts["without_plan"] == {"empty": 1}
    about = counts["sources"]["alpha"]
    assert about["images"] == {"kept": 19}
    # Labels 1 + 4 k / 19: four of the twenty in each fifth; row 3, of the worst, has no plan.
    assert about["right_paths"] == {2: 3, 1: 16}
    assert about["paths"] == {"truncated": 19, "empty": 19, "right": 22, "wrong_level": 92, "learned": 22}
    assert about["acceptance"] == 22 / 152 and counts["records"] == about["records"] == 22
    assert counts["generated"]["reason"] == {"rows": 19, "answers": 152, "tokens": 0}


def test_hard_images_have_more_records_by_default(root):
    # One of eight right: 4 x 7/8 = 3.5, rounded to 4; two of eight: 3.
    assert run(root)["records"] == 16 * 4 + 3 * 3


def test_other_bounds_need_no_new_answers(root):
    run(root)
    counts = select_paths(
        read_config(CotConfig, None, settings(root, "select.min_pass_rate=0.2", "engine.kind=no.such:engine"))
    )
    assert counts["sources"]["alpha"]["images"] == {"kept": 3, "too_hard": 16}
    with pytest.raises(ValueError, match=r"no image is left for training; see .*counts.json"):
        run(root, "select.min_pass_rate=0.9")


def test_a_task_that_says_itself_how_to_answer_is_rejected_before_anything_is_asked(root):
    rows = [Row("beta", "beta/0", "q_insight_score", "train", 3.0, 3.0, (1.0, 5.0)).record(0, png(0))]
    write_parquet(rows, root / "other.parquet")
    with pytest.raises(
        ValueError, match=r"q_insight_score has the answer format inside its question.* --task technical"
    ):
        run(root, f"data=[{root / 'other.parquet'}]")


@pytest.mark.parametrize("split", ["val", "test", "validation"])
def test_held_out_rows_are_rejected_before_anything_is_asked(root, split):
    write_rows(root / "other.parquet", [2.0], split, source="beta")
    with pytest.raises(HeldOutRows, match=rf"other.parquet holds rows of the split '{split}'.*give train files"):
        run(root, f"data=[{root / 'train.parquet'},{root / 'other.parquet'}]")
    assert not (root / "out").exists()


def test_a_stage_needs_the_one_before(root):
    config = read_config(CotConfig, None, settings(root))
    with pytest.raises(NotFinished, match=r"alpha/0 has no plan yet\. Fix: run omniq cot plan"):
        make_paths(config, QUIET)
    make_plans(config, QUIET)
    with pytest.raises(NotFinished, match=r"alpha/0 has no reasoning yet\. Fix: run omniq cot reason"):
        select_paths(config)


def test_another_model_does_not_go_on_with_the_answers_of_the_first(root):
    run(root)
    with pytest.raises(ValueError, match=r"engine: .*another name"):
        run(root, "engine.model=y")


def test_the_command_writes_a_report_that_shows_hostile_answers_as_text(root, monkeypatch):
    original = Generator._answers

    def hostile(self, request, n):
        answers = original(self, request, n)
        return [Answer(answer.text and f"{answer.text}<script>", answer.finish_reason) for answer in answers]

    monkeypatch.setattr(Generator, "_answers", hostile)
    result = CliRunner().invoke(app, ["cot", "run", *settings(root)])
    assert result.exit_code == 0, result.output
    assert "73 records to learn from" in result.output and "wrong_level 92" in result.output
    # 20 plans; one is broken, and 19 x 8 answers of at most 1,024 tokens are left.
    assert "at most 10,240 tokens" in result.output and "at most 155,648 tokens" in result.output
    html = (root / "out" / "report.html").read_text()
    assert html.count("<article>") == 10 and "data:image/png;base64" in html and STEP in html
    assert html.count("&lt;script&gt;") == 20 and "<script>" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_yaml_file_and_words_are_read_together(root, tmp_path):
    (tmp_path / "cot.yaml").write_text("paths: 4\nengine: {model: x}\nselect: {max_pass_rate: 0.5}\n")
    config = read_config(CotConfig, tmp_path / "cot.yaml", ["paths=6", "run_options.workers=2"])
    assert (config.paths, config.select.max_pass_rate, config.run_options.workers, config.engine.model) == (
        6,
        0.5,
        2,
        "x",
    )


def test_the_chain_starts_a_command_that_is_there(tmp_path):
    stages = {stage.name: stage for stage in omniquality_r.chain(Settings(tmp_path, tmp_path / "run"))}
    command = stages["cot"].command
    assert command[1:5] == ["-m", "omniq_verl.cli", "cot", "run"]
    assert read_config(CotConfig, None, command[5:]).paths == omniquality_r.COT_PATHS
    started = subprocess.run([*command[:5], "--help"], capture_output=True, text=True, check=True)
    assert "Plan, reason, select and report" in started.stdout


def test_the_papers_example_is_read():
    config = read_config(CotConfig, Path(__file__).parents[2] / "examples" / "omniquality_r" / "cot.yaml", ["out=x"])
    assert (config.paths, config.select.max_pass_rate, config.out, len(config.data)) == (8, 1.0, "x", 3)
    assert config.take == {"ava": 10000, "evalmuse": 10000, "koniq": 7000} and config.select.images == 5000
    assert (config.select.levels, config.select.levels_of) == ("scale", {"ava": "quantiles"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["foo=1"], "there is no key 'foo'. Fix: use one of data, out"),
        (["paths=many"], "many"),
        (["select.max_pass_rate=2"], "0 <= min < max <= 1"),
        (["limit=-1"], "paths and limit must be >= 1"),
        (["plan.n=2"], "Fix: remove n"),
        (["reason.temperature=0"], "temperature"),
        (["select.max_paths=0"], "max_paths and images must be >= 1"),
        (["engine.model=''", "engine.kind=vllm"], "engine.model=FOLDER"),
        (["data=[]"], "no files are given. Fix: data="),
    ],
)
def test_a_wrong_setting_is_named(root, words, said):
    result = CliRunner().invoke(app, ["cot", "plan", *settings(root), *words])
    assert result.exit_code == 1 and said in result.output


def test_judged_says_what_became_of_every_image(root):
    run(root)
    said = [json.loads(line) for line in (root / "out" / "judged.jsonl").read_text().splitlines()]
    assert len(said) == 19 and {one["outcome"] for one in said} == {"kept"}
    assert [path["fault"] for path in said[0]["paths"]][:3] == ["truncated", "empty", None]
