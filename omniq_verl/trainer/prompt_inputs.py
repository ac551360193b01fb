"""What the tokenisation of a prompt leaves to the rows of its answers, from the agent loop to the worker.

Both run in one asyncio task for each rollout, so that context variables connect them without a table of prompts that
somebody would have to clear.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch


@dataclass
class PromptInputs:
    """What the rows of a group have in common."""

    inputs: dict[str, Any]
    """``multi_modal_inputs`` as verl computes them."""
    stored: asyncio.Task[Any] | None = None
    """The way of the pixels into TransferQueue, which they must have reached before the first row."""
    of_rows: tuple[dict[str, Any], torch.Tensor] | None = None
    """``multi_modal_inputs`` as verl stores them, and the prompt's positions; None until the first row needs them."""
    messages: dict[str, Any] = field(default_factory=dict)
    """Messages without images, by column, as rows need them."""


def positions_with_answer(prompt: torch.Tensor, answer: int) -> torch.Tensor:
    """Positions of a prompt of text and images, continued over an answer of text.

    Args:
        prompt: ``[tokens]``, or ``[4, tokens]`` for models with mRoPE: of the text, and time, height and width.
        answer: number of its tokens.
    """
    if prompt.dim() == 1:
        return torch.cat([prompt, prompt.shape[-1] + torch.arange(answer)])
    # After an image all three go on behind the largest (get_rope_index of transformers).
    starts = torch.tensor([prompt.shape[-1]] + 3 * [int(prompt[1:].max()) + 1 if prompt.numel() else 0])
    return torch.cat([prompt, starts[:, None] + torch.arange(answer)], dim=1)


class PixelsGo(Enum):
    """Where the pixels of a prompt's images go."""

    ROWS = "rows"
    """Into each row, as in verl."""
    ONCE = "once"
    """Into TransferQueue once for the group."""
    NOWHERE = "nowhere"
    """Nobody reads them."""


PIXELS_GO: ContextVar[PixelsGo] = ContextVar("pixels_go", default=PixelsGo.ROWS)
"""Set by the worker for a prompt and its rollouts."""
PROMPT_INPUTS: ContextVar[PromptInputs | None] = ContextVar("prompt_inputs", default=None)
"""What the agent loop knows about a rollout's prompt; None if the worker has to compute it."""
