"""Follow ``transformers.generate`` token by token: the text, the surprise and the exact entropy of each token."""

import threading
from typing import Any

from omniq_verl.generation.request import Piece, Tell

_UNFINISHED = "\ufffd"
"""How a tokenizer shows a character of which some bytes are missing."""


class Follower:
    """Hooks of ``generate`` for a single answer.

    Args:
        tokenizer: of the model.
        start: tokens of the question.
        receive: called with each part of the answer, in the thread of ``generate``.
        stopped: ends the answer after the next token.
    """

    def __init__(self, tokenizer: Any, start: int, receive: Tell, stopped: threading.Event):
        self._tokenizer, self._start, self._receive, self._stopped = tokenizer, start, receive, stopped
        self._log_probs: Any = None
        self._written = ""
        self._waiting: list[tuple[float, float]] = []

    def settings(self, banned: list[int]) -> dict[str, Any]:
        """Arguments of ``generate``. The figures are taken before the ``banned`` token ids are excluded."""
        from transformers import LogitsProcessorList, StoppingCriteriaList, SuppressTokensLogitsProcessor

        bans = [SuppressTokensLogitsProcessor(banned)] if banned else []
        return {
            "logits_processor": LogitsProcessorList([self._measure, *bans]),
            "stopping_criteria": StoppingCriteriaList([self._follow]),
            "suppress_tokens": None,
        }

    def _measure(self, ids: Any, logits: Any) -> Any:
        self._log_probs = logits.float().log_softmax(-1)[0]
        return logits

    def _follow(self, ids: Any, _logits: Any, **_: Any) -> Any:
        import torch

        entropy = torch.special.entr(self._log_probs.exp()).sum()
        self._waiting.append((max(0.0, -float(self._log_probs[ids[0, -1]])), float(entropy)))
        text = self._tokenizer.decode(ids[0, self._start :], skip_special_tokens=True)
        if not text.endswith(_UNFINISHED):
            self._emit(text)
        return torch.full((len(ids),), self._stopped.is_set(), device=ids.device)

    def _emit(self, text: str) -> None:
        if new := text[len(self._written) :]:
            surprises, entropies = zip(*self._waiting, strict=True)
            self._receive(Piece(new, surprises, entropies))
            self._written, self._waiting = text, []
