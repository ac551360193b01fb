"""A scripted generator of plans and reasoning."""

from omniq_verl.generation.request import Answer
from omniq_verl.tasks import LEVELS

STEP = "weigh the frobnication"
"""Stands in every plan, and nowhere else."""


class Generator:
    """Plans without an image; with one it reasons to each level in turn. Some plans and paths are broken."""

    def __init__(self, spec):
        self.spec = spec

    def answer(self, requests, sampling):
        return [self._answers(request, sampling.n) for request in requests]

    def _answers(self, request, n):
        if not request.images:
            assert "<image>" not in request.messages[0]["content"] and n == 1
            return [Answer("" if request.key.endswith("/3") else f"1. {STEP}\n2. look at <image> edges")]
        asked = request.messages[0]["content"]
        assert asked.count("<image>") == 1 and STEP in asked
        told = [Answer(f"<think>Seen {k}.</think><answer>{LEVELS[k % 5]}</answer>") for k in range(n - 2)]
        return [Answer("<think>and so on", "length"), Answer(""), *told]
