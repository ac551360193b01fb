"""Questions, scales and levels."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.tasks import (
    ALIGNMENT,
    DEGRADATION,
    DISTORTIONS,
    IMAGE_PLACEHOLDER,
    LEVELS,
    SEVERITIES,
    TASKS,
    TECHNICAL,
    Scale,
    Task,
    task_of,
    task_on,
)
from omniq_verl.tasks.q_insight import SYSTEM, comparison_task

unhurried = settings(deadline=None)  # a busy machine is no error
ONE_TO_FIVE = Scale(1.0, 5.0)
PARAPHRASES = [1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 2]
"""The wordings of the rows photo/000000 to photo/000011, as a hash of their ids chose them when this was written."""


@pytest.mark.parametrize(
    ("score", "level"),
    # Five parts of 0.8: bounds at 1.8, 2.6, 3.4, 4.2.
    [
        (1.0, "bad"),
        (1.799999, "bad"),
        (1.8, "poor"),
        (2.599999, "poor"),
        (2.6, "fair"),
        (3.399999, "fair"),
        (3.4, "good"),
        (4.199999, "good"),
        (4.2, "excellent"),
        (5.0, "excellent"),
    ],
)
def test_a_boundary_belongs_to_the_upper_level(score, level):
    assert ONE_TO_FIVE.level(score) == level


@pytest.mark.parametrize("scale", [Scale(0, 1), Scale(0, 100), Scale(1, 10), Scale(-1, 1)], ids=str)
@pytest.mark.parametrize("number", range(5))
def test_every_scale_has_five_equal_levels(scale, number):
    middle = scale.low + (scale.high - scale.low) * (number + 0.5) / 5
    assert scale.level(middle) == LEVELS[number]


@unhurried
@given(st.floats(1, 5), st.floats(1, 5))
def test_a_higher_score_never_has_a_lower_level(first, second):
    low, high = sorted((first, second))
    assert LEVELS.index(ONE_TO_FIVE.level(low)) <= LEVELS.index(ONE_TO_FIVE.level(high))


@pytest.mark.parametrize("score", [0.999999, 5.000001, float("inf"), float("-inf"), float("nan")])
def test_a_score_outside_of_the_scale_has_no_level(score):
    with pytest.raises(ValueError, match="outside"):
        ONE_TO_FIVE.level(score)


@pytest.mark.parametrize(("low", "high"), [(5, 1), (1, 1), (float("nan"), 1), (1, float("nan"))])
def test_a_scale_needs_a_lower_and_an_upper_bound(low, high):
    with pytest.raises(ValueError, match="low < high"):
        Scale(low, high)


def test_the_question_of_a_row_is_the_same_on_every_machine():
    filled = [text.format(low="1", high="5") for text in TECHNICAL.questions]
    assert [filled.index(TECHNICAL.question(f"photo/{number:06d}")) for number in range(12)] == PARAPHRASES


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_all_paraphrases_are_used_about_equally_often(task):
    asked = [task.question(f"row/{number}", "a car") for number in range(1000)]
    assert len(set(asked)) == len(task.questions)
    share = 1 / len(task.questions)
    # Give or take five binomial standard deviations.
    reach = 5 * (1000 * share * (1 - share)) ** 0.5
    assert all(abs(asked.count(text) - 1000 * share) <= reach for text in set(asked))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_paraphrase_names_the_tags_of_the_answer_and_fills_in_all_it_holds(task):
    for row in range(50):
        question = task.question(f"row/{row}", "a car")
        said = (task.system + question).replace("> <", "><")
        assert said.count("<answer></answer>") == 1
        assert said.count("<think></think>") == int(task.reasoning)
        assert not {"{", "}"} & set(question)


def test_every_paraphrase_about_a_score_names_both_bounds():
    for text in TECHNICAL.questions:
        filled = text.format(low="LOW", high="HIGH")
        assert filled.count("LOW") == filled.count("HIGH") == 1


def test_every_paraphrase_about_a_degradation_names_its_keys_and_all_their_values():
    for text in DEGRADATION.questions:
        assert all(f" {word}" in text for word in (*DISTORTIONS, *SEVERITIES, "null", "JSON"))
        assert '"distortion_class"' in text and '"severity"' in text


def test_whole_bounds_are_asked_without_a_decimal_point():
    task = Task("scaled", ("from {low} to {high}",), Scale(0.0, 2.5))
    assert task.question("row") == "from 0 to 2.5"


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.images == 1], ids=lambda task: task.name)
def test_the_prompt_is_one_user_turn_with_one_image_before_the_question(task):
    *system, turn = task.messages("row/1", "a car")
    assert turn == {"role": "user", "content": "<image>" + task.question("row/1", "a car")}
    assert turn["content"].count(IMAGE_PLACEHOLDER) == 1
    assert system == ([{"role": "system", "content": task.system}] if task.system else [])


def test_a_wording_may_hold_braces_and_a_text_whatever_it_likes():
    own = Task("own", ('Of {text}: answer as {"rating": 1} from {low} to {high}.',), Scale(0.0, 5.0), "json")
    assert own.question(None, "{low} {x} {text}") == 'Of {low} {x} {text}: answer as {"rating": 1} from 0 to 5.'
    seen = Task("seen", ("Is {text} blurred? {}",), None, "json")
    assert seen.question(None, "a cat") == "Is a cat blurred? {}"


def test_an_answer_rule_with_bounds_is_left_out_where_another_answer_is_asked_for():
    rule = " Answer with a number from {low} to {high} in <answer></answer>."
    task = Task("sharp", (f"How sharp is it?{rule}",), Scale(0.0, 10.0), answer_rule=rule)
    assert task.question("a") == "How sharp is it? Answer with a number from 0 to 10 in <answer></answer>."
    assert task.bare_question("a") == task.without_rule(task.question("a")) == "How sharp is it?"


@pytest.mark.parametrize("mark", ["<image>", "{text}"])
def test_an_answer_rule_has_no_image_and_no_text(mark):
    with pytest.raises(ValueError, match="'sharp': answer_rule must not contain"):
        Task("sharp", (f"How sharp is {mark}",), Scale(0.0, 10.0), answer_rule=f"is {mark}")


def test_a_question_about_a_text_needs_it():
    with pytest.raises(ValueError, match="needs the text an image was made from"):
        ALIGNMENT.question("row/1")


def test_a_question_about_a_text_has_it_word_for_word():
    text = 'a "{low}" sign in {braces}'
    for row in range(20):
        question = ALIGNMENT.question(f"row/{row}", text)
        assert question.count(text) == 1
    assert [task.name for task in TASKS.values() if task.needs_text] == [
        *("alignment", "alignment_direct", "code_alignment")
    ]


@pytest.mark.parametrize("name", ["technical", "aesthetic", "alignment"])
def test_a_task_on_another_scale_asks_and_judges_on_it(name):
    task = task_on(name, Scale(0.0, 5.0))
    for row in range(20):
        asked, own = (one.question(f"row/{row}", "a car") for one in (task, TASKS[name]))
        assert "0 (" in asked and "1 (" not in asked
        # The same paraphrase: only the bound differs.
        assert asked.replace("0 (", "1 (") == own
    assert task.label_fault({"score": 0.0}) is None
    assert "[0, 5]" in task.label_fault({"score": 5.1})


@pytest.mark.parametrize("name", TASKS)
def test_a_task_without_another_scale_is_the_task_itself(name):
    assert task_on(name, None) is TASKS[name]


def test_a_task_that_asks_for_no_score_has_no_scale():
    with pytest.raises(ValueError, match="the task degradation has no score"):
        task_on("degradation", Scale(0.0, 5.0))
    with pytest.raises(ValueError, match="the task degradation has no scale"):
        TASKS["degradation"].score_scale  # noqa: B018
    assert TASKS["technical"].score_scale == ONE_TO_FIVE


@pytest.mark.parametrize(
    ("info", "scale", "reason"),
    [
        ({"scale_low": 0.0, "scale_high": 5.0}, Scale(0.0, 5.0), "the row's own"),
        ({"scale_low": None, "scale_high": None}, ONE_TO_FIVE, "none"),
        ({"scale_low": math.nan, "scale_high": math.nan}, ONE_TO_FIVE, "none, as pandas reads it"),
        ({}, ONE_TO_FIVE, "nothing said of it"),
    ],
)
def test_the_task_of_a_row_is_on_the_scale_of_the_row(info, scale, reason):
    assert task_of({"task": "technical", **info}).scale == scale, reason


def test_a_row_of_an_unknown_task_has_none():
    with pytest.raises(ValueError, match=r"extra_info.task is 'beauty', an unknown task. Fix: name one of technical, "):
        task_of({"task": "beauty"})


def test_tasks_are_found_by_their_name():
    assert all(TASKS[name].name == name for name in TASKS)


# Labels


@pytest.mark.parametrize("score", [1, 1.0, 3.25, 5, 5.0])
def test_a_score_on_the_scale_is_a_label(score):
    assert TECHNICAL.label_fault({"score": score}) is None


@pytest.mark.parametrize(
    ("truth", "fault", "reason"),
    [
        ({}, "no number under 'score' (None)", "no score"),
        ({"mos": 3}, "no number under 'score' (None)", "another key"),
        ({"score": None}, "no number under 'score' (None)", "null"),
        ({"score": "3"}, "no number under 'score' ('3')", "a number in quotes"),
        ({"score": True}, "no number under 'score' (True)", "true, which Python counts as 1"),
        ({"score": [3]}, "no number under 'score' ([3])", "a list"),
        ({"score": math.nan}, "no number under 'score' (nan)", "not a number"),
        ({"score": math.inf}, "no number under 'score' (inf)", "infinity"),
        ({"score": 0.9}, "the label 0.9 is outside the scale [1, 5] of the task technical", "below the scale"),
        ({"score": 6}, "the label 6 is outside the scale [1, 5] of the task technical", "above the scale"),
        ({"distortion_class": "blur", "severity": "slight"}, "no number under 'score'", "another task's label"),
    ],
)
def test_a_label_that_is_no_score_on_the_scale_has_a_fault(truth, fault, reason):
    assert fault in TECHNICAL.label_fault(truth), reason


@pytest.mark.parametrize("distortion", DISTORTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_distortion_with_every_severity_is_a_label(distortion, severity):
    assert DEGRADATION.label_fault({"distortion_class": distortion, "severity": severity}) is None


def test_no_distortion_of_no_severity_is_a_label():
    assert DEGRADATION.label_fault({"distortion_class": None, "severity": None}) is None


def test_a_label_too_large_for_a_float_is_a_fault_and_no_crash():
    assert "no number" in TECHNICAL.label_fault({"score": 10**400})


@pytest.mark.parametrize(
    ("truth", "fault", "reason"),
    [
        ({"distortion_class": "haze", "severity": "slight"}, "distortion_class is 'haze'", "an unknown distortion"),
        ({"distortion_class": "Blur", "severity": "slight"}, "distortion_class is 'Blur'", "capitals"),
        ({"distortion_class": "JPEG", "severity": "slight"}, "distortion_class is 'JPEG'", "labels say compression"),
        ({"distortion_class": "null", "severity": "null"}, "distortion_class is 'null'", "labels have JSON's own null"),
        ({"distortion_class": ["blur"], "severity": "slight"}, "distortion_class is ['blur']", "a list"),
        ({"distortion_class": None, "severity": "slight"}, "there is no distortion", "a severity of nothing"),
        ({"distortion_class": "blur", "severity": None}, "severity is None", "a distortion without a severity"),
        ({"distortion_class": "blur", "severity": "huge"}, "severity is 'huge'", "an unknown severity"),
        ({"distortion_class": "blur", "severity": 1}, "severity is 1", "a number"),
        ({"distortion_class": "blur"}, "severity is ''", "no severity"),
        ({"severity": "slight"}, "distortion_class is ''", "no distortion, not even null"),
        ({}, "distortion_class is ''", "nothing at all"),
        ({"score": 3.2}, "distortion_class is ''", "another task's label"),
    ],
)
def test_a_label_that_is_no_known_degradation_has_a_fault(truth, fault, reason):
    assert fault in DEGRADATION.label_fault(truth), reason


@pytest.mark.parametrize(
    ("truth", "known"),
    [({"distortion_class": "haze"}, DISTORTIONS), ({"distortion_class": "blur", "severity": "huge"}, SEVERITIES)],
)
def test_the_fault_of_an_unknown_word_lists_the_known_ones(truth, known):
    assert ", ".join(known) in DEGRADATION.label_fault(truth)


# Q-Insight's wording


def test_q_insights_prompts_are_the_papers():
    # Of table 1, by what they begin and end with.
    score = TASKS["q_insight_score"].messages("any")
    assert score[0]["content"].endswith("<think> reasoning process here </think><answer> answer here </answer>.")
    assert (
        "a float between 1 and 5, rounded to two decimal places, with 1 representing very poor" in score[1]["content"]
    )
    assert score[1]["content"].endswith('with the following keys: "rating": The score.')
    degradation = TASKS["q_insight_degradation"].messages("any")[1]["content"]
    assert degradation.startswith("<image>Analyze the given image and determine if")
    assert degradation.endswith('"severity": The severity level (or "null" if none).')


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.like], ids=lambda task: task.name)
def test_another_wording_has_the_labels_and_the_scale_of_its_task(task):
    assert task.asks_for == TASKS[task.like].asks_for
    # The authors' code of OmniQuality-R has a scale of its own.
    assert task.scale == (Scale(0, 5) if task.name.startswith("code_") else TASKS[task.like].scale)
    assert not TASKS[task.like].like


@pytest.mark.parametrize("reference", [False, True])
def test_a_comparison_shows_its_images_in_their_order(reference):
    task = comparison_task(reference)
    system, turn = task.messages("any")
    assert system["content"] == SYSTEM and turn["content"].count(IMAGE_PLACEHOLDER) == task.images == 2 + reference
    assert not turn["content"].startswith(IMAGE_PLACEHOLDER)
    order = ["Given reference"] * reference + ["Image A: <image>", "Image B: <image>"]
    refs = [turn["content"].index(words) for words in order]
    assert refs == sorted(refs)
    assert task.asks_for == "choice" and TASKS[task.name] is task


@pytest.mark.parametrize(
    ("truth", "fault"),
    [
        ({"choice": "first"}, None),
        ({"choice": "second"}, None),
        ({"choice": "Image A"}, "choice is 'Image A'; known: first, second"),
        ({"choice": None}, "choice is None"),
        ({"choice": ["first"]}, "choice is ['first']"),
        ({"score": 3.0}, "choice is None"),
        ({}, "choice is None"),
    ],
)
@pytest.mark.parametrize("reference", [False, True])
def test_the_label_of_a_comparison_is_one_of_two(reference, truth, fault):
    found = comparison_task(reference).label_fault(truth)
    assert found == fault or (fault is not None and fault in found)


def test_images_that_are_rows_of_nothing_get_the_question_of_some_training_rows():
    for task in TASKS.values():
        same = [row for row in range(50) if task.messages(f"row/{row}", "a car") == task.messages(None, "a car")]
        assert same and (len(task.questions) == 1) == (len(same) == 50)
