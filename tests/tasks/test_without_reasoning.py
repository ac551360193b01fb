"""Tasks whose answers have no reasoning: wording, reward, and the rows that supervised training learns from."""

import json

import pyarrow.parquet as pq
import pytest
from evaluation_builders import RATER, grey
from image_builders import saved, smooth
from rich.console import Console

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.evaluation.compare import compare_runs
from omniq_verl.evaluation.run import EvalConfig, evaluate
from omniq_verl.findings.sft_data import label_answer, write_sft_data
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.rewards import compute_score
from omniq_verl.rewards.format import format_reward
from omniq_verl.tasks import TASKS, find_task

DIRECT = ("technical_direct", "aesthetic_direct", "alignment_direct", "q_insight_score_direct")


def write_rows(path, task: str, split: str = "train"):
    rows = [Row("made", f"{n}", task, split, score, score, (1.0, 5.0)) for n, score in enumerate((1.234, 5.0))]
    write_parquet([row.record(n, saved(smooth(40, 40, n), "PNG")) for n, row in enumerate(rows)], path)
    return path


@pytest.mark.parametrize("name", DIRECT)
def test_a_question_is_that_with_reasoning_but_for_how_to_answer(name):
    task, like = find_task(name), find_task(name.removesuffix("_direct"))
    assert (task.scale, task.answer_format, len(task.questions)) == (
        like.scale,
        like.answer_format,
        len(like.questions),
    )
    assert not task.reasoning and like.reasoning
    asked = str(task.messages("one", "a cat" if task.needs_text else None))
    assert "think" not in asked.lower() and "reason" not in asked.lower() and "<answer>" in asked
    assert task.like in (like.name, like.like)
    bare = [[question.removesuffix(one.answer_rule) for question in one.questions] for one in (task, like)]
    assert bare[0] == bare[1]


def test_the_numbers_of_older_tasks_stay():
    assert list(TASKS)[:8] == [
        *("technical", "aesthetic", "alignment", "degradation", "q_insight_score"),
        *("q_insight_degradation", "q_insight_comparison", "q_insight_comparison_reference"),
    ]
    assert set(DIRECT) <= set(TASKS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<answer>3</answer>", 1.0),
        (" <answer>3</answer>\n", 1.0),
        ("<think>a</think><answer>3</answer>", 0.0),
        ("so <answer>3</answer>", 0.0),
        ("<answer>3</answer><answer>4</answer>", 0.0),
        ("<answer>3</answer></think>", 0.0),
        ("<answer>3", 0.0),
        ("", 0.0),
    ],
)
def test_the_format_without_reasoning_is_the_answer_alone(text, value):
    assert format_reward(text, reasoning=False) == value


def test_braces_are_asked_for_without_reasoning_too():
    assert format_reward('<answer>{"rating": 3}</answer>', "json", False) == 1.0
    assert format_reward("<answer>3</answer>", "json", False) == 0.0


def test_the_reward_pays_the_format_of_the_rows_own_task():
    asked = {"task": "q_insight_score_direct", "scale_low": 1.0, "scale_high": 5.0}
    direct, thought = '<answer>{"rating": 3.0}</answer>', '<think>a</think><answer>{"rating": 3.0}</answer>'
    settings = {"score_reward": "threshold", "format_weight": 1.0}
    found = [compute_score("made", text, '{"score": 3.0}', asked, **settings) for text in (direct, thought)]
    assert [one["score"] for one in found] == [2.0, 1.0]
    found = compute_score("made", direct, '{"score": 3.0}', {**asked, "task": "q_insight_score"}, **settings)
    assert found["score"] == 1.0


@pytest.mark.parametrize(
    ("name", "score", "answer"),
    [
        ("technical_direct", 3.456, "<answer>3.46</answer>"),
        ("q_insight_score_direct", 5.0, '<answer>{"rating": 5.0}</answer>'),
    ],
)
def test_the_answer_to_learn_is_the_label_and_earns_the_format_reward(name, score, answer):
    task = find_task(name)
    assert label_answer(task, score) == answer
    assert format_reward(answer, task.answer_format, task.reasoning) == 1.0


@pytest.mark.parametrize("name", ["technical_direct", "q_insight_score_direct"])
def test_rows_to_learn_from_ask_the_rows_own_question(tmp_path, name):
    data = write_rows(tmp_path / "train.parquet", name)
    assert write_sft_data([data], tmp_path / "sft.parquet") == 2
    prepared, learned = (pq.read_table(path).to_pylist() for path in (data, tmp_path / "sft.parquet"))
    for before, after in zip(prepared, learned, strict=True):
        assert after["messages"][:-1] == before["prompt"] and after["images"] == before["images"]
        said = after["messages"][-1]
        truth = json.loads(before["reward_model"]["ground_truth"])["score"]
        assert said["role"] == "assistant" and f"{truth:.2f}".rstrip("0") in said["content"]


def test_rows_with_reasoning_or_held_out_are_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"asks for reasoning.*Fix.*technical_direct"):
        write_sft_data([write_rows(tmp_path / "a.parquet", "technical")], tmp_path / "sft.parquet")
    with pytest.raises(ValueError, match=r"rows of the split 'test'.*Fix"):
        write_sft_data([write_rows(tmp_path / "b.parquet", "technical_direct", "test")], tmp_path / "sft.parquet")
    assert not (tmp_path / "sft.parquet").exists()


def test_evaluations_in_both_wordings_are_compared_row_by_row(tmp_path):
    runs = []
    for name in ("technical", "technical_direct"):
        values, path = range(0, 250, 25), tmp_path / f"{name}.parquet"
        rows = [Row("made", f"{n}", name, "test", 1 + n / 3, 1 + n / 3, (1.0, 5.0)) for n, _ in enumerate(values)]
        write_parquet([row.record(n, grey(25 * n)) for n, row in enumerate(rows)], path)
        evaluate(EvalConfig([path], tmp_path / name, EngineSpec("bright", RATER), resamples=50), Console(quiet=True))
        runs.append(tmp_path / name)
    [pair] = compare_runs(runs, None, None, Console(quiet=True))["pairs"]
    assert (pair["task"], pair["images"], pair["only_first"], pair["only_other"]) == ("technical", 10, 0, 0)
    assert pair["srcc"]["difference"] == 0
