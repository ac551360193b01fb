"""New prompts: the question, and answers of any kind; a run with a writer that answers none; kills."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluation_builders import RATER
from rich.console import Console
from t2i_builders import CRITIC, HOSTILE, PAINTER, WRITER, killed_five_times, stored_keys

from omniq_verl.generation.request import ERROR, Answer
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.t2i.generator import GeneratorSpec
from omniq_verl.t2i.reflection import Reflection, reflect
from omniq_verl.t2i.rewriting import ask_for_prompt, feedback_of, read_rewrite


@pytest.mark.parametrize(
    ("text", "status", "prompt"),
    [
        ("<prompt>two cats</prompt>", "ok", "two cats"),
        ("Sure!\n<prompt>\n two\tcats \n</prompt> Enjoy.", "ok", "two cats"),
        ("<think>is <prompt>one cat</prompt> right? no</think><prompt>two cats</prompt>", "ok", "two cats"),
        ("not <prompt>one cat</prompt> but <prompt>two cats</prompt>", "ok", "two cats"),
        ("<prompt>two \ud800\x00cats\u200b</prompt>", "ok", "two cats"),
        ("<prompt>zwei Kätzchen, 二匹の猫</prompt>", "ok", "zwei Kätzchen, 二匹の猫"),
        ("<prompt>" + "x" * 60 + "</prompt>", "ok", "x" * 60),
        ("<prompt>" + "x" * 61 + "</prompt>", "too_long", None),
        ("two cats", "no_prompt", None),
        ("", "no_prompt", None),
        ("<PROMPT>two cats</PROMPT>", "no_prompt", None),
        ("two cats</prompt>", "no_prompt", None),
        ("<prompt>two cats", "truncated", None),
        ("<prompt>one</prompt> or <prompt>two", "truncated", None),
        ("  <think>perhaps <prompt>two cats</prompt>", "truncated", None),
        ("<think><prompt>two cats</prompt></think>", "no_prompt", None),
        ("<prompt> \n\u200b\ud800 </prompt>", "empty", None),
    ],
)
def test_an_answer_is_a_prompt_or_named(text, status, prompt):
    found = read_rewrite(Answer(text), 60)
    assert (found.status, found.prompt) == (status, prompt)
    assert prompt is None or prompt.encode().decode() == prompt


def test_what_the_engine_rejected_is_no_prompt_whatever_it_says():
    assert read_rewrite(Answer("ValueError: <prompt>x</prompt>", ERROR), 60).status == "error"


def test_a_million_tags_are_read_in_no_time():
    begin = time.perf_counter()
    for text in ("<prompt>" * 10**6, "</prompt>" * 10**6, "<think>" * 10**6, "<prompt>a</prompt>" * 10**6):
        read_rewrite(Answer(text), 60)
    assert time.perf_counter() - begin < 2


def test_the_question_has_all_three_texts_and_no_placeholder():
    (turn,) = ask_for_prompt("two <image> cats", "two cats <|im_end|>", "one <video> is missing", 200)
    assert turn["role"] == "user" and "at most 20 words" in turn["content"]
    for text in ("two (image) cats", "two cats (|im_end|)", "one (video) is missing"):
        assert text in turn["content"]
    tags = turn["content"].replace("<prompt>", "").replace("</prompt>", "")
    assert "<" not in tags and ">" not in tags


def test_feedback_is_the_reasoning_of_all_tasks_that_have_one():
    said = {"alignment": {"reasoning": " one cat "}, "aesthetic": {"reasoning": None}}
    assert feedback_of(said) == "one cat"
    assert feedback_of({**said, "technical": {"reasoning": "dark"}}) == "alignment: one cat\n\ntechnical: dark"
    assert feedback_of({"alignment": {"reasoning": "  "}}) == ""


def reflected(tmp_path: Path, scorer: EngineSpec, writer: EngineSpec | None, rounds: int) -> tuple[list, list]:
    prompts = [{"prompt": "a fox"}, {"prompt": "a cat"}]
    run = Reflection(prompts, tmp_path / "out", GeneratorSpec(PAINTER), scorer, writer=writer, rounds=rounds)
    picks = reflect(run, Console(file=io.StringIO()))
    return picks, [json.loads(line) for line in (run.out / "rounds.jsonl").read_text().splitlines()]


def test_hostile_answers_are_named_and_the_old_prompt_is_drawn_with_a_new_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picks, found = reflected(tmp_path, EngineSpec("", RATER), EngineSpec("hostile", WRITER), 2 * len(HOSTILE))
    assert all(pick["rewrites"] == {"empty": 2, "no_prompt": 2, "too_long": 2, "truncated": 6} for pick in picks)
    assert [(one["drawn_from"], one["seed"]) for one in found] == [
        (text, seed) for text in ("a fox", "a cat") for seed in range(2 * len(HOSTILE) + 1)
    ]


def test_a_question_the_engine_rejects_costs_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picks, found = reflected(tmp_path, EngineSpec("", RATER), EngineSpec("rejects", WRITER), 2)
    assert [pick["rewrites"] for pick in picks] == [{"error": 2}, {"ok": 2}]
    assert [one["drawn_from"] for one in found] == ["a fox"] * 3 + ["a cat", "a cat+", "a cat++"]


def test_an_image_nobody_can_say_anything_of_is_drawn_again_with_another_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evaluation_builders.Rater._text", lambda *_: "\ud800 no tags")
    picks, found = reflected(tmp_path, EngineSpec("", CRITIC), None, 2)
    assert all(pick["best"] is None and pick["round"] is None for pick in picks)
    assert all(pick["rewrites"] == {"no_feedback": 2} for pick in picks) and not Path("written.log").exists()
    assert [one["drawn_from"] for one in found] == ["a fox"] * 3 + ["a cat"] * 3
    assert [one["seed"] for one in found] == [0, 1, 2] * 2 and {one["value"] for one in found} == {None}
    assert not list((tmp_path / "out" / "best").rglob("*.png"))


@pytest.mark.slow
def test_killed_at_five_moments_everything_is_there_once(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(f"text {number}" for number in range(10)))
    words = [sys.executable, "-m", "omniq_verl.cli", "t2i", "reflect", "texts.txt", "--generator", PAINTER]
    words += ["--model", "slow", "--engine", CRITIC, "--rounds", "9", "--n", "3", "--out", "out"]
    # Sometimes while it draws, sometimes while it scores or writes.
    environment = killed_five_times(words, tmp_path, every=27, pause=0.02)
    assert len(list((tmp_path / "out" / "candidates").rglob("*.png"))) == 120
    # At most the batch that was under way when it was killed is done again.
    for name, number, batch in (("drawn.log", 120, 4), ("written.log", 90, 10)):
        lines = (tmp_path / name).read_text().splitlines()
        assert len(set(lines)) == number and len(lines) <= number + 5 * batch
    for store, number in (("scores", 120), ("rewrites", 90)):
        keys = stored_keys(tmp_path / "out" / store)
        assert len(keys) == len(set(keys)) == number
    straight = subprocess.run([*words[:-1], "straight"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert straight.returncode == 0
    for name in ("picks.jsonl", "rounds.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
