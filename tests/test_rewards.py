"""Text -> parsed answer -> reward."""

import json
import math
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omniq_verl.rewards import Status, compute_score, format_reward, gaussian_reward, parse_response
from omniq_verl.tasks import Scale

unhurried = settings(deadline=None)  # a busy machine is no error
SCALE = Scale(1.0, 5.0)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
LARGEST_SCORE = 1e12
SCORES = st.floats(-LARGEST_SCORE, LARGEST_SCORE)


def answer(body: str) -> str:
    return f"<think>sharp</think><answer>{body}</answer>"


def reward(text: str, score: float = 3.0, **settings: float) -> dict[str, float]:
    return compute_score("koniq", text, json.dumps({"score": score}), {"task": "technical"}, **settings)


# Parsing


@pytest.mark.parametrize(
    ("text", "score", "reason"),
    [
        (answer("3"), 3.0, "an integer"),
        (answer("3.25"), 3.25, "a decimal number"),
        (answer("1"), 1.0, "the lower bound belongs to the scale"),
        (answer("5.000"), 5.0, "the upper bound belongs to the scale"),
        (answer("+4.5"), 4.5, "a sign"),
        (answer("004.5"), 4.5, "leading zeros"),
        (answer(" \n\t3.5 \r\n"), 3.5, "white space around the number"),
        (answer("\u00a03.5\u2003"), 3.5, "white space outside of ASCII"),
        ("<answer>2</answer>", 2.0, "no reasoning at all"),
        ("well, <answer>2</answer> I think", 2.0, "text around the answer is the format reward's business"),
        (answer("2.123456789012"), 2.123456789012, "twelve digits after the point"),
    ],
)
def test_a_single_decimal_number_on_the_scale_is_accepted(text, score, reason):
    parsed = parse_response(text, SCALE)
    assert (parsed.status, parsed.score, parsed.ok) == (Status.OK, score, True), reason


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("", Status.NO_ANSWER, "nothing"),
        ("4.5", Status.NO_ANSWER, "a number without tags"),
        ("4.5</answer>", Status.NO_ANSWER, "closed, never opened"),
        ("<Answer>4</Answer>", Status.NO_ANSWER, "tags are written in small letters"),
        ("<answer >4</answer>", Status.NO_ANSWER, "tags have no blank"),
        ("<answer>", Status.TRUNCATED, "ends after the tag"),
        ("<answer>4", Status.TRUNCATED, "ends after the number"),
        ("<answer>4</answer", Status.TRUNCATED, "ends inside of the closing tag"),
        ("</answer><answer>4", Status.TRUNCATED, "the only closing tag comes before"),
        ("<answer>4</answer><answer>4</answer>", Status.MANY_ANSWERS, "twice, though alike"),
        ("<answer>4</answer> or <answer>2", Status.MANY_ANSWERS, "a second one begins"),
        ("<answer>4</answer></answer>", Status.MANY_ANSWERS, "closed twice"),
        ("<answer><answer>4</answer></answer>", Status.MANY_ANSWERS, "nested"),
        ("</answer><answer>4</answer>", Status.MANY_ANSWERS, "closed before it was opened, and again"),
        (answer(""), Status.NOT_A_NUMBER, "empty"),
        (answer("   "), Status.NOT_A_NUMBER, "white space only"),
        (answer("4.5."), Status.NOT_A_NUMBER, "a full stop after the number"),
        (answer("4."), Status.NOT_A_NUMBER, "no digit after the point"),
        (answer("4,5"), Status.NOT_A_NUMBER, "a comma"),
        (answer("4.5/5"), Status.NOT_A_NUMBER, "a fraction"),
        (answer("about 4"), Status.NOT_A_NUMBER, "a word"),
        (answer("good"), Status.NOT_A_NUMBER, "a level"),
        (answer("4 5"), Status.NOT_A_NUMBER, "two numbers"),
        (answer("1e0"), Status.NOT_A_NUMBER, "an exponent"),
        (answer("1e3"), Status.NOT_A_NUMBER, "an exponent"),
        (answer("1_0"), Status.NOT_A_NUMBER, "Python's digit separator"),
        (answer("0x3"), Status.NOT_A_NUMBER, "hexadecimal"),
        (answer("inf"), Status.NOT_A_NUMBER, "infinity"),
        (answer("nan"), Status.NOT_A_NUMBER, "not a number, literally"),
        (answer("--3"), Status.NOT_A_NUMBER, "two signs"),
        (answer("\u0663"), Status.NOT_A_NUMBER, "an Arabic-Indic 3, which float() would take"),
        (answer("\uff13"), Status.NOT_A_NUMBER, "a full-width 3, which float() would take"),
        (answer("\u00b3"), Status.NOT_A_NUMBER, "a superscript 3"),
        (answer("3\u200b"), Status.NOT_A_NUMBER, "a zero-width space is no white space"),
        (answer("3" * 13), Status.NOT_A_NUMBER, "thirteen digits"),
        (answer("3" * 100_000), Status.NOT_A_NUMBER, "more digits than Python converts"),
        (answer("3." + "3" * 13), Status.NOT_A_NUMBER, "thirteen digits after the point"),
        (answer("<think>3</think>"), Status.NOT_A_NUMBER, "another tag inside"),
        (answer("0.99"), Status.OUT_OF_RANGE, "below the scale"),
        (answer("-3"), Status.OUT_OF_RANGE, "negative"),
        (answer(".5"), Status.OUT_OF_RANGE, "no digit before the point is a number, here too small a one"),
        (answer("5.000000000001"), Status.OUT_OF_RANGE, "above the scale"),
        (answer("9" * 12), Status.OUT_OF_RANGE, "twelve digits"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text, status, reason):
    parsed = parse_response(text, SCALE)
    assert (parsed.status, parsed.score, parsed.ok) == (status, None, False), reason


@pytest.mark.parametrize(
    ("text", "reasoning", "reason"),
    [
        ("<think>sharp</think><answer>4</answer>", "sharp", "as asked"),
        ("  <think>\n sharp \n</think> <answer>4</answer>", "sharp", "white space around it"),
        ("<think></think><answer>4</answer>", "", "empty is not the same as none"),
        ("<think>a</think><think>b</think><answer>4</answer>", "a", "the first one"),
        ("<think>sharp<answer>4</answer>", None, "never closed"),
        ("Well. <think>sharp</think><answer>4</answer>", None, "the response does not begin with it"),
        ("<answer>4</answer><think>sharp</think>", None, "it comes after the answer"),
        ("<answer>4</answer>", None, "there is none"),
        ("<think>sharp</think>", "sharp", "kept though there is no answer"),
        ("<think>sharp</think><answer>soft</answer>", "sharp", "kept though the answer is no number"),
    ],
)
def test_reasoning_is_the_first_closed_think_part_at_the_beginning(text, reasoning, reason):
    assert parse_response(text, SCALE).reasoning == reasoning, reason


def hostile_text() -> st.SearchStrategy[str]:
    """Texts that come close to an answer: tags, numbers and arbitrary characters in any order."""
    near_numbers = st.from_regex(r"[+-]?[0-9]{0,3}[.,]?[0-9]{0,3}", fullmatch=True)
    return st.lists(st.one_of(st.sampled_from(TAGS), near_numbers, st.text(max_size=5)), max_size=9).map("".join)


@unhurried
@given(hostile_text() | st.text())
@example("<answer>\ud800</answer>")
@example("<answer>3\x00</answer>")
def test_no_text_raises_and_only_a_single_decimal_on_the_scale_is_ok(text):
    parsed = parse_response(text, SCALE)
    if parsed.ok:
        ((number),) = re.findall(r"<answer>\s*([+-]?[0-9]*\.?[0-9]+)\s*</answer>", text)
        assert text.count("<answer>") == text.count("</answer>") == 1
        assert parsed.score == float(number)
        assert 1.0 <= parsed.score <= 5.0
    else:
        assert parsed.score is None


@unhurried
@given(st.floats(1.0, 5.0), st.integers(0, 6))
def test_every_number_on_the_scale_is_read_back(value, digits):
    written = f"{min(max(round(value, digits), 1.0), 5.0):.{digits}f}"
    assert parse_response(answer(written), SCALE).score == float(written)


def seconds(function, text: str) -> float:
    """The shortest of three calls: the machine's other work only ever adds."""

    def once() -> float:
        started = time.perf_counter()
        function(text)
        return time.perf_counter() - started

    return min(once() for _ in range(3))


@pytest.mark.parametrize("function", [lambda text: parse_response(text, SCALE), format_reward], ids=["parse", "format"])
@pytest.mark.parametrize(
    "unit",
    ["<answer>", "</answer>", "<answer></answer>", "<", "<think>", "</think>", "<think></think>", " "],
)
def test_ten_times_the_text_takes_about_ten_times_the_time(function, unit):
    length = 200_000 // len(unit)
    # Ten is linear and a hundred quadratic; a millisecond on top for what the clock and other programs do.
    assert seconds(function, unit * (length * 10)) < 30 * seconds(function, unit * length) + 1e-3


@pytest.mark.parametrize(
    ("before", "unit", "after"),
    [("<answer>", "7", "</answer>"), ("<answer>", " ", "3</answer>"), ("<answer>3.", "0", "x</answer>")],
)
def test_a_long_answer_takes_linear_time(before, unit, after):
    def parse(body: str) -> None:
        parse_response(before + body + after, SCALE)

    assert seconds(parse, unit * 2_000_000) < 30 * seconds(parse, unit * 200_000) + 1e-3


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


@unhurried
@given(hostile_text())
def test_the_format_reward_is_one_exactly_where_a_plain_pattern_matches(text):
    pattern = r"\s*<think>((?!</?(think|answer)>).)*</think>\s*<answer>((?!</?(think|answer)>).)*</answer>\s*"
    assert format_reward(text) == float(re.fullmatch(pattern, text, re.DOTALL) is not None)


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


def test_the_width_is_that_of_the_paper_unless_it_is_given():
    assert gaussian_reward(3.8, 3.0) == pytest.approx(math.exp(-1 / 2), rel=1e-12)


@unhurried
@given(SCORES, SCORES, st.floats(1e-3, 1e6))
def test_the_gaussian_reward_is_symmetric_and_agrees_with_the_formula(pred, target, sigma):
    value = gaussian_reward(pred, target, sigma)
    standard_scores = (pred - target) / sigma
    assert value == gaussian_reward(target, pred, sigma)
    assert value == pytest.approx(math.e ** (-0.5 * standard_scores * standard_scores), rel=1e-6, abs=1e-300)
    assert 0.0 <= value <= 1.0


@unhurried
@given(st.floats(1, 5), st.floats(1, 5), st.floats(1, 5), st.floats(0.1, 2))
def test_a_prediction_nearer_to_the_target_is_never_worth_less(first, second, target, sigma):
    near, far = sorted((first, second), key=lambda pred: abs(pred - target))
    assert gaussian_reward(near, target, sigma) >= gaussian_reward(far, target, sigma)


@pytest.mark.parametrize("sigma", [0.0, -0.8, math.nan])
def test_a_width_that_is_not_positive_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma must be positive"):
        gaussian_reward(3.0, 3.0, sigma)


# Together


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # One sigma off: exp(-1/2) = 0.6065.
        (answer("3.8"), {"score": 0.6065306597126334, "accuracy": 0.6065306597126334, "format": 1.0, "parsed": 1.0}),
        ("<answer>3</answer>", {"score": 1.0, "accuracy": 1.0, "format": 0.0, "parsed": 1.0}),
        (answer("good"), {"score": 0.0, "accuracy": 0.0, "format": 1.0, "parsed": 0.0}),
        ("", {"score": 0.0, "accuracy": 0.0, "format": 0.0, "parsed": 0.0}),
    ],
)
def test_the_reward_of_a_response_is_its_gaussian_accuracy(text, expected):
    assert reward(text, score=3.0, sigma=0.8) == pytest.approx(expected, rel=1e-12)


def test_the_format_is_added_with_its_weight():
    # exp(-1/2) + 0.25 * 1
    assert reward(answer("3.8"), 3.0, sigma=0.8, format_weight=0.25)["score"] == pytest.approx(0.8565306597126334)


def test_the_width_is_passed_on():
    # One unit off at sigma 2: exp(-1/8)
    assert reward(answer("4"), 3.0, sigma=2.0)["accuracy"] == pytest.approx(0.8824969025845955)


def test_an_answer_off_the_scale_is_worth_nothing_even_where_it_is_near():
    assert reward(answer("5.1"), score=5.0)["score"] == 0.0


@unhurried
@given(hostile_text() | st.text(), st.floats(1, 5), st.floats(0, 1))
def test_the_reward_has_the_same_float_entries_whatever_the_text_is(text, score, format_weight):
    values = reward(text, score, format_weight=format_weight)
    assert list(values) == ["score", "accuracy", "format", "parsed"]  # verl reserves the name "reward"
    assert all(type(value) is float and math.isfinite(value) for value in values.values())


def test_arguments_a_later_verl_may_pass_are_no_error():
    assert (
        compute_score("koniq", answer("3"), '{"score": 3.0}', {"task": "technical"}, reward_router=None)["score"] == 1
    )


def test_a_row_of_an_unknown_task_is_an_error():
    with pytest.raises(KeyError, match="aesthetic"):
        compute_score("koniq", answer("3"), '{"score": 3.0}', {"task": "aesthetic"})
