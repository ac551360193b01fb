"""Reasoning paths: every fault by name, nothing raised, nothing taken that should not be."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.cot.verdict import Fault, judge_path, judge_plan, other_language, repeats

GOOD = "<think>The sky is clean, the edges are soft.</think><answer>good</answer>"
PLAN = "1. look at the noise\n2. look at the edges"
PROSE = (
    "The photograph shows a harbour at dusk. Its highlights keep their detail, and the masts stand clear of the sky,"
    " but the water in front is soft, as if the shutter had been open a little too long. Colour is warm and even. In"
    " the shadows under the pier one sees some grain, which compression has turned into small squares; at the size at"
    " which people look at it, this hardly matters. The horizon is level and the picture is framed with care. All in"
    " all a sound technical quality, with a loss of sharpness that a viewer would notice only beside a better one."
)


def answer(text: str, finish_reason: str = "stop") -> dict:
    return {"text": text, "finish_reason": finish_reason, "tokens": 1}


@pytest.mark.parametrize(
    ("text", "finish_reason", "fault"),
    [
        (GOOD, "stop", None),
        (GOOD.replace("good", "Good."), "stop", None),
        (GOOD.replace("good", "fair"), "stop", Fault.WRONG_LEVEL),
        (GOOD.replace("good", "4"), "stop", Fault.NOT_A_LEVEL),
        (GOOD.replace("good", "good or fair"), "stop", Fault.NOT_A_LEVEL),
        ("ValueError: too long", "error", Fault.ERROR),
        ("", "stop", Fault.EMPTY),
        (" \n\t", "stop", Fault.EMPTY),
        ("<think>" + "It is a good image. " * 60, "length", Fault.REPEATS),
        ("<think>" + "good " * 200 + "</think><answer>good</answer>" * 40, "stop", Fault.REPEATS),
        ("a" * 2000, "length", Fault.REPEATS),
        ("<think>画面很清楚 边缘有一点软</think><answer>good</answer>", "stop", Fault.OTHER_LANGUAGE),
        ("<think>Края мягкие, небо чистое.</think><answer>good</answer>", "stop", Fault.OTHER_LANGUAGE),
        ("<think>The edges are soft", "length", Fault.TRUNCATED),
        ("<think>The edges are soft <answer>good</answer>", "stop", Fault.NO_ANSWER),
        ("<think>soft</think><answer>good", "length", Fault.TRUNCATED),
        (GOOD + " And now", "length", Fault.TRUNCATED),
        ("The edges are soft, so it is good.", "stop", Fault.NO_ANSWER),
        (GOOD + "<answer>fair</answer>", "stop", Fault.MANY_ANSWERS),
        ("<answer>good</answer>", "stop", Fault.NO_REASONING),
        ("<think> </think><answer>good</answer>", "stop", Fault.NO_REASONING),
        ("<think>Like <image> it is</think><answer>good</answer>", "stop", Fault.MARKUP),
        ("<think>so<|im_end|></think><answer>good</answer>", "stop", Fault.MARKUP),
        ("<think>a <think> b</think><answer>good</answer>", "stop", Fault.MARKUP),
        (f"<think>{PLAN}. All is well.</think><answer>good</answer>", "stop", Fault.COPIES_PLAN),
        (f"<think>{PLAN.upper()}!</think><answer>good</answer>", "stop", Fault.COPIES_PLAN),
        (f"<think>{PLAN}</think><answer>bad</answer>", "stop", Fault.COPIES_PLAN),
    ],
)
def test_every_path_has_its_first_fault(text, finish_reason, fault):
    assert judge_path(answer(text, finish_reason), "good", PLAN).fault is fault


@pytest.mark.parametrize("plan", ["1.", "Sharpness", "!!!", "First look at sharpness"])
def test_a_plan_of_a_few_words_is_not_copied_by_reasoning_that_has_them(plan):
    text = "<think>1. First look at sharpness: all is well!!!</think><answer>good</answer>"
    assert judge_path(answer(text, "stop"), "good", plan).fault is None


def test_a_right_path_brings_its_reasoning():
    verdict = judge_path(answer(GOOD), "good", PLAN)
    assert (verdict.reasoning, verdict.level) == ("The sky is clean, the edges are soft.", "good")


@pytest.mark.parametrize(
    ("text", "finish_reason", "fault"),
    [
        (PLAN, "stop", None),
        (PLAN, "length", Fault.TRUNCATED),
        ("", "stop", Fault.EMPTY),
        ("先看噪声", "stop", Fault.OTHER_LANGUAGE),
    ],
)
def test_a_plan_has_to_be_whole(text, finish_reason, fault):
    assert judge_plan(answer(text, finish_reason)) is fault


def test_prose_does_not_repeat_itself():
    assert not repeats(PROSE) and not repeats(PROSE * 2)
    assert not repeats("\n".join(f"{n}. Look at the {word}." for n, word in enumerate(PROSE.split()[:80])))


@pytest.mark.parametrize("unit", ["ha", "good. ", "The image is good. The image is bad. ", "\n\n- noise: none", "很"])
def test_what_goes_round_in_circles_does(unit):
    assert repeats(PROSE + unit * (1200 // len(unit)))


def test_a_foreign_name_is_no_other_language():
    assert not other_language(f"{PROSE} The sign reads 北京.")
    assert not other_language("Über façade: naïve, ½ ©, 4.5/5 → ok")
    assert not other_language("12345 !?")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400), st.sampled_from(["stop", "length", "error"]))
def test_no_text_raises(text, finish_reason):
    verdict = judge_path(answer(text, finish_reason), "good", text[:20])
    assert verdict.fault is not None or verdict.reasoning


def test_a_megabyte_takes_no_time():
    import time

    texts = ["<think>" * 150_000, "a" * 1_000_000, "".join(random.Random(0).choices("<>/thinkanswer ", k=1_000_000))]
    started = time.perf_counter()
    for text in texts:
        judge_path(answer(text), "good", PLAN)
    assert time.perf_counter() - started < 1.5
