"""Ask a language model for a better prompt, given criticism of an image, and parse its answer.

The answer is untrusted text: parsing never raises, never guesses, and takes linear time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omniq_verl.generation.request import ERROR, Answer
from omniq_verl.tasks import harmless, text_fault

OK, NO_PROMPT, TRUNCATED, EMPTY, TOO_LONG = "ok", "no_prompt", "truncated", "empty", "too_long"
"""Status of an answer; also ``ERROR`` if the engine rejected the question."""
CONTROL_TOKEN = "control_token"
"""The new prompt contains a control token of a model."""
NO_FEEDBACK = "no_feedback"
"""No question was asked, because the image has no reasoning that criticises it."""
_LETTERS = 10  # generous characters per word, so that the word limit keeps within the character limit

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
    """A parsed answer."""

    status: str
    prompt: str | None = None
    """None unless ``status`` is "ok"."""


def ask_for_prompt(wanted: str, last: str, feedback: str, longest: int) -> list[dict[str, str]]:
    """The question to the language model; it shows no image.

    Args:
        wanted: the user's own text.
        last: the prompt the image was drawn from.
        feedback: the reasoning model's criticism.
        longest: maximum length of the new prompt, in characters.
    """
    words = max(longest // _LETTERS, 1)
    asked = REWRITE.format(wanted=harmless(wanted), last=harmless(last), feedback=harmless(feedback), words=words)
    return [{"role": "user", "content": asked}]


def read_rewrite(answer: Answer, longest: int) -> Rewrite:
    """Parse the new prompt: the last one between its tags, after any reasoning.

    Args:
        answer: of a language model.
        longest: maximum characters; longer prompts are rejected, because truncation could change their meaning.
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
    # Unprintable characters, such as lone surrogates, break files and tokenizers.
    prompt = " ".join("".join(letter if letter.isprintable() else " " for letter in inside).split())
    if not prompt:
        return Rewrite(EMPTY)
    if len(prompt) > longest:
        return Rewrite(TOO_LONG)
    return Rewrite(CONTROL_TOKEN) if text_fault(prompt) else Rewrite(OK, prompt)


def feedback_of(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The reasoning about an image, one paragraph per task; empty if there is none.

    Args:
        scores: by task, as stored dicts of ``Score``.
    """
    texts = {task: (one["reasoning"] or "").strip() for task, one in scores.items()}
    texts = {task: text for task, text in texts.items() if text}
    return next(iter(texts.values())) if len(texts) == 1 else "\n\n".join(f"{task}: {texts[task]}" for task in texts)
