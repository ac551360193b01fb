"""Answers of other people's models: a number that is plainly not the score is never taken for it."""

import time

import pytest

from omniq_verl.evaluation.of_family import family_reader
from omniq_verl.families.find import FAMILIES
from omniq_verl.generation.request import DONE, LENGTH, Answer
from omniq_verl.rewards import Status
from omniq_verl.scoring.scorer import summarise
from omniq_verl.tasks import TECHNICAL


def first_task(name: str):
    return next(iter(FAMILIES[name].tasks.values()))


def read(name: str, text: str) -> float | Status:
    parsed = FAMILIES[name].read(text, first_task(name))
    return parsed.status if parsed.score is None else parsed.score


NUMBERS = [
    ("3.5", 3.5),
    ("**4.5**", 4.5),
    (r"\boxed{3.5}", 3.5),
    ("Rating - 3.5.", 3.5),
    ("3.5/5", 3.5),
    ("**4** / 5.0", 4.0),
    ("3.2 (out of 5)", 3.2),
    ("4, where 1 is the worst and 5 the best", 4.0),
    ("4 out of 10", Status.NOT_A_NUMBER),
    ("4/10", Status.NOT_A_NUMBER),
    ("4 %", Status.NOT_A_NUMBER),
    ("3,5", Status.NOT_A_NUMBER),
    ("1,234", Status.NOT_A_NUMBER),
    ("4.0.1", Status.NOT_A_NUMBER),
    ("-2", Status.NOT_A_NUMBER),
    ("\u22122", Status.NOT_A_NUMBER),
    (".5", Status.NOT_A_NUMBER),
    ("3\u00bd", Status.NOT_A_NUMBER),
    ("\uff145", Status.NOT_A_NUMBER),
    ("1e999", Status.NOT_A_NUMBER),
    ("3-4", Status.NOT_A_NUMBER),
    ("3 to 4", Status.NOT_A_NUMBER),
    ("between **3** and **4**", Status.NOT_A_NUMBER),
    ("12345678901234567890", Status.NOT_A_NUMBER),
    ("Picture 1: 3.2", Status.MANY_ANSWERS),
    ("quality 4, sharpness 3", Status.MANY_ANSWERS),
]


@pytest.mark.parametrize(("answer", "found"), NUMBERS)
def test_the_number_of_an_answer_stands_alone(answer, found):
    assert read("visualquality_r1", f"<think>from 2 to 3</think><answer>{answer}</answer>") == found


@pytest.mark.parametrize(
    ("rating", "found"),
    [
        ('{"rating": "4/5"}', 4.0),
        ('{"rating": "4/10"}', Status.NOT_A_NUMBER),
        ('{"rating": "3-4"}', Status.NOT_A_NUMBER),
        ('{"rating": 4%}', Status.NOT_A_NUMBER),
        ('{"rating": 2, "rating": 4}', Status.MANY_ANSWERS),
        ('{"rating": 3, "rating": 3}', 3.0),
        ('{"rating": 4}{"rating": 2}', Status.MANY_ANSWERS),
        ('{"initial rating": 2, "rating": 4,}', 4.0),
        ('{"overrating": 2, "rating": "good"}', Status.NOT_A_NUMBER),
        ('```JSON\n{"rating": 3.5}\n```', 3.5),
        ('```json\n{"rating": 3.5}', 3.5),
    ],
)
def test_the_rating_is_that_of_its_own_key_and_the_only_one(rating, found):
    assert read("q_insight", f"<think>a</think><answer>{rating}</answer>") == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Final Score: 3.7", 3.7),
        ("**Final Score**: 3.7", 3.7),
        ("**Final Score (1-5):** 3.7", 3.7),
        ("Final Score\uff1a3.7", 3.7),
        ("Final Score: 4.5 / 5", 4.5),
        ("Final Score: 4/10", Status.NOT_A_NUMBER),
        ("Final Score: 3,5", Status.NOT_A_NUMBER),
        ("Final Score: 3-4", Status.NOT_A_NUMBER),
    ],
)
def test_the_number_of_a_line_stands_alone(line, found):
    assert read("unified_reward", f"cat (object): 1\n{line}") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think>maybe <answer>2</answer>, no</think> 4.2", 4.2),
        ("<think>maybe <answer>2</answer>, no</think><answer>4.2</answer>", 4.2),
        ("<think>a <answer>3</answer></think>", 3.0),
        ("<answer>3</answer><think>x</think>", 3.0),
        ("from 2 to 3</think>", Status.NOT_A_NUMBER),
        ("<think>a</think><answer>3.5 ", 3.5),
        ("<think>a</think><answer>3.5", Status.TRUNCATED),
        ("<think>a</think><answer>3.", Status.TRUNCATED),
        ("<answer><answer>3</answer></answer>", 3.0),
    ],
)
def test_an_answer_within_the_reasoning_or_cut_off_is_not_read(text, found):
    assert read("visualquality_r1", text) == found


@pytest.mark.parametrize(
    ("name", "text", "score"), [("unified_reward", "Final Score: 4", 4.0), ("visualscore", "<think>a</think> 3", 3.0)]
)
def test_a_number_at_which_max_tokens_ended_the_text_is_not_read(name, text, score):
    family, task = FAMILIES[name], first_task(name)
    found = {reason: summarise("a.png", task, [Answer(text, reason)], family.read) for reason in (DONE, LENGTH)}
    assert (found[DONE].score, found[LENGTH].score) == (score, None)


def test_evaluation_does_not_read_a_number_at_which_max_tokens_ended_the_text():
    reader = family_reader("visualscore")
    text = "<think>a</think> 3"
    assert reader(text, DONE, TECHNICAL)["score"] is not None
    assert reader(text, LENGTH, TECHNICAL)["score"] is None


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 2500,
        "Final Score" + "*" * 19_000,
        "```" + " " * 19_000,
        "1" + "(" * 19_000,
        "rating:1 " * 2200,
        "4" * 100_000 + "x",
    ],
)
def test_a_text_that_repeats_itself_is_read_in_linear_time(text):
    start = time.process_time()
    for family in FAMILIES.values():
        for task in family.tasks.values():
            family.read(text, task)
    assert time.process_time() - start < 3
