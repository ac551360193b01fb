"""A prompt, and what is wrong with its image -> a better prompt: the question to a language model, and its answer.

The answer is hostile text: reading it never raises, never guesses, and takes linear time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omniq_verl.generation.request import ERROR, Answer
from omniq_verl.tasks import harmless, text_fault

OK, NO_PROMPT, TRUNCATED, EMPTY, TOO_LONG = "ok", "no_prompt", "truncated", "empty", "too_long"
"""What became of an answer; also ``ERROR``, of a question the engine rejected."""
CONTROL_TOKEN = "control_token"
"""The new prompt holds what a model would not read as text."""
NO_FEEDBACK = "no_feedback"
"""Nothing was asked: the image has no reasoning that says what is wrong with it."""
_LETTERS = 10  # of a word, with room to spare: the words asked for stay within the letters allowed

REWRITE = """You write the prompts of a text-to-image model. Its image should show:
{wanted}

This prompt was drawn last:
{last}

A critic says of that image:
{feedback}

Write a better prompt for the same. Keep everything that the image should show and add nothing that contradicts it. Put
first, and more plainly, what the critic misses: which things, how many, in which colours, and where. Describe the image
alone, and mention neither the critic nor the last prompt. Use at most {words} words.

Answer with the new prompt between <prompt> and </prompt>, and nothing else."""


@dataclass(frozen=True)
class Rewrite:
    """What became of an answer."""

    status: str
    prompt: str | None = None
    """None unless ``status`` is "ok"."""


def ask_for_prompt(wanted: str, last: str, feedback: str, longest: int) -> list[dict[str, str]]:
    """The question, without an image.

    Args:
        wanted: the user's own text.
        last: what the image was drawn from.
        feedback: what a reasoning model says of it.
        longest: letters of the new prompt.
    """
    words = max(longest // _LETTERS, 1)
    asked = REWRITE.format(wanted=harmless(wanted), last=harmless(last), feedback=harmless(feedback), words=words)
    return [{"role": "user", "content": asked}]


def read_rewrite(answer: Answer, longest: int) -> Rewrite:
    """The new prompt: the last that stands between its tags, behind whatever was thought first.

    Args:
        answer: of a language model.
        longest: letters; a prompt with more is rejected, as cut anywhere it may say something else.
    """
    if answer.finish_reason == ERROR:
        return Rewrite(ERROR)
    _thought, end, text = answer.text.rpartition("</think>")
    if not end and text.lstrip().startswith("<think>"):
        return Rewrite(TRUNCATED)
    begin = text.rfind("<prompt>")
    if begin < 0:
        return Rewrite(NO_PROMPT)
    inside, closed, _ = text[begin:].removeprefix("<prompt>").partition("</prompt>")
    if not closed:
        return Rewrite(TRUNCATED)
    # What cannot be printed, half characters among it, fits neither into files nor into tokenizers.
    prompt = " ".join("".join(letter if letter.isprintable() else " " for letter in inside).split())
    if not prompt:
        return Rewrite(EMPTY)
    if len(prompt) > longest:
        return Rewrite(TOO_LONG)
    return Rewrite(CONTROL_TOKEN) if text_fault(prompt) else Rewrite(OK, prompt)


def feedback_of(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """What the reasoning model says of an image, one paragraph a task; empty where it says nothing.

    Args:
        scores: by task, as a store keeps a ``Score``.
    """
    said = {task: (one["reasoning"] or "").strip() for task, one in scores.items()}
    said = {task: text for task, text in said.items() if text}
    return next(iter(said.values())) if len(said) == 1 else "\n\n".join(f"{task}: {said[task]}" for task in said)
