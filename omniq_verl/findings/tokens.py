"""The kind of each token of a question and its answer: image, prompt, reasoning, format or score."""

import re
from collections.abc import Sequence

from omniq_verl.rewards.parsing import SCORE_KEY, parse_response
from omniq_verl.tasks import Scale

KINDS = ("image", "prompt", "reasoning", "format", "score")
"""``format`` covers the parts of the answer that are neither reasoning nor score, such as the tags."""
_IN_JSON = re.compile(rf'"{SCORE_KEY}"\s*:\s*"?\s*([+-]?[0-9.]+)')


def spans(text: str, answer_format: str, scale: Scale | None) -> tuple[range, range] | None:
    """Return the characters of the reasoning and of the score; None if the answer has no reasoning or does not parse.

    Args:
        text: an answer.
        answer_format: answer format of its task.
        scale: scale of its task.
    """
    parsed = parse_response(text, answer_format, scale)
    if not parsed.ok or parsed.score is None or not parsed.reasoning:
        return None
    thinking = text.index("<think>") + len("<think>")
    answer = text.index("<answer>") + len("<answer>")
    body = text[answer : text.index("</answer>")]
    if answer_format == "json":
        found = _IN_JSON.search(body)
        if found is None:
            return None
        start, end = answer + found.start(1), answer + found.end(1)
    else:
        start = answer + len(body) - len(body.lstrip())
        end = start + len(body.strip())
    return range(thinking, text.index("</think>")), range(start, end)


def answer_kinds(texts: Sequence[str], reasoning: range, score: range) -> list[str]:
    """Return the kind of each token of an answer.

    A token across a boundary, such as ``>a`` (the end of a tag and the first letter), belongs to the score or reasoning
    that it overlaps. A token that adds no characters gets the kind of the next character.

    Args:
        texts: text that each token adds; joined, they are the answer.
        reasoning: characters of the reasoning.
        score: characters of the score.
    """
    kinds, position = [], 0
    for text in texts:
        mine = range(position, position + max(len(text), 1))
        position += len(text)
        kinds.append("score" if _meet(mine, score) else "reasoning" if _meet(mine, reasoning) else "format")
    return kinds


def _meet(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)
