"""Definition of a task: wording, answer format, scale and levels."""

import hashlib
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omniq_verl.tasks.outside_text import IMAGE_PLACEHOLDER, check_text

LEVELS = ("bad", "poor", "fair", "good", "excellent")
"""Five quality levels, worst first: the words of ITU-T P.910's absolute category rating."""
DISTORTIONS = ("noise", "compression", "blur", "darken")
"""Distortion classes; "null" means none of them (Q-Insight sec. 3.4; its "JPEG" is "compression" here)."""
SEVERITIES = ("slight", "moderate", "obvious", "serious", "catastrophic")
"""Severities of a distortion, mildest first (Q-Insight sec. 3.4)."""
CHOICES = {"image a": "first", "image b": "second"}
"""Answers to a comparison in lower case, and the label that each stands for (the image's position in the question)."""


def chat_turns(messages: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Convert a row's messages to the form chat templates expect: each placeholder becomes an image part."""
    return [{"role": turn["role"], "content": _parts(turn["content"])} for turn in messages]


def _parts(content: str) -> list[dict[str, str]]:
    segments = [segment for segment in re.split(f"({IMAGE_PLACEHOLDER})", content) if segment]
    return [
        {"type": "image"} if segment == IMAGE_PLACEHOLDER else {"type": "text", "text": segment} for segment in segments
    ]


@dataclass(frozen=True)
class Scale:
    """Inclusive bounds of a task's scores."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a scale needs low < high, got [{self.low}, {self.high}]")

    def contains(self, score: float) -> bool:
        return self.low <= score <= self.high

    def level(self, score: float) -> str:
        """Return the level word of a score. Levels are equal parts of the scale; a boundary belongs to the upper level.

        Raises:
            ValueError: the score is outside the scale.
        """
        if not self.contains(score):
            raise ValueError(f"score {score} is outside [{self.low}, {self.high}]")
        return LEVELS[bisect_right(self._boundaries, score)]

    @cached_property
    def _boundaries(self) -> list[float]:
        """Return the lower boundary of each level except the worst."""
        return [self.low + (self.high - self.low) * step / len(LEVELS) for step in range(1, len(LEVELS))]


@dataclass(frozen=True)
class Task:
    """One kind of question, about one image, or about several images whose positions are marked in the question."""

    name: str
    questions: tuple[str, ...]
    """Paraphrases of the same question; ``{low}``, ``{high}`` and ``{text}`` are filled in."""
    scale: Scale | None
    """None: the answer is not a score."""
    answer_format: str = "number"
    """``number``, ``json``, or ``choice`` (one of ``CHOICES``)."""
    answer_rule: str = ""
    """Text that says how to answer, at the end of every question; ``{low}`` and ``{high}`` are filled in."""
    system: str = ""
    """System turn before the question."""
    like: str = ""
    """Name of the task of which this is another wording, with the same labels."""
    heads: tuple[str, ...] = ()
    """Names of the numbers in a JSON answer, all on ``scale``; empty: one number, or none."""
    reasoning: bool = True
    """Whether answers begin with reasoning in <think></think>. The format reward requires it; the parser does not."""

    def __post_init__(self) -> None:
        if isinstance(self.questions, list):
            object.__setattr__(self, "questions", tuple(self.questions))
        if isinstance(self.heads, list):
            object.__setattr__(self, "heads", tuple(self.heads))
        if fault := _task_fault(self):
            raise ValueError(f"the task {self.name!r}: {fault}")

    @property
    def score_scale(self) -> Scale:
        """Return the scale, for code that handles only scores.

        Raises:
            ValueError: the answer is not a score.
        """
        if self.scale is None:
            raise ValueError(f"the task {self.name} has no scale. Fix: use a task whose answer is a score")
        return self.scale

    @property
    def asks_for(self) -> str:
        """Kind of the task's labels: ``score``; ``scores``, one for each head; ``choice``, which of two images is
        better; ``degradation``."""
        if self.heads:
            return "scores"
        if self.scale is not None:
            return "score"
        return "choice" if self.answer_format == "choice" else "degradation"

    @property
    def images(self) -> int:
        """Number of images in a question."""
        return self.questions[0].count(IMAGE_PLACEHOLDER) or 1

    @property
    def needs_text(self) -> bool:
        """True if the question contains the text an image was generated from."""
        return "{text}" in self.questions[0]

    def question(self, row_id: str | None, text: str | None = None) -> str:
        """Return the paraphrase for a row, chosen by a hash of its id, so every machine and run chooses the same one.

        If ``row_id`` is None, as for images that are not rows of a data set, it is the first paraphrase.

        Raises:
            ValueError: the task needs a text, but none is given.
            ForbiddenText: the text must not become part of a question.
        """
        return self._filled(self._wording(row_id), text)

    def _wording(self, row_id: str | None) -> str:
        return self.questions[0 if row_id is None else self._paraphrase(row_id)]

    def _filled(self, wording: str, text: str | None) -> str:
        if text is None and self.needs_text:
            raise ValueError(f"the task {self.name} needs the text an image was made from, but none was given")
        wording = self._with_bounds(wording)
        if text is None or not self.needs_text:
            return wording
        check_text(text, "the prompt")
        return wording.replace("{text}", text)  # last, because a text may contain the other placeholders

    def _with_bounds(self, wording: str) -> str:
        if self.scale is None:
            return wording
        return wording.replace("{low}", f"{self.scale.low:g}").replace("{high}", f"{self.scale.high:g}")

    def _paraphrase(self, row_id: str) -> int:
        digest = hashlib.blake2b(f"{self.name}/{row_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % len(self.questions)

    def bare_question(self, row_id: str, text: str | None = None) -> str:
        """Return the question without its answer rule, for callers that ask for another kind of answer."""
        return self._filled(self._wording(row_id).removesuffix(self.answer_rule), text)

    def without_rule(self, question: str) -> str:
        """Remove the answer rule from a question that ``question`` returned."""
        return question.removesuffix(self._with_bounds(self.answer_rule))

    def label_fault(self, truth: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a label; None if nothing is wrong.

        Labels are ``{"score": s}``, ``{"scores": {head: s}}``, ``{"choice": c}`` or
        ``{"distortion_class": c, "severity": s}``, depending on ``asks_for``.
        """
        if self.heads:
            return _heads_fault(truth.get("scores"), self)
        if self.asks_for == "choice":
            return _choice_fault(truth.get("choice"))
        if self.scale is None:
            return _degradation_fault(truth.get("distortion_class", ""), truth.get("severity", ""))
        return _score_fault(truth.get("score"), "score", self)

    def messages(self, row_id: str | None, text: str | None = None) -> list[dict[str, str]]:
        """Return the chat prompt of a row: the task's system turn, if any, and the question after its image.

        If a question is about several images, their placeholders are inside it.

        Args:
            row_id: selects the wording; None: the first.
            text: the text the image was generated from; required if ``needs_text``.
        """
        before = "" if IMAGE_PLACEHOLDER in self.questions[0] else IMAGE_PLACEHOLDER
        turn = {"role": "user", "content": before + self.question(row_id, text)}
        return [{"role": "system", "content": self.system}, turn] if self.system else [turn]


def _task_fault(task: Task) -> str | None:
    questions, form = task.questions, task.answer_format
    if not isinstance(questions, tuple) or not questions or not all(isinstance(one, str) and one for one in questions):
        return f"questions must be a tuple of at least one text, got {questions!r:.80}"
    if form not in ("number", "json", "choice"):
        return f"answer_format must be number, json or choice, got {form!r}"
    if (form == "number" and task.scale is None) or (form == "choice" and task.scale is not None):
        return f"an answer of the format {form} {'needs a scale' if task.scale is None else 'has no scale'}"
    for mark in (IMAGE_PLACEHOLDER, "{text}"):
        if len({one.count(mark) for one in questions}) > 1:
            return f"all questions must contain {mark} the same number of times"
    if not all(one.endswith(task.answer_rule) for one in questions):
        return "every question must end with answer_rule"
    if IMAGE_PLACEHOLDER in task.answer_rule or "{text}" in task.answer_rule:
        return f"answer_rule must not contain {IMAGE_PLACEHOLDER} or {{text}}"
    return _heads_problem(task)


def _heads_problem(task: Task) -> str | None:
    heads = task.heads
    if not isinstance(heads, tuple) or not all(isinstance(one, str) and one.isidentifier() for one in heads):
        return f"heads must be a tuple of names made of letters, digits and _, got {heads!r:.80}"
    if len(set(heads)) < len(heads):
        return f"heads has a name twice: {', '.join(heads)}"
    if heads and (task.answer_format != "json" or task.scale is None):
        return "heads need answer_format='json' and a scale"
    return None


def _heads_fault(scores: object, task: Task) -> str | None:
    if not isinstance(scores, Mapping) or not scores:
        return f"there is no object under 'scores' ({scores!r:.80})"
    if unknown := set(map(str, scores)) - set(task.heads):
        return f"'scores' has {', '.join(sorted(unknown))}; the task {task.name} asks for {', '.join(task.heads)}"
    return next((fault for name, one in scores.items() if (fault := _score_fault(one, name, task))), None)


def _score_fault(score: object, name: str, task: Task) -> str | None:
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not abs(score) <= sys.float_info.max:
        return f"there is no number under {name!r} ({score!r})"
    scale = task.score_scale
    if not scale.contains(score):
        return f"the label {score:g} is outside the scale [{scale.low:g}, {scale.high:g}] of the task {task.name}"
    return None


def _choice_fault(choice: object) -> str | None:
    known = [*CHOICES.values()]
    return None if choice in known else f"choice is {choice!r}; known: {', '.join(known)}"


def _degradation_fault(distortion: object, severity: object) -> str | None:
    if distortion is None and severity is None:
        return None
    if distortion is None:
        return f"severity is {severity!r} though there is no distortion; it must be null too"
    if distortion not in DISTORTIONS:
        return f"distortion_class is {distortion!r}; known: {', '.join(DISTORTIONS)}, null"
    if severity not in SEVERITIES:
        return f"severity is {severity!r}; known: {', '.join(SEVERITIES)}, and null for no distortion"
    return None
