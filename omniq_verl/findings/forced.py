"""Scores that a model gives after a reasoning text supplied to it, with or without the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from omniq_verl.evaluation.heatmap import greedy_ids, question_inputs, with_answer
from omniq_verl.findings.reader import Reader
from omniq_verl.generation.chat_inputs import question_text
from omniq_verl.rewards.parsing import parse_response
from omniq_verl.tasks import IMAGE_PLACEHOLDER, Task, check_text

MOST_TOKENS = 24
"""Most tokens between <answer> and </answer>; Q-Insight's JSON object takes 10."""


def forced_text(reasoning: str) -> str:
    """Return the beginning of an answer with this reasoning, up to the score."""
    return f"<think>{reasoning}</think><answer>"


def without_image(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the same question without its image."""
    return [{**turn, "content": turn["content"].replace(IMAGE_PLACEHOLDER, "")} for turn in messages]


def forced_score(
    reader: Reader, messages: Sequence[Mapping[str, str]], image: bytes | None, reasoning: str, task: Task
) -> float | None:
    """Return the score that the model writes greedily after the given reasoning; None if it cannot be parsed.

    Args:
        reader: the model.
        messages: the question, with a placeholder for the image.
        image: the image file; None: ask the question without an image.
        reasoning: the text between <think> and </think>.
        task: task of the question.

    Raises:
        ForbiddenText: the reasoning contains a control token of the model.
    """
    check_text(reasoning, "the reasoning", reader.processor)
    tokenizer = reader.processor.tokenizer
    begun = forced_text(reasoning)
    ids = tokenizer.encode(begun, add_special_tokens=False)
    inputs = reader.on_device(with_answer(_inputs(reader, messages, image), ids))
    more = greedy_ids(reader.model, reader.processor, inputs, MOST_TOKENS)
    text = tokenizer.decode(more, skip_special_tokens=True)
    answer, end, _ = text.partition("</answer>")
    return parse_response(begun + answer + end, task.answer_format, task.scale).score


def _inputs(reader: Reader, messages: Sequence[Mapping[str, str]], image: bytes | None) -> dict[str, torch.Tensor]:
    if image is not None:
        return question_inputs(reader.processor, messages, image)
    text: Any = question_text(reader.processor, without_image(messages), 0)
    return dict(reader.processor(text=[text], return_tensors="pt"))
