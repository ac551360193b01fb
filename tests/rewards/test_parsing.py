"""Text -> answer, in every format."""

import json
import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from response_builders import ANY_CHARACTER, SCALE, answer, hostile_text

from omniq_verl.rewards import Parsed, Status, parse_response
from omniq_verl.rewards.parsing import ANSWER_FORMATS
from omniq_verl.tasks import Scale

unhurried = settings(deadline=None)  # a busy machine is no error
BODIES = {"number": "4", "json": '{"rating": 4}', "choice": "Image A"}
READ = {"number": (4.0, None), "json": (4.0, None), "choice": (None, "first")}
"""Score and choice of these."""


def number(text: str) -> Parsed:
    return parse_response(text, "number", SCALE)


def json_answer(body: str, scale: Scale | None = SCALE) -> Parsed:
    return parse_response(answer(body), "json", scale)


def rejected(parsed: Parsed) -> bool:
    return (parsed.ok, parsed.score, parsed.fields, parsed.choice) == (False, None, None, None)


# Where the answer stands


@pytest.mark.parametrize("answer_format", ANSWER_FORMATS)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>sharp</think><answer>BODY</answer>", "as asked"),
        ("<answer>BODY</answer>", "no reasoning at all"),
        ("well, <answer>BODY</answer> I think", "text around the answer is the format reward's business"),
        ("<answer> \n\tBODY \r\n</answer>", "white space around it"),
        ("<answer>\u00a0BODY\u2003</answer>", "white space outside of ASCII"),
        ("<think>a</think><think>b</think><answer>BODY</answer>", "the reasoning ended twice"),
        ("<think>a<think>b</think><answer>BODY</answer>", "nested reasoning that ended"),
        ("<answer>BODY</answer><think>sharp</think>", "reasoning that begins after the answer does not hold it"),
        ("\x00\u202e<answer>BODY</answer>\ud800\u200b", "what stands outside does not count, whatever it is"),
    ],
)
def test_the_answer_is_found_wherever_its_only_pair_of_tags_stands(text, answer_format, reason):
    parsed = parse_response(text.replace("BODY", BODIES[answer_format]), answer_format, SCALE)
    assert (parsed.status, (parsed.score, parsed.choice), parsed.ok) == (Status.OK, READ[answer_format], True), reason


@pytest.mark.parametrize("answer_format", ANSWER_FORMATS)
@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("", Status.NO_ANSWER, "nothing"),
        ("BODY", Status.NO_ANSWER, "an answer without tags"),
        ("BODY</answer>", Status.NO_ANSWER, "closed, never opened"),
        ("<think>a</think>", Status.NO_ANSWER, "reasoning and nothing else"),
        ("<Answer>BODY</Answer>", Status.NO_ANSWER, "tags are written in small letters"),
        ("<answer >BODY</answer>", Status.NO_ANSWER, "tags have no blank"),
        ("<ans\u200bwer>BODY</answer>", Status.NO_ANSWER, "a zero-width space inside of the tag"),
        ("\uff1canswer\uff1eBODY</answer>", Status.NO_ANSWER, "full-width brackets"),
        ("<think>a <answer>BODY</answer> b</think>", Status.NO_ANSWER, "only a part of the reasoning"),
        ("<think>a <answer>BODY</answer></think> so", Status.NO_ANSWER, "reasoning is no answer, though text follows"),
        ("<think>a</think><think><answer>BODY</answer></think>", Status.NO_ANSWER, "in a second reasoning"),
        ("<think>a <answer>BODY</answer>", Status.NO_ANSWER, "in a reasoning that never ends"),
        ("<think>the sky is", Status.TRUNCATED, "ends inside of the reasoning"),
        ("<think>", Status.TRUNCATED, "ends where the reasoning begins"),
        ("<think>a</think><think>b", Status.TRUNCATED, "ends inside of a second reasoning"),
        ("<think>a BODY</answer>", Status.TRUNCATED, "a closing tag alone ends no reasoning"),
        ("<answer>", Status.TRUNCATED, "ends after the tag"),
        ("<answer>BODY", Status.TRUNCATED, "ends inside of the answer"),
        ("<think>a</think><answer>BODY</answer", Status.TRUNCATED, "ends inside of the closing tag"),
        ("<think>a <answer>BODY", Status.TRUNCATED, "ends inside of both"),
        ("<think>a <answer>BODY</think>", Status.TRUNCATED, "the end of the reasoning closes no answer"),
        ("</answer><answer>BODY", Status.TRUNCATED, "the only closing tag comes before"),
        ("<answer>BODY</answer><answer>BODY</answer>", Status.MANY_ANSWERS, "twice, though alike"),
        ("<answer>BODY</answer>" * 1000, Status.MANY_ANSWERS, "a thousand times"),
        ("<answer>BODY</answer> or <answer>9", Status.MANY_ANSWERS, "a second one begins"),
        ("<think><answer>9</answer></think><answer>BODY</answer>", Status.MANY_ANSWERS, "one more in the reasoning"),
        ("<answer>BODY</answer></answer>", Status.MANY_ANSWERS, "closed twice"),
        ("<answer><answer>BODY</answer></answer>", Status.MANY_ANSWERS, "nested"),
        ("</answer><answer>BODY</answer>", Status.MANY_ANSWERS, "closed before it was opened, and again"),
    ],
)
def test_without_one_closed_answer_after_the_reasoning_there_is_none(text, status, answer_format, reason):
    parsed = parse_response(text.replace("BODY", BODIES[answer_format]), answer_format, SCALE)
    assert parsed.status is status and rejected(parsed), reason


@pytest.mark.parametrize(
    ("text", "reasoning", "reason"),
    [
        ("<think>sharp</think><answer>4</answer>", "sharp", "as asked"),
        ("  <think>\n sharp \n</think> <answer>4</answer>", "sharp", "white space around it"),
        ("<think></think><answer>4</answer>", "", "empty is not the same as none"),
        ("<think>a</think><think>b</think><answer>4</answer>", "a", "the first one"),
        ("<think>sharp", None, "never closed"),
        ("Well. <think>sharp</think><answer>4</answer>", None, "the response does not begin with it"),
        ("<answer>4</answer><think>sharp</think>", None, "it comes after the answer"),
        ("<answer>4</answer>", None, "there is none"),
        ("<think>sharp</think>", "sharp", "kept though there is no answer"),
        ("<think>sharp</think><answer>soft</answer>", "sharp", "kept though the answer is no number"),
    ],
)
def test_reasoning_is_the_first_closed_think_part_at_the_beginning(text, reasoning, reason):
    assert [parse_response(text, form, SCALE).reasoning for form in ANSWER_FORMATS] == [reasoning] * 3, reason


# Plain numbers


@pytest.mark.parametrize(
    ("body", "score", "reason"),
    [
        ("3", 3.0, "an integer"),
        ("3.25", 3.25, "a decimal number"),
        ("1", 1.0, "the lower bound belongs to the scale"),
        ("5.000", 5.0, "the upper bound belongs to the scale"),
        ("+4.5", 4.5, "a sign"),
        ("004.5", 4.5, "leading zeros"),
        ("2.123456789012", 2.123456789012, "twelve digits after the point"),
    ],
)
def test_a_single_decimal_number_on_the_scale_is_accepted(body, score, reason):
    parsed = number(answer(body))
    assert (parsed.status, parsed.score, parsed.fields) == (Status.OK, score, None), reason


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("", Status.NOT_A_NUMBER, "empty"),
        ("   ", Status.NOT_A_NUMBER, "white space only"),
        ("4.5.", Status.NOT_A_NUMBER, "a full stop after the number"),
        ("4.", Status.NOT_A_NUMBER, "no digit after the point"),
        ("4,5", Status.NOT_A_NUMBER, "a comma"),
        ("4.5/5", Status.NOT_A_NUMBER, "a fraction"),
        ("about 4", Status.NOT_A_NUMBER, "a word"),
        ("good", Status.NOT_A_NUMBER, "a level"),
        ("4 5", Status.NOT_A_NUMBER, "two numbers"),
        ('{"rating": 4}', Status.NOT_A_NUMBER, "the other format"),
        ("1e0", Status.NOT_A_NUMBER, "an exponent"),
        ("1e400", Status.NOT_A_NUMBER, "an exponent no float can hold"),
        ("1_0", Status.NOT_A_NUMBER, "Python's digit separator"),
        ("0x3", Status.NOT_A_NUMBER, "hexadecimal"),
        ("inf", Status.NOT_A_NUMBER, "infinity, which float() would take"),
        ("-Infinity", Status.NOT_A_NUMBER, "infinity, which float() would take"),
        ("NaN", Status.NOT_A_NUMBER, "not a number, literally"),
        ("--3", Status.NOT_A_NUMBER, "two signs"),
        ("\u22123", Status.NOT_A_NUMBER, "a minus sign outside of ASCII"),
        ("\u0663", Status.NOT_A_NUMBER, "an Arabic-Indic 3, which float() would take"),
        ("\uff13", Status.NOT_A_NUMBER, "a full-width 3, which float() would take"),
        ("\u00b3", Status.NOT_A_NUMBER, "a superscript 3"),
        ("\u200f3", Status.NOT_A_NUMBER, "a right-to-left mark before the number"),
        ("\u202e3\u202c", Status.NOT_A_NUMBER, "a number that is shown from right to left"),
        ("3\u200b", Status.NOT_A_NUMBER, "a zero-width space is no white space"),
        ("3\x00", Status.NOT_A_NUMBER, "a NUL, where C would end the number"),
        ("3\ud800", Status.NOT_A_NUMBER, "half a character"),
        ("3" * 13, Status.NOT_A_NUMBER, "thirteen digits"),
        ("3" * 100_000, Status.NOT_A_NUMBER, "more digits than Python converts"),
        ("3." + "3" * 13, Status.NOT_A_NUMBER, "thirteen digits after the point"),
        ("<think>3</think>", Status.NOT_A_NUMBER, "another tag inside"),
        ("0.99", Status.OUT_OF_RANGE, "below the scale"),
        ("-3", Status.OUT_OF_RANGE, "negative"),
        (".5", Status.OUT_OF_RANGE, "no digit before the point is a number, here too small a one"),
        ("5.000000000001", Status.OUT_OF_RANGE, "above the scale"),
        ("9" * 12, Status.OUT_OF_RANGE, "twelve digits"),
    ],
)
def test_an_answer_that_is_no_number_on_the_scale_is_rejected_with_its_reason(body, status, reason):
    parsed = number(answer(body))
    assert parsed.status is status and rejected(parsed), reason


def test_without_a_scale_a_number_is_read_however_large_it_is():
    assert parse_response(answer("-" + "9" * 12), "number").score == -999_999_999_999.0


@pytest.mark.parametrize("answer_format", ["xml", "JSON", "", None])
def test_an_unknown_format_is_an_error_of_the_caller(answer_format):
    with pytest.raises(ValueError, match="answer_format must be one of"):
        parse_response(answer("4"), answer_format, SCALE)


# JSON


@pytest.mark.parametrize(
    ("body", "score", "reason"),
    [
        ('{"rating": 3.25}', 3.25, "a number"),
        ('{"rating": 3}', 3.0, "an integer"),
        ('{"rating": "3.25"}', 3.25, "a decimal number in quotes"),
        ('{"rating": 3.25e0}', 3.25, "JSON's numbers have exponents"),
        ('{"rating": 1}', 1.0, "the lower bound belongs to the scale"),
        ('{"rating": 5.000}', 5.0, "the upper bound belongs to the scale"),
        ('{"rating": 3, "reason": "sharp", "sure": true, "more": null}', 3.0, "other keys"),
        ('\n{\n\t"rating" :\r 3\n}\n', 3.0, "white space where JSON allows it"),
        ('{"rat\\u0069ng": "\\u0033"}', 3.0, "escapes"),
        ('{"reason": "a {brace}, a [bracket]", "rating": 3}', 3.0, "braces within quotes"),
        ('{"reason": "\x00\u202e\ud800\n", "rating": 3}', 3.0, "characters that JSON would have escaped"),
    ],
)
def test_a_flat_object_with_a_rating_on_the_scale_is_accepted(body, score, reason):
    parsed = json_answer(body)
    assert (parsed.status, parsed.score) == (Status.OK, score), reason


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("", Status.NOT_JSON, "empty"),
        ("4", Status.NOT_JSON, "the other format"),
        ('"4"', Status.NOT_JSON, "a string is JSON, but no object"),
        ("null", Status.NOT_JSON, "null is JSON, but no object"),
        ('[{"rating": 4}]', Status.NOT_JSON, "a list"),
        ('{"rating": [4]}', Status.NOT_JSON, "a list inside"),
        ('{"rating": {"rating": 4}}', Status.NOT_JSON, "an object inside"),
        ('{"rating": 4, "more": {}}', Status.NOT_JSON, "an object inside, though there is a rating"),
        ('{"rating": 4} {"rating": 4}', Status.NOT_JSON, "two objects"),
        ('```json\n{"rating": 4}\n```', Status.NOT_JSON, "a markdown fence"),
        ('{"rating": 4} as I said', Status.NOT_JSON, "text behind"),
        ('\ufeff{"rating": 4}', Status.NOT_JSON, "a byte order mark"),
        ("{'rating': 4}", Status.NOT_JSON, "Python's quotes"),
        ("{rating: 4}", Status.NOT_JSON, "no quotes"),
        ('{"rating": 4,}', Status.NOT_JSON, "a comma behind"),
        ('{"rating": 4', Status.NOT_JSON, "no closing brace"),
        ('{"rating": +4}', Status.NOT_JSON, "a sign that JSON does not know"),
        ('{"rating": 04}', Status.NOT_JSON, "a leading zero, which JSON does not know"),
        ('{"rating": .5}', Status.NOT_JSON, "no digit before the point"),
        ('{"rating": \uff14}', Status.NOT_JSON, "a full-width digit"),
        ('{"rating": 4\u200f}', Status.NOT_JSON, "a right-to-left mark"),
        ('{"rating": 4\x00}', Status.NOT_JSON, "a NUL"),
        ('{"rating": "4}', Status.NOT_JSON, "a quote that is never closed"),
        ('{"rating": ' + "[" * 100_000, Status.NOT_JSON, "deeper than Python's stack"),
        ('{"a": ' * 100_000, Status.NOT_JSON, "objects deeper than Python's stack"),
        ("[" * 100_000, Status.NOT_JSON, "a hundred thousand brackets"),
        ("{" * 100_000, Status.NOT_JSON, "a hundred thousand braces"),
        ('{"rating": 4, "rating": 4}', Status.MANY_ANSWERS, "a key twice, though alike"),
        ('{"rating": 4, "rat\\u0069ng": 2}', Status.MANY_ANSWERS, "a key twice, once in escapes"),
        ('{"a": 1, "a": 2, "rating": 4}', Status.MANY_ANSWERS, "another key twice"),
        ("{}", Status.NOT_A_NUMBER, "an empty object"),
        ('{"score": 4}', Status.NOT_A_NUMBER, "another key"),
        ('{"Rating": 4}', Status.NOT_A_NUMBER, "a key in other letters"),
        ('{"rating": null}', Status.NOT_A_NUMBER, "null"),
        ('{"rating": true}', Status.NOT_A_NUMBER, "true, which Python counts as 1"),
        ('{"rating": "good"}', Status.NOT_A_NUMBER, "a level"),
        ('{"rating": ""}', Status.NOT_A_NUMBER, "an empty string"),
        ('{"rating": " 4"}', Status.NOT_A_NUMBER, "a blank within the quotes"),
        ('{"rating": "4e0"}', Status.NOT_A_NUMBER, "an exponent within the quotes"),
        ('{"rating": "NaN"}', Status.NOT_A_NUMBER, "not a number, which float() would take"),
        ('{"rating": "\uff14"}', Status.NOT_A_NUMBER, "a full-width digit, which float() would take"),
        ('{"rating": NaN}', Status.NOT_A_NUMBER, "a constant of Python's JSON"),
        ('{"rating": Infinity}', Status.NOT_A_NUMBER, "a constant of Python's JSON"),
        ('{"rating": -Infinity}', Status.NOT_A_NUMBER, "a constant of Python's JSON"),
        ('{"rating": 4, "sure": NaN}', Status.NOT_A_NUMBER, "such a constant under another key"),
        ('{"rating": 1e400}', Status.OUT_OF_RANGE, "no float can hold it"),
        ('{"rating": -1e400}', Status.OUT_OF_RANGE, "no float can hold it"),
        ('{"rating": ' + "9" * 5000 + "}", Status.OUT_OF_RANGE, "more digits than Python converts to an integer"),
        ('{"rating": 4, "sure": 1e400}', Status.OUT_OF_RANGE, "such a number under another key"),
        ('{"rating": 4, "sure": ' + "9" * 400 + "}", Status.OUT_OF_RANGE, "such an integer under another key"),
        ('{"rating": 0.99}', Status.OUT_OF_RANGE, "below the scale"),
        ('{"rating": "5.01"}', Status.OUT_OF_RANGE, "above the scale"),
    ],
)
def test_anything_but_a_flat_object_with_a_rating_on_the_scale_is_rejected(body, status, reason):
    parsed = json_answer(body)
    assert parsed.status is status and rejected(parsed), reason


@pytest.mark.parametrize(
    ("body", "fields", "reason"),
    [
        (
            '{"distortion_class": "blur", "severity": "slight"}',
            {"distortion_class": "blur", "severity": "slight"},
            "as asked",
        ),
        (
            '{"distortion_class": null, "severity": null}',
            {"distortion_class": None, "severity": None},
            "no distortion",
        ),
        ('{"distortion_class": "null"}', {"distortion_class": "null"}, "the word null is left to the reward"),
        ('{"severity": "slight"}', {"severity": "slight"}, "a key that is missing is left to the reward"),
        ("{}", {}, "no key at all"),
        ('{"rating": null}', {"rating": None}, "a rating may be absent"),
    ],
)
def test_without_a_scale_an_object_needs_no_rating(body, fields, reason):
    parsed = json_answer(body, scale=None)
    assert (parsed.status, parsed.score, parsed.fields) == (Status.OK, None, fields), reason


@pytest.mark.parametrize(
    ("rating", "status", "score"),
    [("123", Status.OK, 123.0), ('"high"', Status.NOT_A_NUMBER, None), ("1e400", Status.OUT_OF_RANGE, None)],
)
def test_without_a_scale_a_rating_that_is_there_must_still_be_a_number(rating, status, score):
    parsed = json_answer(f'{{"rating": {rating}}}', scale=None)
    assert (parsed.status, parsed.score) == (status, score)


# Any text


@unhurried
@given(hostile_text())
@example("<answer>\ud800</answer>")
@example("<answer>3\x00</answer>")
def test_no_text_raises_and_only_a_single_decimal_on_the_scale_is_ok(text):
    parsed = number(text)
    if parsed.ok:
        (written,) = re.findall(r"<answer>\s*([+-]?[0-9]*\.?[0-9]+)\s*</answer>", text)
        assert text.count("<answer>") == text.count("</answer>") == 1
        assert parsed.score == float(written) and SCALE.contains(parsed.score)
    else:
        assert rejected(parsed)


@unhurried
@given(hostile_text(), st.sampled_from([SCALE, None]))
def test_no_text_raises_where_json_is_asked_for_and_its_numbers_are_finite(text, scale):
    parsed = parse_response(text, "json", scale)
    if parsed.ok:
        numbers = [value for value in (parsed.score, *parsed.fields.values()) if isinstance(value, float)]
        assert all(math.isfinite(value) for value in numbers)
        assert scale is None or scale.contains(parsed.score)
    else:
        assert rejected(parsed)


def flat_objects() -> st.SearchStrategy[dict]:
    """Without a rating: their keys are shorter."""
    text = st.text(ANY_CHARACTER, max_size=5)
    values = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | text
    return st.dictionaries(text, values, max_size=5)


def written_as_json(fields: dict) -> str:
    # "<" in escapes: text of the object that looks like a tag would end the answer. Others raw: two halves of a
    # character, in escapes, would be read as one.
    return json.dumps(fields, ensure_ascii=False).replace("<", "\\u003c")


@unhurried
@given(flat_objects())
@example({"</answer>": "<think>"})
@example({"\ud83d\ude00": "\ud83d"})
def test_every_flat_object_is_read_back(fields):
    assert json_answer(written_as_json(fields), scale=None).fields == fields


@unhurried
@given(hostile_text())
@example(answer('{"rating": 4, "sure": 1e400}'))
def test_whatever_json_is_accepted_can_be_written_and_read_back(text):
    parsed = parse_response(text, "json")
    if parsed.ok:
        again = json_answer(written_as_json(parsed.fields), scale=None)
        assert (again.score, again.fields) == (parsed.score, parsed.fields)


@unhurried
@given(st.floats(1.0, 5.0), st.integers(0, 12))
def test_every_number_on_the_scale_is_read_back_in_both_formats(value, digits):
    written = f"{min(max(round(value, digits), 1.0), 5.0):.{digits}f}"
    read = [number(answer(written)), json_answer(f'{{"rating": {written}}}'), json_answer(f'{{"rating": "{written}"}}')]
    assert [parsed.score for parsed in read] == [float(written)] * 3


@unhurried
@given(st.floats(1.0, 5.0))
def test_every_float_on_the_scale_survives_json(value):
    assert json_answer(json.dumps({"rating": value})).score == value
