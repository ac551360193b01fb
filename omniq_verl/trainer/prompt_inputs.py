"""What the tokenisation of a prompt leaves to the rows of its answers, from the agent loop to the worker.

Both run in one asyncio task for each rollout, so that context variables connect them without a table of prompts that
somebody would have to clear.
"""

from contextvars import ContextVar
from enum import Enum
from typing import Any


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
PROMPT_INPUTS: ContextVar[dict[str, Any] | None] = ContextVar("prompt_inputs", default=None)
"""A rollout's ``multi_modal_inputs``, set by the agent loop; None where the worker must find them out."""
