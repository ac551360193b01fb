"""Parse answers of other people's models like their authors' code. Parsing never raises and takes linear time.

Training's parser accepts only one form, but a released model should not be punished for the forms it was rewarded for.
A number that is clearly not the score is rejected even if the authors' code accepts it: a part of another number (3 in
"3,5" or "3-4"), a share of another scale ("4/10", "4 %"), one of several numbers, or a number that was cut off at
``max_tokens``.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from omniq_verl.generation.request import LENGTH
from omniq_verl.rewards.parsing import Parsed, Status, reasoning_of
from omniq_verl.tasks import Scale, Task

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,30})?")
_RATING = re.compile(r"""(?:["']rating["']|\brating(?!["']))\s{0,20}:\s{0,20}["']?(?=[0-9])""", re.IGNORECASE)
_LONGEST = 20_000
"""Only this many characters from the end are searched, because the answer is there."""

_MINUS = ("-", "\u2212", "\u2013")
_MARKUP = r"""[\s*_`"')\]}$(]{0,8}"""
"""What may stand between a number and the word that belongs to it."""
_MORE_DIGITS = re.compile(r"[.,][0-9]|[eE][-+]?[0-9]")
_RANGE_OR_SHARE = re.compile(
    rf"{_MARKUP}(?:(?:[-\u2013\u2014\u2212~\u301c]|(?:to|or|and)\b){_MARKUP}[0-9]|[%\uff05])", re.IGNORECASE
)
_OUT_OF = re.compile(rf"{_MARKUP}(?:/|(?:out )?of\b){_MARKUP}([0-9]{{1,12}}(?:\.[0-9]{{1,30}})?)", re.IGNORECASE)
_OF_NUMBERS = "0123456789.,-\u2212"
"""Characters that may be the beginning of a number."""


def last_answer(text: str) -> str | None:
    """Return the content of the last <answer>, or the text after the reasoning if there is no <answer>.

    Returns None if the text ends within the reasoning, or within the number of an <answer> that is never closed. An
    <answer> before </think> counts only if nothing follows </think>, because models quote the tag while they reason.
    """
    text = text[-_LONGEST:]
    behind = text.rpartition("</think>")[2]
    found = _last_closed(behind if behind.strip() else text)
    if found is not None:
        return found.strip()
    if "<answer>" in behind:
        return behind.rpartition("<answer>")[2].rstrip(_OF_NUMBERS).strip() or None
    return None if "<think>" in behind else behind.strip()


def _last_closed(text: str) -> str | None:
    start = text.rfind("<answer>", 0, max(text.rfind("</answer>"), 0))
    return None if start < 0 else text[start:].removeprefix("<answer>").partition("</answer>")[0]


def without_cut_end(text: str, finish_reason: str) -> str:
    """Remove a number at the end of a text that was cut off at ``max_tokens``: 4 may be the beginning of 4.5."""
    return text.rstrip(_OF_NUMBERS) if finish_reason == LENGTH else text


def read_number(text: str, task: Task) -> Parsed:
    """Parse the first number of the last answer, like VisualQuality-R1's code.

    That code also accepts the first number of a text that ends within its reasoning. Such a text is rejected here.
    """
    answer = last_answer(text)
    if answer is None:
        return Parsed(Status.TRUNCATED, reasoning=reasoning_of(text))
    found = _NUMBER.search(answer)
    if not found or not _stands_alone(answer, *found.span(), task.scale):
        return _parsed(text, None, task.scale)
    if _others(answer[found.end() :], float(found[0]), task.scale):
        return Parsed(Status.MANY_ANSWERS, reasoning=reasoning_of(text))
    return _parsed(text, found[0], task.scale)


def read_rating(text: str, task: Task) -> Parsed:
    """Parse the "rating" of a JSON answer, with or without a code fence, quotes around the number and other keys."""
    answer = last_answer(text)
    if answer is None:
        return Parsed(Status.TRUNCATED, reasoning=reasoning_of(text))
    body = _unfenced(answer)
    found = _rating_of(body)
    if found is not None:
        return _parsed(text, found, task.scale)
    ratings = [_number_at(body, key.end(), task.scale) for key in _RATING.finditer(body)]
    if len({number and float(number) for number in ratings}) > 1:
        return Parsed(Status.MANY_ANSWERS, reasoning=reasoning_of(text))
    return _parsed(text, ratings[0] if ratings else None, task.scale)


def _unfenced(answer: str) -> str:
    """Return the content of the first code fence, or the whole answer if it has none."""
    parts = answer.split("```", 2)
    if len(parts) < 3:
        return answer
    return (parts[1][4:] if parts[1][:4].lower() == "json" else parts[1]).strip()


def _rating_of(body: str) -> str | None:
    """Return the rating in a JSON object; None if the text is not such an object or the rating is no plain number."""
    try:
        fields = json.loads(body, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        return None
    rating = fields.get("rating") if isinstance(fields, dict) else None
    return rating.strip() if isinstance(rating, str) and _NUMBER.fullmatch(rating.strip()) else None


def _each_key_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a repeated key")  # its values are compared by the caller
    return found


def line_reader(label: str) -> "re.Pattern[str]":
    """Return a pattern for the text before the number in ``<label> (1-5): X`` and ``<label>: X``."""
    return re.compile(
        rf"{re.escape(label)}[\s*]{{0,8}}(?:\(1-5\)[\s*]{{0,8}})?[:\uff1a][\s*]{{0,24}}(?=[0-9])", re.IGNORECASE
    )


def read_line(text: str, task: Task, label: str) -> Parsed:
    """Parse the number after the last ``<label> (1-5):``, like UnifiedReward's examples."""
    text = text[-_LONGEST:]
    ends = [found.end() for found in line_reader(label).finditer(text)]
    if not ends:
        return _parsed(text, None, task.scale, Status.NO_ANSWER)
    return _parsed(text, _number_at(text, ends[-1], task.scale), task.scale)


def _number_at(text: str, start: int, scale: Scale | None) -> str | None:
    """Return the number that begins at ``start``, if it stands alone."""
    found = _NUMBER.match(text, start)
    return found[0] if found and _stands_alone(text, *found.span(), scale) else None


def _stands_alone(text: str, start: int, end: int, scale: Scale | None) -> bool:
    """Return whether the digits are a complete number on the scale: no part of a number, a range or another scale."""
    before, behind = text[max(0, start - 2) : start], text[end : end + 60]
    signed = before[-1:] in _MINUS and not before[:-1].isalnum()
    if signed or before[-1:] == "." or before[-1:].isnumeric() or behind[:1].isnumeric():
        return False
    if _MORE_DIGITS.match(behind) or _RANGE_OR_SHARE.match(behind):
        return False
    whole = _OUT_OF.match(behind)
    return whole is None or (scale is not None and float(whole[1]) == scale.high)


def _others(text: str, number: float, scale: Scale | None) -> bool:
    """Return whether a text has numbers besides this one and the ends of the scale, which answers often repeat."""
    known = {number, *((scale.low, scale.high) if scale else ())}
    return any(float(found) not in known for found in _NUMBER.findall(text))


def _parsed(text: str, number: str | None, scale: Scale | None, otherwise: Status = Status.NOT_A_NUMBER) -> Parsed:
    reasoning = reasoning_of(text)
    if number is None:
        return Parsed(otherwise, reasoning=reasoning)
    score = float(number)
    if not math.isfinite(score) or (scale is not None and not scale.contains(score)):
        return Parsed(Status.OUT_OF_RANGE, reasoning=reasoning)
    return Parsed(Status.OK, score, reasoning)
