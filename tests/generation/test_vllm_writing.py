"""What ``AsyncModel`` makes of vLLM's results, which are vLLM's own objects here, without an engine behind them."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from generation_builders import png
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from omniq_verl.generation import vllm_async
from omniq_verl.generation.request import Answer, Piece, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.vllm_async import AsyncModel
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

PARTS = [("a", [1]), ("", [2]), ("\u00e9", [3]), ("bc", [4, 5]), ("", [6])]
"""Texts and tokens as vLLM hands them over: half a character, two tokens at once, and the end token."""


class Scripted:
    """In the place of ``AsyncLLM``; token n has the probability exp(-n)."""

    def __init__(self):
        self.renderer = SimpleNamespace(render_cmpl=lambda prompts: list(prompts))
        self.left = False

    async def generate(self, prompt, settings, name):
        try:
            for number, (text, tokens) in enumerate(PARTS):
                last = number == len(PARTS) - 1
                found = [{token: Logprob(-float(token))} for token in tokens]
                output = CompletionOutput(0, text, tokens, None, found, finish_reason="stop" if last else None)
                yield RequestOutput(name, None, [0], None, [output], finished=last)
                await asyncio.sleep(0.01)
        finally:
            self.left = True


@pytest.fixture
def model(tmp_path, monkeypatch) -> AsyncModel:
    save_tiny_model(tmp_path / "model", list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    monkeypatch.setattr(vllm_async, "open_async", lambda spec: Scripted())
    return AsyncModel(EngineSpec(str(tmp_path / "model")))


def question() -> Request:
    return Request("a", TECHNICAL.messages(None), (png(0, 80),))


def test_each_text_comes_with_the_surprises_of_its_tokens(model):
    told = []
    answers = asyncio.run(model.write(question(), Sampling(), told.append))
    assert answers == [Answer("a\u00e9bc", "stop", 6)]
    assert told == [Piece("a", (1.0,)), Piece("\u00e9", (2.0, 3.0)), Piece("bc", (4.0, 5.0))]


def test_a_reader_who_leaves_ends_vllms_results(model):
    async def leave() -> None:
        asked = asyncio.ensure_future(model.write(question(), Sampling(), lambda piece: asked.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await asked
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert model._engine.left
