"""The parser against many hostile texts, and against very long ones."""

import math
import random
from collections.abc import Iterator

import pytest
from response_builders import SCALE, TAGS, seconds

from omniq_verl.rewards import parse_response
from omniq_verl.rewards.parsing import ANSWER_FORMATS

MEGABYTE = 1_000_000
FRAMES = (
    ("", ""),
    ("<answer>", "</answer>"),
    ("<think>x</think><answer>", "</answer>"),
    ('<answer>{"rating":', "}</answer>"),
)
NUMBERS = (
    "3",
    "4.5",
    "1",
    "5.0",
    "0.9",
    "-3",
    ".5",
    "3.",
    "1e0",
    "1e400",
    "-0",
    "007",
    "9" * 12,
    "9" * 400,
    "0x3",
    "1_0",
)
WORDS = ("NaN", "Infinity", "-Infinity", "null", "true", "inf", "nan", "None", "good", "blur", "JPEG")
CHOICES = ("Image A", "image b", "IMAGE B.", '"Image A"')
PIECES = ("{", "}", "[", "]", '"', "'", ":", ",", "\\", "\\u0033", "\\ud800", "```json\n", "[" * 50, '{"a":' * 50)
KEYS = ('"rating":', '{"rating":', '{"rating": 3}', '"rating": "4.5"', '"severity": null', '"distortion_class":')
# What looks like nothing or like something else: controls, NUL, zero width, right to left, full width, half characters.
CHARACTERS = (" ", "\n", "\t", "\x00", "\x1f", "\x85", "\u00a0", "\u200b", "\u200f", "\u202e", "\u2028", "\ufeff")
LOOKALIKES = ("\uff13", "\u0663", "\u00b3", "\u22123", "\uff1canswer\uff1e", "\ud800", "\udc00", "\ud83d", "\U0001f600")
ALMOST_TAGS = ("<", ">", "</", "<answer", "answer>", "<Answer>", "</answer >", "<think", "<|im_end|>")
FRAGMENTS = (*TAGS, *NUMBERS, *WORDS, *CHOICES, *PIECES, *KEYS, *CHARACTERS, *LOOKALIKES, *ALMOST_TAGS)


def hostile_texts(count: int) -> Iterator[str]:
    """Up to seven fragments each, three in four between the tags of an answer: few others have them in order."""
    generator = random.Random(0)
    for number in range(count):
        before, after = FRAMES[number % len(FRAMES)]
        yield before + "".join(generator.choices(FRAGMENTS, k=number % 7 + 1)) + after


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_of_many_hostile_texts_none_raises_and_no_score_off_the_scale_is_accepted(count):
    low, high = SCALE.low, SCALE.high
    accepted = dict.fromkeys(ANSWER_FORMATS, 0)
    for text in hostile_texts(count):
        for answer_format in ANSWER_FORMATS:
            parsed = parse_response(text, answer_format, SCALE)
            accepted[answer_format] += parsed.ok
            score, read = parsed.score, parsed.ok
            assert (parsed.choice in ("first", "second")) == (read and answer_format == "choice"), repr(text)
            scored = read and answer_format != "choice"
            assert (math.isfinite(score) and low <= score <= high) if scored else score is None, repr(text)
    # Texts of which none comes through would say nothing about scores.
    assert min(accepted.values()) > count / 500, accepted


@pytest.mark.parametrize("answer_format", ANSWER_FORMATS)
@pytest.mark.parametrize(
    ("before", "unit", "after"),
    [
        ("", "a", ""),
        ("", "<", ""),
        *[("", tag, "") for tag in TAGS],
        ("", "<answer></answer>", ""),
        ("", "<think></think>", ""),
        ("", "<think>", "<answer>4</answer>"),
        ("", " ", ""),
        ("<answer>", "7", "</answer>"),
        ("<answer>", " ", "4</answer>"),
        ("<answer>4.", "0", "x</answer>"),
        ("<answer>", "{", "</answer>"),
        ("<answer>", '{"a":', "</answer>"),
        ('<answer>{"rating":', "[", "}</answer>"),
        ('<answer>{"rating":', "7", "}</answer>"),
        ('<answer>{"rating":"', "7", '"}</answer>'),
        ('<answer>{"rating":0.', "0", "1}</answer>"),
        ('<answer>{"rating":1e', "9", "}</answer>"),
        ("<answer>{", '"', "}</answer>"),
        ('<answer>{"a":"', "\\", '"}</answer>'),
        ('<answer>{"a":"', "\\u0041", '"}</answer>'),
        ("<answer>{", "\n", "}</answer>"),
    ],
)
def test_a_megabyte_of_anything_is_parsed_within_50_milliseconds(before, unit, after, answer_format):
    text = before + unit * (MEGABYTE // len(unit)) + after
    assert seconds(lambda text: parse_response(text, answer_format, SCALE), text) < 0.05


@pytest.mark.parametrize("pair", ['"k{}":1', '"k":{}', '"k{}":"x"'])
def test_an_object_of_ten_times_the_keys_takes_about_ten_times_the_time(pair):
    def parse(count: int) -> float:
        body = ",".join(pair.format(number) for number in range(count))
        return seconds(lambda text: parse_response(text, "json"), f"<answer>{{{body}}}</answer>")

    # Ten is linear and a hundred quadratic; a millisecond on top for what the clock and other programs do.
    assert parse(50_000) < 30 * parse(5_000) + 1e-3
