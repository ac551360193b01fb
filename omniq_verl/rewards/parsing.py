"""Model output -> a typed answer. Output is hostile text: this never raises, never guesses, takes linear time."""

import math
import re
from dataclasses import dataclass
from enum import Enum

from omniq_verl.tasks import Scale

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})")


class Status(str, Enum):
    """Why an answer was accepted or refused."""

    OK = "ok"
    NO_ANSWER = "no_answer"
    """There is no <answer> at all."""
    TRUNCATED = "truncated"
    """An <answer> begins and is never closed."""
    MANY_ANSWERS = "many_answers"
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_RANGE = "out_of_range"


@dataclass(frozen=True)
class Parsed:
    """An answer, or the reason there is none.

    ``score`` is on the task's scale; None unless ``status`` is OK. ``reasoning`` is the text between the
    first <think> and </think>, if the response begins with it.
    """

    status: Status
    score: float | None = None
    reasoning: str | None = None

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


def parse_response(text: str, scale: Scale) -> Parsed:
    """The score in ``<answer>number</answer>``: exactly one, a plain decimal number, within the scale."""
    reasoning = _reasoning(text)
    opened, closed = text.count("<answer>"), text.count("</answer>")
    if opened == 0:
        return Parsed(Status.NO_ANSWER, reasoning=reasoning)
    if opened > 1 or closed > 1:
        return Parsed(Status.MANY_ANSWERS, reasoning=reasoning)
    _, _, rest = text.partition("<answer>")
    body, end, _ = rest.partition("</answer>")
    if not end:
        return Parsed(Status.TRUNCATED, reasoning=reasoning)
    if not _NUMBER.fullmatch(body.strip()):
        return Parsed(Status.NOT_A_NUMBER, reasoning=reasoning)
    score = float(body)
    if not (math.isfinite(score) and scale.contains(score)):
        return Parsed(Status.OUT_OF_RANGE, reasoning=reasoning)
    return Parsed(Status.OK, score, reasoning)


def _reasoning(text: str) -> str | None:
    start = text.lstrip()
    if not start.startswith("<think>"):
        return None
    body, end, _ = start.removeprefix("<think>").partition("</think>")
    return body.strip() if end else None
