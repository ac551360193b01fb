"""Label alignment of several domains, with a stand-in for their models."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_builders import RATER, grey, write_distorted, write_scored
from generation_builders import write_rows
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.evaluation.answers import read_reasoning
from omniq_verl.generation.config import read_config
from omniq_verl.ract.align import AlignConfig, scored_answer
from omniq_verl.rewards import parse_response
from omniq_verl.tasks import Q_INSIGHT_SCORE, TECHNICAL
from omniq_verl.tasks.q_insight import DESCRIBE

VALUES, TARGETS = [0, 100, 200], [1.234, 3.0, 4.5]


@pytest.fixture
def words(tmp_path) -> list[str]:
    parts = {}
    for name, script in (("alpha", "hostile"), ("beta", "other")):
        data = write_scored(tmp_path / f"{name}.parquet", VALUES, TARGETS, source=name, split="train")
        parts |= {f"domains.{name}.model": script, f"domains.{name}.data": f"[{data}]"}
    parts |= {"engine.kind": RATER, "run_options.on": "here", "out": tmp_path / "out", "sampling.temperature": 0}
    return [f"{key}={value}" for key, value in parts.items()]


def run(*words: str):
    return CliRunner().invoke(app, ["ract", "align", *words])


def learned(folder: Path) -> list[tuple[str, str, str]]:
    table = pd.read_parquet(folder / "out" / "sft.parquet")
    return [
        (info["id"], *(turn["content"] for turn in messages))
        for messages, info in zip(table.messages, table.extra_info, strict=True)
    ]


def test_each_domains_own_model_describes_its_own_images(tmp_path, words):
    result = run(*words)
    assert result.exit_code == 0, result.output
    # alpha's model does not finish what it says of dark images; beta's does.
    shares = ["0.39", "0.78", "0.00", "0.39", "0.78"]
    assert learned(tmp_path) == [
        (number, f"<image>{DESCRIBE}", f"its brightness is {share}")
        for number, share in zip(["1", "2", "0", "1", "2"], shares, strict=True)
    ]
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert counts["domains"] == {"alpha": {"rows": 3, "truncated": 1, "learned": 2}, "beta": {"rows": 3, "learned": 3}}
    assert "truncated 1" in result.output


def test_scores_are_learned_of_the_domains_that_are_named(tmp_path, words):
    assert run(*words, "scores=[beta]").exit_code == 0
    scored = [(question, answer) for _, question, answer in learned(tmp_path) if "<answer>" in answer]
    assert [answer for _, answer in scored] == [
        f"<think>its brightness is {share}</think><answer>{label}</answer>"
        for share, label in (("0.00", "1.23"), ("0.39", "3.00"), ("0.78", "4.50"))
    ]
    assert all("from 1 (bad) to 5 (excellent)" in question or "1 (bad)" in question for question, _ in scored)
    assert len(learned(tmp_path)) == 8


@pytest.mark.parametrize("task", [TECHNICAL, Q_INSIGHT_SCORE], ids=lambda task: task.name)
def test_what_is_learned_of_a_score_is_what_the_parser_reads(task):
    parsed = parse_response(scored_answer("blurred {a}", 2.345678, task), task.answer_format, task.scale)
    assert parsed.ok and parsed.score == pytest.approx(2.35) and parsed.reasoning == "blurred {a}"


@pytest.mark.parametrize(
    ("text", "finish_reason", "fate"),
    [
        ("<think>sharp</think><answer>4</answer>", "stop", "ok"),
        ("<think> </think><answer>4</answer>", "stop", "no_reasoning"),
        ("<answer>4</answer>", "stop", "no_reasoning"),
        ("<think>sharp</think><answer>9</answer>", "stop", "out_of_range"),
        ("<think>sharp", "length", "truncated"),
        ("too long", "error", "error"),
    ],
)
def test_what_is_not_learned_has_a_reason(text, finish_reason, fate):
    assert read_reasoning(text, finish_reason, TECHNICAL)[0] == fate


def test_started_again_nothing_is_asked_twice(tmp_path, words):
    run(*words)
    first = (tmp_path / "out" / "sft.parquet").read_bytes()
    assert run(*words).exit_code == 0
    assert (tmp_path / "out" / "sft.parquet").read_bytes() == first
    assert [len(list((tmp_path / "out" / name).glob("*.jsonl"))) for name in ("alpha", "beta")] == [1, 1]


@pytest.mark.slow
def test_killed_at_five_moments_it_writes_what_an_unbroken_run_does(tmp_path):
    command = [sys.executable, "-m", "omniq_verl.cli", "ract", "align", f"engine.kind={RATER}", "run_options.on=here"]
    for number, name in enumerate(("alpha", "beta")):
        values = np.random.default_rng(number).integers(0, 256, 150).tolist()
        data = write_scored(
            tmp_path / f"{name}.parquet", values, [1 + value / 64 for value in values], source=name, split="train"
        )
        command += [f"domains.{name}.model=slow", f"domains.{name}.data=[{data}]"]
    command += ["run_options.batch=10", "scores=[beta]", "sampling.temperature=1.0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "builders")}
    for kill in range(5):
        process = subprocess.Popen([*command, f"out={tmp_path}/out"], env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while stored(tmp_path / "out") < 20 + 50 * kill and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 200 < stored(tmp_path / "out") < 300  # killed in the midst of the second domain
    for out in ("out", "unbroken"):
        subprocess.run([*command, f"out={tmp_path}/{out}"], env=environment, check=True, capture_output=True)
    assert stored(tmp_path / "out") == 300
    first, other = (pd.read_parquet(tmp_path / out / "sft.parquet") for out in ("out", "unbroken"))
    assert len(first) == 450 and first.astype(str).equals(other.astype(str))


def stored(out: Path) -> int:
    return sum(part.read_bytes().count(b"\n") for part in out.glob("*/*.jsonl"))


def test_held_out_rows_and_tasks_without_scores_are_rejected(tmp_path, words):
    held = write_rows(tmp_path / "held.parquet", [1, 2], split="test")
    assert "held.parquet holds rows of the split 'test'" in run(*words, f"domains.beta.data=[{held}]").output
    worn = write_distorted(tmp_path / "worn.parquet", VALUES, split="train")
    assert "the task degradation has no score" in run(*words, f"domains.beta.data=[{worn}]").output


def test_domains_with_images_of_two_kinds_are_rejected_before_anything_is_asked(tmp_path, words):
    (tmp_path / "0.png").write_bytes(grey(9))
    row = Row("beta", "beta/0", "technical", "train", 2.0, 2.0, (1.0, 5.0))
    write_parquet([row.record(0, str(tmp_path / "0.png"))], tmp_path / "named.parquet")
    said = run(*words, f"domains.beta.data=[{tmp_path}/named.parquet]").output
    assert "hold their images in two ways" in " ".join(said.split()) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["scores=[gamma]"], "scores contains unknown domains: gamma; known: alpha, beta"),
        (["domains.gamma.model=x"], "the domain gamma needs a model and data"),
        (["colour=red"], "colour"),
    ],
)
def test_mistakes_are_named(words, more, said):
    result = run(*words, *more)
    assert result.exit_code == 1 and said in result.output


def test_no_domain_is_named():
    assert "no domains" in run("out=x").output


def test_the_example_has_the_defaults():
    config = read_config(AlignConfig, Path(__file__).parents[2] / "examples" / "ract" / "align.yaml", ["seed=3"])
    plain = AlignConfig(domains=config.domains, seed=3)
    assert list(config.domains) == ["koniq", "spaq"]
    assert (config.sampling, config.run_options, config.scores, config.engine) == (
        *(plain.sampling, plain.run_options, plain.scores, plain.engine),
    )
