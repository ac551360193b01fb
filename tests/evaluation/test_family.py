"""Evaluations of models of other families: their question, their parser, the labels' scale."""

import json

import pytest
from generation_builders import write_rows
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.evaluation.of_family import family_question, family_reader, family_texts, rescaled
from omniq_verl.generation.request import Answer
from omniq_verl.tasks import Q_INSIGHT_SCORE, TECHNICAL, Scale


class Fenced:
    """A model that writes what Q-Insight writes, where it is asked what Q-Insight is asked."""

    def __init__(self, spec):
        pass

    def answer(self, requests, sampling):
        return [[Answer(self._said(request))] for request in requests]

    def _said(self, request):
        question = request.messages[-1]["content"]
        if not (question.startswith("What is your overall rating") and question.endswith("<image>")):
            return "what?"
        score = 1 + len(request.images[0]) % 5
        return f'<think>a</think><answer>```json\n{{"rating": "{score}"}}\n```</answer>'


def evaluate(tmp_path, *words: str):
    data = write_rows(tmp_path / "test.parquet", [1, 2, 3, 4, 5])
    command = ["eval", "--model", "q-insight", "--engine", f"{__name__}:Fenced", "--data", str(data)]
    return CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run"), "--resamples", "10", *words])


def test_rows_are_asked_and_read_as_the_family_does(tmp_path):
    done = evaluate(tmp_path, "--family", "q_insight")
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["sets"]["made"]["status"] == {"ok": 5} and metrics["family"] == "q_insight"


def test_without_a_family_the_rows_own_question_is_asked(tmp_path):
    assert evaluate(tmp_path).exit_code == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["sets"]["made"]["status"] == {"no_answer": 5}


def test_a_family_without_the_rows_task_or_mode_is_rejected_at_once(tmp_path):
    unknown = evaluate(tmp_path, "--family", "unified_reward")
    assert unknown.exit_code == 1 and "belongs to Q-Insight" in " ".join(unknown.output.split())
    direct = evaluate(tmp_path, "--family", "q_insight", "--mode", "direct")
    assert direct.exit_code == 1 and "returns no probabilities" in " ".join(direct.output.split())


def test_scores_are_moved_to_the_scale_of_the_labels():
    assert rescaled(0.5, Scale(0, 1), Scale(1, 5)) == 3.0 and rescaled(5.0, Scale(0, 5), Scale(1, 5)) == 5.0
    assert family_reader("visualscore")("<answer>2.5</answer>", "stop", TECHNICAL)["score"] == 3.0
    assert family_reader("q_realign")("<answer>0.25</answer>", "stop", TECHNICAL)["score"] == 2.0
    assert family_reader("visualscore")("nothing", "stop", TECHNICAL)["status"] == "not_a_number"
    assert family_reader("visualscore")("too long", "error", TECHNICAL)["status"] == "error"


def test_a_row_of_another_wording_is_asked_by_what_it_is_like():
    info = {"task": Q_INSIGHT_SCORE.name, "scale_low": 1.0, "scale_high": 5.0}
    question = family_question({"extra_info": info}, "", "visualscore")[-1]["content"]
    assert question.startswith("<image>Give a technical quality score")
    assert family_texts(info, "q_realign").start == "The quality of the image is"
    with pytest.raises(ValueError, match=r"has no task.*Fix"):
        family_question({"extra_info": {**info, "task": "aesthetic"}}, "", "visualquality_r1")
