"""Answers of other people's models, read as their authors' code reads them. Never raises, takes linear time.

Training's parser accepts one form; a released model is not to blame for writing the forms it was rewarded for.
"""

import json
import math
import re

from omniq_verl.rewards.parsing import Parsed, Status, reasoning_of
from omniq_verl.tasks import Scale, Task

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,30})?")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
_RATING = re.compile(
    # Not the beginning of a longer number: "1e999", "4,5" with a decimal comma, more digits than are read.
    r"""["']?rating["']?\s{0,20}:\s{0,20}["']?([0-9]{1,12}(?:\.[0-9]{1,30})?)(?![0-9]|[.,][0-9]|[eE][-+]?[0-9])""",
    re.IGNORECASE,
)
_LONGEST = 20_000
"""Characters that are looked at, from the end: an answer stands there."""


def last_answer(text: str) -> str | None:
    """What stands in the last <answer>, or behind the reasoning where there is no <answer>; None: only reasoning."""
    text = text[-_LONGEST:]
    if found := _ANSWER.findall(text):
        return found[-1].strip()
    if "<answer>" in text:
        return text.rsplit("<answer>", 1)[1].strip()
    behind = text.rsplit("</think>", 1)[-1]
    return None if "<think>" in behind else behind.strip()


def read_number(text: str, task: Task) -> Parsed:
    """The first number of the last answer, as VisualQuality-R1's code reads it.

    That code also takes the first number of a text that ends within its reasoning; such a text is rejected here.
    """
    answer = last_answer(text)
    if answer is None:
        return Parsed(Status.TRUNCATED, reasoning=reasoning_of(text))
    found = _NUMBER.search(answer)
    return _parsed(text, found[0] if found else None, task.scale)


def read_rating(text: str, task: Task) -> Parsed:
    """The "rating" of an answer in JSON, in a code fence or not, with other keys, quoted or not."""
    answer = last_answer(text)
    if answer is None:
        return Parsed(Status.TRUNCATED, reasoning=reasoning_of(text))
    fenced = _FENCE.search(answer)
    body = fenced[1].strip() if fenced else answer
    found = _rating_of(body)
    if found is None and (match := _RATING.search(body)):
        found = match[1]
    return _parsed(text, found, task.scale)


def _rating_of(body: str) -> str | None:
    try:
        fields = json.loads(body, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    rating = fields.get("rating") if isinstance(fields, dict) else None
    return rating.strip() if isinstance(rating, str) and _NUMBER.fullmatch(rating.strip()) else None


def line_reader(label: str) -> "re.Pattern[str]":
    """A pattern for ``<label> (1-5): X`` and ``<label>: X``."""
    return re.compile(
        rf"{re.escape(label)}\s{{0,5}}(?:\(1-5\))?\s{{0,5}}:\s{{0,20}}\**\s{{0,5}}([0-9]{{1,12}}(?:\.[0-9]{{1,30}})?)",
        re.IGNORECASE,
    )


def read_line(text: str, task: Task, label: str) -> Parsed:
    """The number behind the last ``<label> (1-5):``, as UnifiedReward's examples read it."""
    found = line_reader(label).findall(text[-_LONGEST:])
    return _parsed(text, found[-1] if found else None, task.scale, Status.NO_ANSWER)


def _parsed(text: str, number: str | None, scale: Scale | None, otherwise: Status = Status.NOT_A_NUMBER) -> Parsed:
    reasoning = reasoning_of(text)
    if number is None:
        return Parsed(otherwise, reasoning=reasoning)
    score = float(number)
    if not math.isfinite(score) or (scale is not None and not scale.contains(score)):
        return Parsed(Status.OUT_OF_RANGE, reasoning=reasoning)
    return Parsed(Status.OK, score, reasoning)
