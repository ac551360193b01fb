"""Judge whether a reasoning path is worth training on; each rejected path is counted under its first fault."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from omniq_verl.generation.request import ERROR, LENGTH
from omniq_verl.rewards.parsing import Status, answer_of, reasoning_of
from omniq_verl.tasks import LEVELS, text_fault

_TAIL = 1000
"""Number of characters at the end that are checked for repetition."""
_COMPRESSIBLE = 5.0
"""Compression ratio above which a text counts as repetitive. English prose of this length has a ratio of about 2, or up
to 3 with headings and lists."""
_SHORTEST_TAIL = 200  # in bytes; shorter ends are too short to judge
_SHORTEST_PLAN = 5  # in words; a plan such as "1." or "Sharpness" would occur in any reasoning
_OTHER_LETTERS = 0.1
"""Maximum share of non-Latin letters. A name or a sign in the image may be in another script."""
_MARKUP = re.compile("<(?:think|/?answer)>")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")


class Fault(str, Enum):
    """Why a path is rejected, in the order of the checks."""

    ERROR = "error"
    """The engine rejected the request."""
    EMPTY = "empty"
    REPEATS = "repeats"
    """The text ends in repetition."""
    OTHER_LANGUAGE = "other_language"
    TRUNCATED = "truncated"
    """<think> or <answer> is never closed, or the answer ended at ``max_tokens``."""
    NO_ANSWER = "no_answer"
    MANY_ANSWERS = "many_answers"
    NO_REASONING = "no_reasoning"
    MARKUP = "markup"
    """The reasoning contains an image placeholder, a tag or a control token."""
    NOT_A_LEVEL = "not_a_level"
    """The answer is not one of the five words."""
    COPIES_PLAN = "copies_plan"
    """The reasoning contains the plan word for word."""
    WRONG_LEVEL = "wrong_level"
    SAME_AGAIN = "same_again"
    """Correct, but identical to another path of the same image."""


@dataclass(frozen=True)
class Verdict:
    """A judged path with its fault or its reasoning."""

    fault: Fault | None = None
    reasoning: str = ""
    """Only set for a correct path, to save memory with millions of paths."""
    level: str = ""
    characters: int = 0
    """Length of the reasoning."""
    tokens: int = 0
    """Tokens of the whole answer; 0 if the engine does not report them."""


def judge_text(answer: Mapping[str, Any]) -> Fault | None:
    """Check for faults that any text can have.

    Args:
        answer: mapping with ``text`` and ``finish_reason`` (see ``omniq_verl.generation.request.Answer``).
    """
    text = answer["text"]
    if answer["finish_reason"] == ERROR:
        return Fault.ERROR
    if not text.strip():
        return Fault.EMPTY
    if repeats(text):
        return Fault.REPEATS
    if other_language(text):
        return Fault.OTHER_LANGUAGE
    return None


def judge_plan(answer: Mapping[str, Any]) -> Fault | None:
    """Check a plan. A plan that was truncated at ``max_tokens`` lacks its last steps."""
    return judge_text(answer) or (Fault.TRUNCATED if answer["finish_reason"] == LENGTH else None)


def judge_path(answer: Mapping[str, Any], level: str, plan: str = "") -> Verdict:
    """Check a reasoning path.

    Args:
        answer: see ``judge_text``.
        level: the correct level.
        plan: the plan it followed.
    """
    if fault := judge_text(answer):
        return Verdict(fault)
    status, given = answer_of(answer["text"])
    if status is not Status.OK:
        return Verdict(Fault(status.value))
    if answer["finish_reason"] == LENGTH:
        return Verdict(Fault.TRUNCATED)
    reasoning, given = reasoning_of(answer["text"]), given.lower().rstrip(".")
    if not reasoning:
        return Verdict(Fault.NO_REASONING)
    if _MARKUP.search(reasoning) or text_fault(reasoning):
        return Verdict(Fault.MARKUP)
    if given not in LEVELS:
        return Verdict(Fault.NOT_A_LEVEL)
    if _copies(plan, reasoning):
        return Verdict(Fault.COPIES_PLAN)
    if given != level:
        return Verdict(Fault.WRONG_LEVEL, level=given, characters=len(reasoning), tokens=answer.get("tokens", 0))
    return Verdict(None, reasoning, given, len(reasoning), answer.get("tokens", 0))


def repeats(text: str) -> bool:
    """True if the text ends in repetition, measured by how well its end compresses, as in Whisper
    (Radford et al. 2022, sec. 4.5)."""
    tail = text[-_TAIL:].encode(errors="surrogatepass")
    return len(tail) >= _SHORTEST_TAIL and len(tail) > _COMPRESSIBLE * len(zlib.compress(tail))


def other_language(text: str) -> bool:
    """True if over a tenth of the letters are not Latin. Languages that share a script are not distinguished."""
    letters = _LETTER.findall(text)
    return len(letters) - len(_LATIN.findall(text)) > _OTHER_LETTERS * len(letters)


def _copies(plan: str, reasoning: str) -> bool:
    words = _words(plan)
    return len(words.split()) >= _SHORTEST_PLAN and words in _words(reasoning)


def _words(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
