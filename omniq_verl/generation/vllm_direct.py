"""Expectations of scores by vLLM: each way of writing is a short request of its own over the same rendered question.

vLLM's prefix cache keeps the question with its images, so that one token more costs a few positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from omniq_verl.generation.expectation import Prefix, ScoreTexts, Walk
from omniq_verl.generation.request import Answer, expected_answer
from omniq_verl.generation.vllm_adapter import (
    MOST_TOKEN_IDS,
    OfflineEngine,
    answers_of,
    extended,
    log_probs_of,
    token_params,
)


@dataclass
class Expected:
    """A request whose expectation is asked for, as ``WalkingEngine.add`` takes it."""

    prompt: Any
    """Rendered by ``vllm_adapter.render``, the beginning of the answer included."""
    walk: Walk
    texts: ScoreTexts


@dataclass
class _Walker:
    """An ``Expected`` under way."""

    expected: Expected
    waiting: dict[str, tuple[Prefix, list[int]]] = field(default_factory=dict)
    """Requests inside vLLM, and which prefix and token ids each is about."""
    found: dict[Prefix, dict[int, float]] = field(default_factory=dict)


class WalkingEngine:
    """A ``StepEngine`` over vLLM that also takes ``Expected``; what generates text goes through."""

    def __init__(self, engine: OfflineEngine):
        self._engine = engine
        self._walkers: dict[str, _Walker] = {}
        self._owners: dict[str, str] = {}
        self._ids = count()

    @property
    def renderer(self) -> Any:
        """vLLM's, for ``vllm_adapter.render``."""
        return self._engine.renderer

    def add(self, request_id: str, prepared: Any) -> None:
        """Take a request; see ``StepEngine.add``."""
        if isinstance(prepared, Expected):
            self._ask(request_id, _Walker(prepared))
        else:
            self._engine.add(request_id, prepared)

    def step(self) -> list[tuple[str, list[Answer]]]:
        """One step of vLLM. A walk whose last distribution has come goes on, or is finished."""
        finished: list[tuple[str, list[Answer]]] = []
        for result in self._engine.results():
            if result.request_id not in self._owners:
                finished.append((result.request_id, answers_of(result)))
            elif answered := self._take(self._owners.pop(result.request_id), result):
                finished.append(answered)
        return finished

    def drop(self, request_ids: Sequence[str]) -> None:
        """Give up requests that are not finished."""
        dropped: list[str] = []
        for name in request_ids:
            walker = self._walkers.pop(name, None)
            dropped += [name] if walker is None else walker.waiting
            for inner in walker.waiting if walker else ():
                del self._owners[inner]
        self._engine.drop(dropped)

    def close(self) -> None:
        """Give back the memory of vLLM's engine."""
        self._engine.close()

    def _ask(self, request_id: str, walker: _Walker) -> None:
        """Ask for every open prefix; a request that vLLM rejects takes the others of its walk along."""
        self._walkers[request_id] = walker
        for prefix, tokens in walker.expected.walk.open.items():
            prompt = extended(walker.expected.prompt, prefix)
            for first in range(0, len(tokens), MOST_TOKEN_IDS):
                some, name = tokens[first : first + MOST_TOKEN_IDS], f"{request_id}/{next(self._ids)}"
                walker.waiting[name], self._owners[name] = (prefix, some), request_id
                try:
                    self._engine.add(name, (prompt, token_params(some)))
                except ValueError:
                    del walker.waiting[name], self._owners[name]
                    self.drop([request_id])
                    raise

    def _take(self, request_id: str, result: Any) -> tuple[str, list[Answer]] | None:
        walker = self._walkers[request_id]
        prefix, tokens = walker.waiting.pop(result.request_id)
        log_probs = log_probs_of(result)
        walker.found.setdefault(prefix, {}).update((token, math.exp(log_probs[token])) for token in tokens)
        if walker.waiting:
            return None
        walk = walker.expected.walk
        walk.tell(walker.found)
        if walk.open:
            walker.found = {}
            self._ask(request_id, walker)
            return None
        del self._walkers[request_id]
        return request_id, [expected_answer(walk.result(), walker.expected.texts)]
