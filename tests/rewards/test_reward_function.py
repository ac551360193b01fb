"""Answer -> reward: the formulas one by one."""

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from response_builders import ANY_CHARACTER, TAGS, answer, hostile_text, seconds

from omniq_verl.rewards import degradation_reward, format_reward, gaussian_reward, threshold_reward
from omniq_verl.tasks import DISTORTIONS, SEVERITIES

unhurried = settings(deadline=None)  # a busy machine is no error
LARGEST_SCORE = 1e12
SCORES = st.floats(-LARGEST_SCORE, LARGEST_SCORE)


# Format


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ("<think>a</think><answer>4</answer>", 1.0, "as asked"),
        (" \n<think>a</think>\n\n<answer>4</answer> \n", 1.0, "white space around and between"),
        ("<think></think><answer></answer>", 1.0, "what is inside does not count"),
        ("<think>a</think><answer>good</answer>", 1.0, "a number is the parser's business"),
        ("", 0.0, "nothing"),
        ("<answer>4</answer>", 0.0, "no reasoning"),
        ("<think>a</think>", 0.0, "no answer"),
        ("<think>a</think><answer>4", 0.0, "truncated"),
        ("Well. <think>a</think><answer>4</answer>", 0.0, "text before"),
        ("<think>a</think><answer>4</answer>.", 0.0, "text behind"),
        ("<think>a</think> so <answer>4</answer>", 0.0, "text between"),
        ("<think>a</think>\u200b<answer>4</answer>", 0.0, "a zero-width space is no white space"),
        ("<answer>4</answer><think>a</think>", 0.0, "the wrong order"),
        ("<think>a<answer>4</answer></think>", 0.0, "one inside of the other"),
        ("<think>a<answer></think>4</answer>", 0.0, "crossed"),
        ("<think>a</think><think>b</think><answer>4</answer>", 0.0, "reasoning twice"),
        ("<think>a</think><answer>4</answer><answer>4</answer>", 0.0, "an answer twice"),
        ("<think><think>a</think><answer>4</answer>", 0.0, "a tag twice"),
    ],
)
def test_the_format_reward_wants_exactly_the_structure_that_was_asked_for(text, value, reason):
    assert format_reward(text) == value, reason


@pytest.mark.parametrize(
    ("body", "value", "reason"),
    [
        ('{"rating": 4}', 1.0, "an object"),
        ("{}", 1.0, "an empty one"),
        (' \n{"rating": 4}\n', 1.0, "white space around it"),
        ("{rating: 4,}", 1.0, "whether it is JSON is the parser's business"),
        ("4", 0.0, "a number"),
        ("", 0.0, "nothing"),
        ("}{", 0.0, "braces the wrong way round"),
        ('{"rating": 4', 0.0, "never closed"),
        ('```{"rating": 4}```', 0.0, "a fence"),
        ('{"a": {"rating": 4}}', 0.0, "an object inside"),
        ('{"rating": 4}{"rating": 4}', 0.0, "two"),
    ],
)
def test_of_a_json_answer_the_format_reward_wants_one_pair_of_braces(body, value, reason):
    assert format_reward(answer(body), "json") == value, reason
    assert format_reward(answer(body) + ".", "json") == 0.0, "text behind"


@unhurried
@given(hostile_text())
def test_the_format_reward_is_one_exactly_where_a_plain_pattern_matches(text):
    no_tag = r"((?!</?(think|answer)>).)*"
    before = rf"\s*<think>{no_tag}</think>\s*<answer>"
    assert format_reward(text) == float(bool(re.fullmatch(rf"{before}{no_tag}</answer>\s*", text, re.DOTALL)))
    braces = r"\s*\{((?!</?(think|answer)>)[^{}])*\}\s*"
    assert format_reward(text, "json") == float(bool(re.fullmatch(rf"{before}{braces}</answer>\s*", text)))


@pytest.mark.parametrize("unit", ["a", "<", "{", " ", *TAGS, "<think></think>", "<answer></answer>"])
def test_the_format_of_a_megabyte_is_judged_within_50_milliseconds(unit):
    for text in (unit * (1_000_000 // len(unit)), answer(unit * (1_000_000 // len(unit)))):
        assert seconds(lambda text: format_reward(text, "json"), text) < 0.05


# Gaussian


@pytest.mark.parametrize(
    ("pred", "target", "sigma", "by_hand"),
    [
        (3.0, 3.0, 0.8, 1.0),  # exp(0)
        (3.8, 3.0, 0.8, 0.6065306597126334),  # one sigma away: exp(-1/2)
        (1.4, 3.0, 0.8, 0.1353352832366127),  # two sigma: exp(-4/2)
        (5.0, 1.0, 0.8, 3.726653172078671e-06),  # five sigma: exp(-25/2)
        (2.0, 4.0, 1.0, 0.1353352832366127),  # exp(-2^2 / 2)
        (60.0, 50.0, 20.0, 0.8824969025845955),  # half a sigma: exp(-1/8)
    ],
)
def test_the_gaussian_reward_agrees_with_values_worked_by_hand(pred, target, sigma, by_hand):
    assert gaussian_reward(pred, target, sigma) == pytest.approx(by_hand, rel=1e-12)


def test_widths_are_those_of_the_papers_unless_they_are_given():
    assert gaussian_reward(3.8, 3.0) == pytest.approx(math.exp(-1 / 2), rel=1e-12)
    assert (threshold_reward(3.34, 3.0), threshold_reward(3.36, 3.0)) == (1.0, 0.0)


@unhurried
@given(SCORES, SCORES, st.floats(1e-3, 1e6))
def test_the_gaussian_reward_is_symmetric_and_agrees_with_the_formula(pred, target, sigma):
    value = gaussian_reward(pred, target, sigma)
    # The equation as it is printed; the code divides before it squares.
    assert value == pytest.approx(math.exp(-((pred - target) ** 2) / (2 * sigma**2)), rel=1e-6, abs=1e-300)
    assert value == gaussian_reward(target, pred, sigma)
    assert 0.0 <= value <= 1.0


# Threshold


@pytest.mark.parametrize(
    ("pred", "target", "epsilon", "value", "reason"),
    [
        (3.0, 3.0, 0.5, 1.0, "the target itself"),
        (3.25, 3.0, 0.5, 1.0, "nearer than epsilon"),
        (2.75, 3.0, 0.5, 1.0, "nearer than epsilon, from below"),
        # Halves and quarters: floats hold them exactly, so the distance is epsilon to the last bit.
        (3.5, 3.0, 0.5, 0.0, "exactly epsilon"),
        (2.5, 3.0, 0.5, 0.0, "exactly epsilon, from below"),
        (3.75, 3.0, 0.5, 0.0, "farther"),
    ],
)
def test_the_threshold_reward_is_one_within_epsilon_and_zero_at_it(pred, target, epsilon, value, reason):
    assert threshold_reward(pred, target, epsilon) == value, reason


@unhurried
@given(st.integers(-800, 800), st.integers(-800, 800), st.integers(1, 800))
def test_the_threshold_reward_is_symmetric_and_agrees_with_the_formula(pred, target, epsilon):
    # Eighths are exact as floats, and so are their differences: the fractions decide without any rounding.
    value = threshold_reward(pred / 8, target / 8, epsilon / 8)
    assert value == float(abs(Fraction(pred, 8) - Fraction(target, 8)) < Fraction(epsilon, 8))
    assert value == threshold_reward(target / 8, pred / 8, epsilon / 8)


@pytest.mark.parametrize("formula", [gaussian_reward, threshold_reward])
@unhurried
@given(st.floats(1, 5), st.floats(1, 5), st.floats(1, 5), st.floats(0.1, 2))
def test_a_prediction_nearer_to_the_target_is_never_worth_less(formula, first, second, target, width):
    near, far = sorted((first, second), key=lambda pred: abs(pred - target))
    assert formula(near, target, width) >= formula(far, target, width)


@pytest.mark.parametrize(("formula", "name"), [(gaussian_reward, "sigma"), (threshold_reward, "epsilon")])
@pytest.mark.parametrize("width", [0.0, -0.8, math.nan])
def test_a_width_that_is_not_positive_is_rejected_by_its_name(formula, name, width):
    with pytest.raises(ValueError, match=f"{name} must be positive, got {width}"):
        formula(3.0, 3.0, width)


# Degradation


@pytest.mark.parametrize(
    ("pred", "target", "value", "reason"),
    [
        (("blur", "slight"), ("blur", "slight"), 1.0, "both right"),
        (("blur", "serious"), ("blur", "slight"), 0.25, "the right class with a wrong level"),
        (("noise", "slight"), ("blur", "slight"), 0.0, "a right level of a wrong class"),
        (("noise", "serious"), ("blur", "slight"), 0.0, "both wrong"),
        ((None, None), (None, None), 1.0, "no distortion, and none found"),
        (("null", "null"), (None, None), 1.0, "the word null"),
        (("NULL", " Null"), (None, None), 1.0, "no distortion and no severity in capitals"),
        (("none", "None"), (None, None), 1.0, "the word none, as DQ-495K writes it too"),
        ((None, None), ("null", "None"), 1.0, "a label with the words"),
        (("none", "none"), ("blur", "slight"), 0.0, "the word none where there is a distortion"),
        (("", ""), (None, None), 0.0, "an empty string says nothing"),
        ((None, "slight"), (None, None), 0.25, "a severity of nothing"),
        (("blur", "slight"), (None, None), 0.0, "a distortion where there is none"),
        ((None, None), ("blur", "slight"), 0.0, "none found where there is one"),
        (("blur", None), ("blur", "slight"), 0.25, "the class without a severity"),
        (("JPEG", "slight"), ("compression", "slight"), 1.0, "the data sets' word for compression"),
        (("compression", "slight"), ("JPEG", "slight"), 1.0, "the same, the other way round"),
        (("Blur", "SLIGHT"), ("blur", "slight"), 1.0, "capitals"),
        ((" blur\n", "slight "), ("blur", "slight"), 1.0, "white space"),
        (("blurry", "slight"), ("blur", "slight"), 0.0, "another word"),
        (("slight", "blur"), ("blur", "slight"), 0.0, "exchanged"),
        ((True, 3.0), ("blur", "slight"), 0.0, "no words at all"),
        ((False, 0.0), (None, None), 0.0, "what Python takes for nothing is not null"),
        (("blur", 1.0), ("blur", "slight"), 0.25, "a number for the level"),
    ],
)
def test_the_degradation_reward_agrees_with_a_table_worked_by_hand(pred, target, value, reason):
    assert degradation_reward(*pred, *target) == value, reason


@unhurried
@given(*[st.sampled_from([*DISTORTIONS, None]), st.sampled_from([*SEVERITIES, None])] * 2)
def test_the_degradation_reward_is_full_for_equal_names_only_and_symmetric(kind, level, other_kind, other_level):
    value = degradation_reward(kind, level, other_kind, other_level)
    assert (value == 1.0) == ((kind, level) == (other_kind, other_level))
    assert value == degradation_reward(other_kind, other_level, kind, level)
    assert 0.0 <= value <= 1.0


@unhurried
@given(st.one_of(st.none(), st.booleans(), st.floats(), st.text(ANY_CHARACTER)), st.text(ANY_CHARACTER))
def test_no_answer_makes_the_degradation_reward_raise(kind, level):
    assert degradation_reward(kind, level, "blur", "slight") in (0.0, 0.25, 1.0)
