"""The measurements and the report of the quickstart. What it trains is tested in test_training.py."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from doctor_builders import png, written
from PIL import Image
from rich.console import Console

from omniq_verl.data.rows import Row
from omniq_verl.evaluation.answers import judge_answers
from omniq_verl.generation.request import Answer, Request, Sampling, as_record
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.metric_log import read_metrics
from omniq_verl.quickstart import __main__ as quickstart
from omniq_verl.quickstart.measure import measure, summarise, with_rewards
from omniq_verl.quickstart.report import draw_curves, paired_gain, print_table


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def write_attempts(folder: Path, *attempts: str) -> Path:
    """Metrics files as verl's logger writes them, one per start of the stage."""
    (folder / "metrics").mkdir(parents=True)
    for number, text in enumerate(attempts, 1):
        (folder / "metrics" / f"{number:03d}.jsonl").write_text(text)
    return folder


def line(step: int, **data: float) -> str:
    return json.dumps({"step": step, "data": data}) + "\n"


# Metrics


def test_metrics_of_all_attempts_are_merged_and_the_last_run_of_a_step_counts(tmp_path):
    first = line(1, loss=1.0, lr=0.1) + line(2, loss=2.0) + line(3, loss=3.0)
    second = line(3, loss=30.0) + line(4, loss=40.0)
    folder = write_attempts(tmp_path / "grpo", first, second)
    assert read_metrics(folder) == {1: {"loss": 1.0, "lr": 0.1}, 2: {"loss": 2.0}, 3: {"loss": 30.0}, 4: {"loss": 40.0}}


def test_metrics_are_in_the_order_of_steps(tmp_path):
    folder = write_attempts(tmp_path / "grpo", line(3) + line(1), line(2))
    assert list(read_metrics(folder)) == [1, 2, 3]


@pytest.mark.parametrize("torn", ["", "{", '{"step": 3, "data": {"loss": 3', '{"step": 3, "data": {"loss": 3.0}'])
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    folder = write_attempts(tmp_path / "grpo", line(1, loss=1.0) + torn, line(2, loss=2.0) + torn)
    assert read_metrics(folder) == {1: {"loss": 1.0}, 2: {"loss": 2.0}}


def test_a_stage_that_has_not_begun_has_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "grpo") == {}


# Measurement


def judged(answers: dict[str, list[str]], targets: dict[str, float], mode: str = "sampled") -> pd.DataFrame:
    """Answers by image, as the evaluation reads them, and rewards with sigma 0.8."""
    rows = [{"id": key, "task": "technical", "target": target} for key, target in targets.items()]
    labels = pd.DataFrame(rows, index=pd.Index(targets, name="key"))
    records = [as_record(key, [Answer(text) for text in texts]) for key, texts in answers.items()]
    return with_rewards(judge_answers(labels, records), labels, mode, sigma=0.8)


def three_images() -> pd.DataFrame:
    """Three images, two answers each: four answers can be parsed, off by 0, 0.8, 1.6 and 0.8."""
    answers = {
        "a": ["<answer>3</answer>", "<answer>3.8</answer>"],
        "b": ["<answer>3.6</answer>", "no idea"],
        "c": ["<answer>9</answer>", "<answer>3.2</answer>"],
    }
    return judged(answers, {"a": 3.0, "b": 2.0, "c": 4.0})


def no_score(mode: str = "sampled") -> pd.DataFrame:
    return judged({"a": ["?", ""]}, {"a": 3.0}, mode)


def test_every_answer_is_judged_by_its_own_image():
    frame = three_images()
    assert list(frame["id"]) == ["a", "a", "b", "b", "c", "c"]
    assert list(frame["sample"]) == [0, 1, 0, 1, 0, 1]
    assert list(frame["target"]) == [3.0, 3.0, 2.0, 2.0, 4.0, 4.0]
    assert list(frame["status"]) == ["ok", "ok", "ok", "no_answer", "out_of_range", "ok"]
    # 0, 1, 2 and 1 sigma off: exp(0), exp(-1/2), exp(-2), exp(-1/2).
    assert list(frame["reward"]) == pytest.approx([1.0, 0.60653066, 0.13533528, 0.0, 0.0, 0.60653066])


def test_an_answer_that_cannot_be_read_has_no_score_and_no_reward():
    failed = three_images().iloc[[3, 4]]
    assert failed["score"].isna().all()
    assert list(failed["reward"]) == [0.0, 0.0]


def test_answers_that_cannot_be_read_count_for_the_reward_and_not_for_the_error():
    metrics = summarise(three_images())
    assert metrics["mae"] == pytest.approx((0 + 0.8 + 1.6 + 0.8) / 4)
    assert metrics["rmse"] == pytest.approx(np.sqrt((0 + 0.64 + 2.56 + 0.64) / 4))
    assert metrics["reward"] == pytest.approx((1 + 2 * 0.60653066 + 0.13533528) / 6)
    assert (metrics["n"], metrics["answers"], metrics["parsed"]) == (4, 6, pytest.approx(4 / 6))
    assert metrics["status"] == {"ok": 4, "no_answer": 1, "out_of_range": 1}


def test_correlations_are_those_of_the_answers_that_can_be_read():
    # Scores 3, 3.8, 3.6, 3.2 against 3, 3, 2, 4; means 3.4 and 3: (-0.4 * 0 + 0.4 * 0 + 0.2 * -1 - 0.2 * 1) = -0.4
    # over sqrt(0.4) * sqrt(2).
    assert summarise(three_images())["plcc"] == pytest.approx(-0.4 / np.sqrt(0.8))


def test_a_model_that_answers_nothing_has_a_reward_and_no_error():
    metrics = summarise(no_score())
    assert (metrics["mae"], metrics["plcc"], metrics["parsed"], metrics["reward"]) == (None, None, 0.0, 0.0)
    assert json.loads(json.dumps(metrics)) == metrics


class Recorded:
    """An engine that notes what it is asked, and answers from the seeds: 3.0 for an even one, 3.8 for an odd one."""

    asked: ClassVar[list[tuple[str, int, int]]] = []

    def __init__(self, spec: EngineSpec):
        assert (spec.max_model_len, spec.dtype) == (32 + 256, "float32")

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        self.asked += [(request.key, request.seed, sampling.n) for request in requests]
        numbers = [range(request.seed, request.seed + sampling.n) for request in requests]
        return [[Answer(f"<answer>{(3.0, 3.8)[number % 2]}</answer>") for number in row] for row in numbers]


def test_answers_are_seeded_by_row_and_measured_by_both_modes(tmp_path, monkeypatch):
    rows = [Row("koniq", f"koniq/{number}", "technical", "test", 3.0) for number in range(3)]
    data = written(tmp_path, [row.record(number, png()) for number, row in enumerate(rows)], "test.parquet")
    monkeypatch.setattr(Recorded, "asked", [])
    monkeypatch.setitem(sys.modules, "recorded_engine", SimpleNamespace(engine=Recorded))
    metrics = measure("any", Path(data), tmp_path / "out", samples=3, max_tokens=32, engine="recorded_engine:engine")
    keys = [f"koniq/{number}" for number in range(3)]
    assert Recorded.asked == [
        *((f"technical/{key}", number, 1) for number, key in enumerate(keys)),
        *((f"technical/{key}", 3 * number, 3) for number, key in enumerate(keys)),
    ]
    # Greedy, seeds 0 to 2: off by 0, 0.8 and 0. Sampled, seeds 0 to 8: four of nine are off by one sigma.
    assert metrics["greedy"]["reward"] == pytest.approx((2 + np.exp(-0.5)) / 3)
    assert metrics["sampled"]["reward"] == pytest.approx((5 + 4 * np.exp(-0.5)) / 9)
    assert metrics["sampled"]["mae"] == pytest.approx(4 * 0.8 / 9) and metrics["sampled"]["answers"] == 9
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    table = pd.read_parquet(tmp_path / "out" / "answers.parquet")
    assert list(table["id"]) == [*keys, *(key for key in keys for _ in range(3))]
    assert list(table["sample"]) == [0, 0, 0, *[0, 1, 2] * 3] and list(table["mode"])[2:4] == ["greedy", "sampled"]


# Gain


def measured(rewards: dict[str, list[float]], mode: str = "sampled") -> pd.DataFrame:
    lines = [(image, mode, reward) for image, values in rewards.items() for reward in values]
    return pd.DataFrame(lines, columns=["id", "mode", "reward"])


def test_the_gain_is_paired_over_images_and_each_image_counts_once():
    before = measured({"a": [0.0, 0.2], "b": [0.5, 0.5], "c": [0.3]})
    after = measured({"c": [0.9, 0.9, 0.9], "a": [0.4, 0.4], "b": [0.6, 0.4]})
    gain, error = paired_gain(before, after)
    # Means by image 0.1, 0.5, 0.3 and 0.4, 0.5, 0.9: differences 0.3, 0, 0.6. Their mean is 0.3, their standard
    # deviation sqrt((0 + 0.09 + 0.09) / 2) = 0.3, the error of the mean 0.3 / sqrt(3).
    assert gain == pytest.approx(0.3)
    assert error == pytest.approx(0.3 / np.sqrt(3))


def test_greedy_answers_do_not_count_for_the_gain():
    rewards = {"a": [0.2], "b": [0.4]}
    greedy = measured({"a": [1.0], "b": [1.0]}, mode="greedy")
    assert paired_gain(measured(rewards), pd.concat([measured(rewards), greedy])) == (0.0, 0.0)


@pytest.mark.parametrize("others", [{"a": [0.1]}, {"a": [0.1], "c": [0.1]}, {"a": [0.1], "b": [0.1], "c": [0.1]}])
def test_measurements_of_other_images_have_no_gain(others):
    with pytest.raises(ValueError, match="of different images"):
        paired_gain(measured({"a": [0.1], "b": [0.1]}), measured(others))


# Report


def test_the_curves_are_drawn_as_a_png_of_four_panels(tmp_path):
    keys = ("critic/score/mean", "actor/entropy", "response_length/mean", "val-core/photos/srcc")
    folder = write_attempts(tmp_path / "grpo", *(line(step, **dict.fromkeys(keys, step / 2)) for step in range(1, 4)))
    draw_curves(folder, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert (image.format, image.size) == ("PNG", (1008, 732))
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_the_table_shows_both_measurements_and_a_dash_where_nothing_is_defined():
    modes = {mode: summarise(three_images()) for mode in ("greedy", "sampled")}
    nothing = {mode: summarise(no_score(mode)) for mode in ("greedy", "sampled")}
    console = quiet()
    figures = {"before": nothing, "after": modes, "reward_gain": 0.12, "reward_gain_standard_error": 0.04, "seed": 5}
    print_table(figures, console)
    text = console.file.getvalue()
    assert "2 held-out crops, tiny model, seed 5" in text
    assert any("MAE" in row and " - " in row and "0.800" in row for row in text.splitlines())
    assert "+0.120 by GRPO, +3.0 standard errors" in text


def test_files_of_others_in_the_run_folder_end_the_command_with_one_line(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photograph.jpg").touch()
    monkeypatch.setattr(sys, "argv", ["quickstart", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"data was not made by this command\. Fix: name another --out"):
        quickstart.main()
    assert (tmp_path / "data" / "photograph.jpg").exists()
