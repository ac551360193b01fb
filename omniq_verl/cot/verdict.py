"""Is a reasoning path one to learn from? Each that is not is counted under its first fault."""

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
"""Characters at the end that are looked at for repetition."""
_COMPRESSIBLE = 5.0
"""English prose of that length shrinks by about two, with headings and lists by up to three."""
_SHORTEST_TAIL = 200  # shorter ones are too short to tell
_OTHER_LETTERS = 0.1
"""Share of letters outside of the Latin script. A name or a sign in the image may be written in another."""
_MARKUP = re.compile("<(?:think|/?answer)>")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")


class Fault(str, Enum):
    """Why a path is not learned from; the order is that in which they are looked for."""

    ERROR = "error"
    """The engine rejected the request."""
    EMPTY = "empty"
    REPEATS = "repeats"
    """It goes round in circles."""
    OTHER_LANGUAGE = "other_language"
    TRUNCATED = "truncated"
    """<think> or <answer> is never closed, or the answer ended at ``max_tokens``."""
    NO_ANSWER = "no_answer"
    MANY_ANSWERS = "many_answers"
    NO_REASONING = "no_reasoning"
    MARKUP = "markup"
    """The reasoning holds what training would take for an image, a tag or the end of a turn."""
    NOT_A_LEVEL = "not_a_level"
    """The answer is none of the five words."""
    COPIES_PLAN = "copies_plan"
    """The plan stands in the reasoning, word for word."""
    WRONG_LEVEL = "wrong_level"
    SAME_AGAIN = "same_again"
    """Right, but word for word another path of the same image."""


@dataclass(frozen=True)
class Verdict:
    """A path: what is wrong with it, or its reasoning."""

    fault: Fault | None = None
    reasoning: str = ""
    """Of a right path only: of millions, those that are learned are held in memory."""
    level: str = ""
    characters: int = 0
    """Of the reasoning."""
    tokens: int = 0
    """Of the whole answer; 0 where its engine does not say."""


def judge_text(answer: Mapping[str, Any]) -> Fault | None:
    """What is wrong with a text whatever it was to say.

    Args:
        answer: with ``text`` and ``finish_reason`` (``omniq_verl.generation.request.Answer`` as a mapping).
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
    """What is wrong with a plan. One that was cut by ``max_tokens`` lacks its last steps."""
    return judge_text(answer) or (Fault.TRUNCATED if answer["finish_reason"] == LENGTH else None)


def judge_path(answer: Mapping[str, Any], level: str, plan: str = "") -> Verdict:
    """What is wrong with a reasoning path.

    Args:
        answer: as for ``judge_text``.
        level: the right one.
        plan: by which it was reasoned.
    """
    if fault := judge_text(answer):
        return Verdict(fault)
    status, said = answer_of(answer["text"])
    if status is not Status.OK:
        return Verdict(Fault(status.value))
    if answer["finish_reason"] == LENGTH:
        return Verdict(Fault.TRUNCATED)
    reasoning, said = reasoning_of(answer["text"]), said.lower().rstrip(".")
    if not reasoning:
        return Verdict(Fault.NO_REASONING)
    if _MARKUP.search(reasoning) or text_fault(reasoning):
        return Verdict(Fault.MARKUP)
    if said not in LEVELS:
        return Verdict(Fault.NOT_A_LEVEL)
    if plan.strip() and _words(plan) in _words(reasoning):
        return Verdict(Fault.COPIES_PLAN)
    if said != level:
        return Verdict(Fault.WRONG_LEVEL, level=said, characters=len(reasoning), tokens=answer.get("tokens", 0))
    return Verdict(None, reasoning, said, len(reasoning), answer.get("tokens", 0))


def repeats(text: str) -> bool:
    """Does it end in one thing said over and over? Told by how well its end compresses, as Whisper does
    (Radford et al. 2022, sec. 4.5)."""
    tail = text[-_TAIL:].encode(errors="surrogatepass")
    return len(tail) >= _SHORTEST_TAIL and len(tail) > _COMPRESSIBLE * len(zlib.compress(tail))


def other_language(text: str) -> bool:
    """Is a tenth of its letters outside of the Latin script? Languages that share the script are not told apart."""
    letters = _LETTER.findall(text)
    return len(letters) - len(_LATIN.findall(text)) > _OTHER_LETTERS * len(letters)


def _words(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
