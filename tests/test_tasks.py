"""Questions, scales and levels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.tasks import IMAGE_PLACEHOLDER, LEVELS, TASKS, TECHNICAL, Scale, Task

unhurried = settings(deadline=None)  # a busy machine is no error
ONE_TO_FIVE = Scale(1.0, 5.0)
PARAPHRASES = [1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 2]
"""Of the rows photo/000000 to photo/000011, as a hash of their ids chose them when this was written."""


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
    asked = [task.question(f"row/{number}") for number in range(1000)]
    assert len(set(asked)) == len(task.questions)
    # Of 1000 rows a third, give or take five binomial standard deviations of 15.
    assert {asked.count(text) for text in asked} <= set(range(333 - 75, 334 + 75))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_paraphrase_names_both_bounds_and_the_tags_of_the_answer(task):
    for text in task.questions:
        filled = text.format(low="LOW", high="HIGH")
        assert filled.count("LOW") == filled.count("HIGH") == 1
        assert "<think></think>" in filled
        assert "<answer></answer>" in filled


def test_whole_bounds_are_asked_without_a_decimal_point():
    task = Task("scaled", ("from {low} to {high}",), Scale(0.0, 2.5))
    assert task.question("row") == "from 0 to 2.5"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_prompt_is_one_user_turn_with_one_image_before_the_question(task):
    assert task.messages("row/1") == [{"role": "user", "content": "<image>" + task.question("row/1")}]
    assert task.messages("row/1")[0]["content"].count(IMAGE_PLACEHOLDER) == 1


def test_tasks_are_found_by_their_name():
    assert all(TASKS[name].name == name for name in TASKS)
