"""Answer -> reward: all its parts together, as verl is given them, and the settings."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from response_builders import answer, hostile_text

from omniq_verl.rewards import RewardSettings, Status, compute_score
from omniq_verl.tasks import TASKS

unhurried = settings(deadline=None)  # a busy machine is no error
KEYS = {
    "score",
    "accuracy",
    "format",
    "parsed",
    "status",
    "pred",
    "target",
    "task",
    "level_right",
    "level_asked",
    "class_right",
    "choice_right",
}
COMPARISONS = ("q_insight_comparison", "q_insight_comparison_reference")


def reward(text: str, score: float = 3.0, source: str = "koniq", **settings: Any) -> dict[str, float]:
    return compute_score(source, text, json.dumps({"score": score}), {"task": "technical"}, **settings)


def named(distortion: str | None, severity: str | None) -> str:
    return json.dumps({"distortion_class": distortion, "severity": severity})


def degradation(text: str, distortion: str | None = "blur", severity: str | None = "slight", **settings: Any):
    return compute_score("kadis", text, named(distortion, severity), {"task": "degradation"}, **settings)


def choice(text: str, better: str = "first", task: str = COMPARISONS[0], **settings: Any) -> dict[str, float]:
    return compute_score("koniq_pairs", text, json.dumps({"choice": better}), {"task": task}, **settings)


# Together


def test_a_score_is_judged_in_all_its_parts():
    values = reward(answer("3.8"), score=3.0, sigma=0.8)
    one_sigma = 0.6065306597126334  # exp(-1/2)
    expected = {"score": one_sigma, "accuracy": one_sigma, "format": 1.0, "parsed": 1.0, "status": 0.0}
    # 3.8 is good, 3.0 is fair; a score has no class and no choice.
    expected |= {"pred": 3.8, "target": 3.0, "level_right": 0.0, "class_right": math.nan, "choice_right": math.nan}
    expected |= {"level_asked": 1.0, "task": list(TASKS).index("technical")}
    assert values == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>3</answer>", {"score": 1.0, "accuracy": 1.0, "format": 0.0, "parsed": 1.0, "level_right": 1.0}),
        (answer("good"), {"score": 0.0, "accuracy": 0.0, "format": 1.0, "parsed": 0.0, "level_right": 0.0}),
        ("", {"score": 0.0, "accuracy": 0.0, "format": 0.0, "parsed": 0.0, "level_right": 0.0}),
    ],
)
def test_the_reward_of_a_score_is_its_accuracy_whatever_its_form(text, expected):
    assert reward(text, score=3.0).items() >= expected.items()


@pytest.mark.parametrize(
    ("said", "true", "accuracy", "class_right", "level_right"),
    [
        (("JPEG", "slight"), ("compression", "slight"), 1.0, 1.0, 1.0),
        (("blur", "serious"), ("blur", "slight"), 0.25, 1.0, 0.0),
        (("noise", "slight"), ("blur", "slight"), 0.0, 0.0, 0.0),
        # Nothing is wrong with the image: there is no level to be right.
        ((None, None), (None, None), 1.0, 1.0, 0.0),
        (("null", "null"), (None, None), 1.0, 1.0, 0.0),
        (("blur", "slight"), (None, None), 0.0, 0.0, 0.0),
    ],
)
def test_a_degradation_is_judged_in_all_its_parts(said, true, accuracy, class_right, level_right):
    values = degradation(answer(named(*said)), *true)
    expected = {"score": accuracy, "accuracy": accuracy, "format": 1.0, "parsed": 1.0, "status": 0.0}
    expected |= {"pred": math.nan, "target": math.nan, "level_right": level_right, "class_right": class_right}
    expected |= {"level_asked": float(true[0] is not None), "task": list(TASKS).index("degradation")}
    assert values == pytest.approx({**expected, "choice_right": math.nan}, nan_ok=True)


@pytest.mark.parametrize("task", COMPARISONS)
@pytest.mark.parametrize(
    ("text", "better", "accuracy", "form", "status"),
    [
        (answer("Image A"), "first", 1.0, 1.0, Status.OK),
        (answer("Image B"), "second", 1.0, 1.0, Status.OK),
        (answer("Image B"), "first", 0.0, 1.0, Status.OK),
        (answer("Image A"), "second", 0.0, 1.0, Status.OK),
        (answer('\n"image b".\n'), "second", 1.0, 1.0, Status.OK),
        ("Image A is sharper. <answer>Image A</answer>", "first", 1.0, 0.0, Status.OK),
        (answer("Similar"), "first", 0.0, 1.0, Status.NOT_A_CHOICE),
        (answer("Image A or Image B"), "first", 0.0, 1.0, Status.NOT_A_CHOICE),
        (answer('{"answer": "Image A"}'), "first", 0.0, 1.0, Status.NOT_A_CHOICE),
        (answer("first"), "first", 0.0, 1.0, Status.NOT_A_CHOICE),
        ("<think>Image A</think>", "first", 0.0, 0.0, Status.NO_ANSWER),
        (answer("Image A") * 2, "first", 0.0, 0.0, Status.MANY_ANSWERS),
    ],
)
def test_a_choice_is_judged_in_all_its_parts(task, text, better, accuracy, form, status):
    values = choice(text, better, task, format_weight=1.0)
    expected = {"score": accuracy + form, "accuracy": accuracy, "choice_right": accuracy, "format": form}
    expected |= {"parsed": float(status is Status.OK), "status": float(list(Status).index(status))}
    expected |= {"pred": math.nan, "target": math.nan, "level_right": 0.0, "class_right": math.nan}
    expected |= {"level_asked": 0.0, "task": list(TASKS).index(task)}
    assert values == pytest.approx(expected, nan_ok=True)


@unhurried
@given(hostile_text() | st.from_regex(r"<answer>[ .\"']*[iI]mage [abAB][ .]*</answer>", fullmatch=True))
def test_no_answer_is_right_for_both_labels_and_one_that_is_read_is_right_for_one(text):
    first, second = choice(text, "first"), choice(text, "second")
    assert first["accuracy"] + second["accuracy"] == first["parsed"] == second["parsed"]
    assert first["choice_right"] == first["accuracy"] and first["status"] == second["status"]


def test_no_distortion_may_be_said_by_leaving_its_keys_out():
    assert degradation(answer("{}"), None, None)["accuracy"] == 1.0
    assert degradation(answer('{"severity": "null"}'), None, None)["accuracy"] == 1.0
    assert degradation(answer('{"severity": "slight"}'), "blur", "slight")["accuracy"] == 0.0
    assert degradation(answer('{"severity": "slight"}'), None, None)["accuracy"] == 0.0


@pytest.mark.parametrize(
    "said", ['{"rating": 3.5}', '{"distortion": "blur", "level": "serious"}', '{"Distortion_Class": "blur"}']
)
def test_an_answer_to_another_question_is_not_that_nothing_is_wrong(said):
    values = degradation(answer(said), None, None)
    assert (values["parsed"], values["class_right"], values["accuracy"]) == (1.0, 0.0, 0.0)


def test_a_degradation_that_cannot_be_read_is_wrong_even_where_there_is_none():
    values = degradation(answer("no distortion"), None, None)
    assert [values[key] for key in ("accuracy", "class_right", "level_right", "parsed")] == [0.0] * 4


@pytest.mark.parametrize(
    ("text", "pred"), [(answer("4"), 4.0), (answer("good"), math.nan), (answer("6"), math.nan), ("", math.nan)]
)
def test_a_score_that_was_not_given_is_nan_and_the_target_is_there_all_the_same(text, pred):
    values = reward(text, score=2.0)
    assert [values["pred"], values["target"]] == pytest.approx([pred, 2.0], nan_ok=True)


@pytest.mark.parametrize(
    ("judged", "text", "status"),
    [
        (reward, answer("3"), Status.OK),
        (reward, "", Status.NO_ANSWER),
        (reward, "<think>", Status.TRUNCATED),
        (reward, answer("3") * 2, Status.MANY_ANSWERS),
        (degradation, answer("3"), Status.NOT_JSON),
        (reward, answer("good"), Status.NOT_A_NUMBER),
        (reward, answer("6"), Status.OUT_OF_RANGE),
        (choice, answer("6"), Status.NOT_A_CHOICE),
    ],
)
def test_the_status_is_the_number_of_the_reason(judged, text, status):
    assert list(Status)[int(judged(text)["status"])] is status


def test_a_whole_number_in_the_label_is_a_float_in_the_result():
    values = compute_score("koniq", answer("1"), '{"score": 1}', {"task": "technical"})
    assert (values["score"], values["target"], type(values["target"])) == (1.0, 1.0, float)


def test_an_answer_off_the_scale_is_worth_nothing_even_where_it_is_near():
    assert reward(answer("5.1"), score=5.0)["score"] == 0.0


@unhurried
@given(hostile_text() | st.from_regex(r"<answer>[0-9.]{1,3}</answer>"), st.floats(1, 5), st.floats(0, 1))
def test_the_result_has_the_same_float_entries_for_every_task_whatever_the_text_is(text, score, format_weight):
    judged = [reward(text, score, format_weight=format_weight)]
    judged += [one(text, format_weight=format_weight) for one in (degradation, choice)]
    for values in judged:
        assert values.keys() == KEYS  # verl reserves the name "reward", which is not among them
        assert all(type(value) is float for value in values.values())
        assert 0.0 <= values["accuracy"] <= 1.0 and 0.0 <= values["score"] <= 1.0 + format_weight


SCORED, CHOSEN, WORN = {"task": "technical"}, {"task": "q_insight_comparison"}, {"task": "degradation"}


@pytest.mark.parametrize(
    ("info", "truth", "said"),
    [
        ({"task": "beauty"}, '{"score": 3.0}', "extra_info.task is 'beauty'"),
        ({}, '{"score": 3.0}', "extra_info.task is None"),
        (None, '{"score": 3.0}', "extra_info.task is None"),
        ({"task": ["technical"]}, '{"score": 3.0}', "extra_info.task is None|extra_info.task is .'technical'."),
        ({**SCORED, "scale_low": 1.0}, '{"score": 3.0}', "scale_high is None"),
        ({**SCORED, "scale_low": "1", "scale_high": "5"}, '{"score": 3.0}', "scale_low is '1'"),
        ({**SCORED, "scale_low": 5.0, "scale_high": 1.0}, '{"score": 3.0}', "scale_low is 5"),
        ({**SCORED, "scale_low": 1.0, "scale_high": math.inf}, '{"score": 3.0}', "scale_high is inf"),
        (SCORED, "3.0", "ground_truth is '3.0', not a JSON object"),
        (SCORED, 3.0, "ground_truth is 3.0, not a JSON object"),
        (SCORED, None, "ground_truth is None, not a JSON object"),
        (SCORED, {"score": 3.0}, "not a JSON object as text"),
        (SCORED, "good", "ground_truth is 'good', not a JSON object"),
        (SCORED, "[3.0]", "not a JSON object"),
        (SCORED, '{"rating": 3.0}', "no number under 'score'"),
        (SCORED, '{"score": "3"}', "no number under 'score'"),
        (SCORED, '{"score": NaN}', "no number under 'score'"),
        (SCORED, '{"score": true}', "no number under 'score'"),
        (SCORED, '{"score": 73.0}', "label 73 is outside the scale"),
        (CHOSEN, '{"choice": "A"}', "choice is 'A'"),
        (WORN, '{"score": 3.0}', "distortion_class is ''"),
    ],
)
def test_a_row_that_cannot_be_rewarded_is_named_with_its_fault_and_the_fix(info, truth, said):
    where = {} if info is None else {"index": 17, "id": "koniq/3.jpg", **info}
    with pytest.raises(ValueError, match=said) as caught:
        compute_score("koniq", answer("3"), truth, where if info is not None else None)
    text = str(caught.value)
    assert "'koniq'" in text and "Fix: " in text and "\n" not in text
    assert info is None or ("index 17" in text and "'koniq/3.jpg'" in text)


@pytest.mark.parametrize("response", [None, b"<answer>3</answer>", 3.0, ["<answer>3</answer>"], math.nan])
def test_a_response_that_is_not_text_is_an_error_that_names_the_row(response):
    with pytest.raises(ValueError, match=r"\(extra_info.id 'a.jpg'\) .* not a str. Fix: pass") as error:
        compute_score("koniq", response, json.dumps({"score": 3.0}), {"task": "technical", "id": "a.jpg"})
    assert repr(response) in str(error.value)


FAR = math.exp(-((1.0 / 0.8) ** 2) / 2)
"""Reward of a score that is 1 off."""


@pytest.mark.parametrize(
    ("said", "scale", "accuracy", "status", "reason"),
    [
        ("0.5", {"scale_low": 0.0, "scale_high": 5.0}, FAR, Status.OK, "on the row's scale, off the task's own"),
        ("0.5", {"scale_low": None, "scale_high": None}, 0.0, Status.OUT_OF_RANGE, "without a scale it is the task's"),
        ("0.5", {}, 0.0, Status.OUT_OF_RANGE, "and where nothing is said of one"),
        ("0.5", {"scale_low": math.nan, "scale_high": math.nan}, 0.0, Status.OUT_OF_RANGE, "pandas' word for none"),
        ("-0.5", {"scale_low": 0.0, "scale_high": 5.0}, 0.0, Status.OUT_OF_RANGE, "off every scale"),
    ],
)
def test_an_answer_is_judged_on_the_scale_of_its_row(said, scale, accuracy, status, reason):
    values = compute_score("koniq", answer(said), '{"score": 1.5}', {"task": "technical", "text": None, **scale})
    assert (values["accuracy"], list(Status)[int(values["status"])]) == (accuracy, status), reason


def test_levels_are_those_of_the_scale_of_the_row():
    # 1.9 and 2.1: poor and fair where [0, 5] parts at 2; both poor where [1, 5] parts at 1.8 and 2.6.
    info = {"task": "technical", "scale_low": 0.0, "scale_high": 5.0}
    assert compute_score("koniq", answer("1.9"), '{"score": 2.1}', info)["level_right"] == 0.0
    assert compute_score("koniq", answer("1.9"), '{"score": 2.1}', {"task": "technical"})["level_right"] == 1.0


def test_a_degradation_is_judged_though_its_row_has_an_empty_scale():
    info = {"task": "degradation", "scale_low": None, "scale_high": None, "text": None, "details": "{}"}
    assert compute_score("kadis", answer(named("blur", "slight")), named("blur", "slight"), info)["accuracy"] == 1.0


# Settings


def test_the_format_is_added_with_its_weight():
    # exp(-1/2) + 0.25 * 1
    assert reward(answer("3.8"), 3.0, sigma=0.8, format_weight=0.25)["score"] == pytest.approx(0.8565306597126334)
    # 0.25 for the class + 2 * 1
    assert degradation(answer(named("blur", "serious")), format_weight=2.0)["score"] == 2.25


def test_the_format_of_a_degradation_is_that_of_an_object():
    assert degradation(answer("blur"), format_weight=1.0)["score"] == 0.0
    assert reward(answer("blur"), format_weight=1.0)["score"] == 1.0


def test_the_accuracy_has_a_weight_too_and_is_reported_without_it():
    values = reward(answer("3"), 3.0, accuracy_weight=0.5)
    assert (values["score"], values["accuracy"]) == (0.5, 1.0)


@pytest.mark.parametrize(("said", "value"), [("3.375", 1.0), ("3.5", 0.0)])
def test_the_threshold_reward_is_used_where_it_is_asked_for(said, value):
    assert reward(answer(said), 3.0, score_reward="threshold", epsilon=0.5)["accuracy"] == value


def test_the_weights_of_a_degradation_are_passed_on():
    settings = {"class_weight": 0.5, "level_weight": 0.125}
    assert degradation(answer(named("blur", "serious")), **settings)["accuracy"] == 0.5
    assert degradation(answer(named("blur", "slight")), **settings)["accuracy"] == 0.625


@pytest.mark.parametrize("of_recipe", [dict, OmegaConf.create], ids=["dict", "omegaconf"])
@pytest.mark.parametrize(("source", "sigma"), [("ava", 2.0), ("koniq", 0.5)])
def test_settings_of_a_data_source_go_before_those_of_all(source, sigma, of_recipe):
    values = reward(answer("4"), 3.0, source, sigma=0.5, sources=of_recipe({"ava": {"sigma": 2.0}}))
    assert values["accuracy"] == pytest.approx(math.exp(-1 / (2 * sigma * sigma)), rel=1e-12)


@pytest.mark.parametrize("sources", [None, {}, {"ava": {}}])
def test_a_source_without_settings_has_those_of_all(sources):
    assert RewardSettings.for_source("ava", sources, sigma=0.5) == RewardSettings(sigma=0.5)


def test_the_settings_are_those_of_the_papers_unless_they_are_given():
    assert RewardSettings() == RewardSettings("gaussian", 0.8, 0.35, 1.0, 0.0, 0.25, 0.75)


@pytest.mark.parametrize("settings", [{"sigmas": 0.8}, {"sources": {"koniq": {"sigmas": 0.8}}}])
def test_an_unknown_setting_is_an_error_that_names_it(settings):
    with pytest.raises(TypeError, match="sigmas"):
        reward(answer("3"), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_reward": "laplace"}, "'gaussian', 'threshold' or package.module:object, got 'laplace'"),
        ({"sigma": 0.0}, "positive, got 0.0 and 0.35"),
        ({"sigma": math.nan}, "positive, got nan"),
        ({"epsilon": -1.0}, "positive, got 0.8 and -1.0"),
        ({"sources": {"koniq": {"sigma": -1.0}}}, "positive, got -1.0"),
        ({"sources": {"koniq": None}}, "sources.koniq must be a mapping from settings to values, got None"),
        ({"sources": {"koniq": 0.5}}, "sources.koniq must be a mapping from settings to values, got 0.5"),
        ({"sigma": [0.8]}, r"sigma must be a single value, got \[0.8\]"),
    ],
)
def test_a_setting_out_of_its_range_is_an_error_even_where_it_is_not_used(settings, message):
    with pytest.raises(ValueError, match=message):
        reward("", **settings)
