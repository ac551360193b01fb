"""Parse model output into a typed answer. Output is untrusted: parsing never raises or guesses, and is linear-time."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from omniq_verl.tasks import CHOICES, Scale

ANSWER_FORMATS = ("number", "json", "choice")
SCORE_KEY = "rating"
"""Key of the score in a JSON answer (Q-Insight, table 1)."""

_LONGEST_OBJECT = 10_000  # characters; parsing a million would take 0.1 s
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})")


class Status(str, Enum):
    """Why an answer was accepted or rejected."""

    OK = "ok"
    NO_ANSWER = "no_answer"
    """There is no <answer>, or only inside the reasoning."""
    TRUNCATED = "truncated"
    """A <think> or an <answer> is never closed."""
    MANY_ANSWERS = "many_answers"
    """More than one answer, or a repeated JSON key."""
    NOT_JSON = "not_json"
    """Not one flat JSON object."""
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_RANGE = "out_of_range"
    NOT_A_CHOICE = "not_a_choice"
    """The answer names neither of the two images, or both."""


@dataclass(frozen=True)
class Parsed:
    """A parsed answer, or the reason why there is none.

    ``score`` is on the task's scale; None unless ``status`` is OK and the answer has a score. ``reasoning`` is the text
    between the first <think> and </think>, if the response begins with it. ``fields`` is the object of a JSON answer,
    ``choice`` the chosen image of two ("first" or "second"); both are None unless ``status`` is OK.
    """

    status: Status
    score: float | None = None
    reasoning: str | None = None
    fields: Mapping[str, Any] | None = None
    choice: str | None = None

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


class _Rejected(Exception):
    def __init__(self, status: Status):
        self.status = status


def parse_response(text: str, answer_format: str = "number", scale: Scale | None = None) -> Parsed:
    """Parse a response's single answer: the text between its only <answer> and </answer>.

    Args:
        text: the response.
        answer_format: ``"number"``, a plain decimal number; ``"json"``, one flat object (``rating`` is its score);
            ``"choice"``, one of ``CHOICES`` in any case, optionally with a full stop or quotation marks.
        scale: bounds of the score, inclusive. If given, a JSON answer must have a score; otherwise the score is
            optional.

    Raises:
        ValueError: ``answer_format`` is unknown. The text never causes an error.
    """
    if answer_format not in ANSWER_FORMATS:
        raise ValueError(f"answer_format must be one of {ANSWER_FORMATS}, got {answer_format!r}")
    reasoning = reasoning_of(text)
    try:
        body = _answer(text)
        if answer_format == "choice":
            return Parsed(Status.OK, reasoning=reasoning, choice=_choice(body))
        fields = _flat_object(body) if answer_format == "json" else None
        score = _score(body if fields is None else fields.get(SCORE_KEY), scale)
    except _Rejected as rejected:
        return Parsed(rejected.status, reasoning=reasoning)
    return Parsed(Status.OK, score, reasoning, fields)


def answer_of(text: str) -> tuple[Status, str]:
    """Return the status of a response and the text of its answer, for answers that are neither number nor object."""
    try:
        return Status.OK, _answer(text)
    except _Rejected as rejected:
        return rejected.status, ""


def reasoning_of(text: str) -> str | None:
    """Return the text between the first <think> and </think>, if the response begins with it."""
    start = text.lstrip()
    if not start.startswith("<think>"):
        return None
    body, end, _ = start.removeprefix("<think>").partition("</think>")
    return body.strip() if end else None


def _answer(text: str) -> str:
    opened, closed = text.count("<answer>"), text.count("</answer>")
    before, _, rest = text.partition("<answer>")
    if opened == 0:
        raise _Rejected(Status.TRUNCATED if _thinking(text) else Status.NO_ANSWER)
    if opened > 1 or closed > 1:
        raise _Rejected(Status.MANY_ANSWERS)
    body, end, _ = rest.partition("</answer>")
    if not end:
        raise _Rejected(Status.TRUNCATED)
    if _thinking(before):
        raise _Rejected(Status.NO_ANSWER)
    return body.strip()


def _thinking(text: str) -> bool:
    """True if the text ends inside a <think> part."""
    return text.rfind("<think>") > text.rfind("</think>")


def _choice(body: str) -> str:
    choice = CHOICES.get(body.strip(" .\"'\n").lower())
    if choice is None:
        raise _Rejected(Status.NOT_A_CHOICE)
    return choice


def _score(answer: object, scale: Scale | None) -> float | None:
    if answer is None and scale is None:
        return None
    if isinstance(answer, str) and _NUMBER.fullmatch(answer):
        answer = float(answer)
    if not isinstance(answer, float):
        raise _Rejected(Status.NOT_A_NUMBER)
    if scale is not None and not scale.contains(answer):
        raise _Rejected(Status.OUT_OF_RANGE)
    return answer


def _flat_object(body: str) -> dict[str, Any]:
    if not body.startswith("{") or len(body) > _LONGEST_OBJECT:
        raise _Rejected(Status.NOT_JSON)
    try:
        # Parse integers as floats: Python's integers are unbounded and take more than linear time to parse.
        fields = json.loads(
            body,
            object_pairs_hook=_each_key_once,
            parse_float=_finite,
            parse_int=_finite,
            parse_constant=_reject_constant,
            strict=False,
        )
    except (ValueError, RecursionError):
        raise _Rejected(Status.NOT_JSON) from None
    if any(isinstance(value, (dict, list)) for value in fields.values()):
        raise _Rejected(Status.NOT_JSON)
    return fields


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _Rejected(Status.MANY_ANSWERS)
    return fields


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Rejected(Status.OUT_OF_RANGE)
    return number


def _reject_constant(_name: str) -> None:
    raise _Rejected(Status.NOT_A_NUMBER)  # NaN and Infinity are not valid JSON
