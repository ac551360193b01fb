"""Walks over vLLM's steps: with a stand-in for the engine that answers from a known distribution, in any order."""

import math
import random
from types import SimpleNamespace

import pytest
from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS

from omniq_verl.generation import vllm_direct
from omniq_verl.generation.expectation import ScoreTexts, Spelling, Walk, numerals
from omniq_verl.generation.vllm_adapter import MOST_TOKEN_IDS, extended, log_probs_of, token_params
from omniq_verl.generation.vllm_direct import Expected, WalkingEngine

VOCABULARY = dict(enumerate("0123456789.<x"))
TEXTS = ScoreTexts(numerals(1, 5, 1), "<answer>", ("<",))


def chance(prompt: tuple[int, ...], token: int) -> float:
    weights = [random.Random(f"{prompt}/{one}").random() ** 2 for one in VOCABULARY]
    return weights[token] / sum(weights)


class Steps:
    """Takes requests and answers some of them at each step, in an order of its own."""

    def __init__(self, seed: int = 0, rejects: tuple[int, ...] | None = None):
        self.waiting, self.dropped, self.random = {}, [], random.Random(seed)
        self.rejects, self.most = rejects, 0

    def add(self, request_id, prepared):
        prompt, params = prepared
        if self.rejects is not None and tuple(prompt["prompt_token_ids"]) == self.rejects:
            raise ValueError("too long")
        self.waiting[request_id] = (tuple(prompt["prompt_token_ids"]), params.logprob_token_ids)
        self.most = max(self.most, len(params.logprob_token_ids or ()))

    def results(self):
        chosen = [name for name in self.waiting if self.random.random() < 0.5]
        self.random.shuffle(chosen)
        return [self._answer(name, *self.waiting.pop(name)) for name in chosen]

    def _answer(self, name, prompt, tokens):
        found = {token: SimpleNamespace(logprob=math.log(chance(prompt, token))) for token in tokens or ()}
        output = SimpleNamespace(text="3", finish_reason="stop", token_ids=[3], logprobs=[found])
        return SimpleNamespace(request_id=name, outputs=[output], finished=True)

    def drop(self, names):
        self.dropped += names
        for name in names:
            self.waiting.pop(name, None)


def expected(*prompt: int) -> Expected:
    return Expected({"prompt_token_ids": list(prompt)}, Walk(Spelling(TEXTS, VOCABULARY), 0.0), TEXTS)


def alone(*prompt: int) -> float:
    walk = expected(*prompt).walk
    while asked := walk.open:
        walk.tell({one: {t: chance((*prompt, *one), t) for t in tokens} for one, tokens in asked.items()})
    return walk.result().mean


def run(engine: WalkingEngine, steps: int = 200) -> dict[str, list]:
    return dict(pair for _ in range(steps) for pair in engine.step())


@pytest.mark.parametrize("seed", range(3))
def test_walks_that_share_the_engine_come_out_as_alone(seed):
    engine = WalkingEngine(Steps(seed))
    for number in range(4):
        engine.add(str(number), expected(12, number))
    engine.add("text", ({"prompt_token_ids": [12]}, token_params([1])))
    found = run(engine)
    assert found["text"][0].text == "3" and found["text"][0].outside is None
    for number in range(4):
        (answer,) = found[str(number)]
        assert float(answer.text.removeprefix("<answer>").removesuffix("</answer>")) == pytest.approx(
            alone(12, number), abs=1e-8
        )
        assert 0 < answer.outside < 1 and answer.std > 0
    assert not engine._walkers and not engine._owners


@pytest.mark.parametrize("most", [1, 3])
def test_more_tokens_than_vllm_takes_are_asked_for_in_parts(monkeypatch, most):
    monkeypatch.setattr(vllm_direct, "MOST_TOKEN_IDS", most)
    steps = Steps()
    engine = WalkingEngine(steps)
    engine.add("a", expected(12))
    (answer,) = run(engine)["a"]
    assert steps.most == most and float(answer.text[8:-9]) == pytest.approx(alone(12), abs=1e-8)


def test_a_rejected_question_leaves_nothing_behind():
    steps = Steps(rejects=(12,))
    engine = WalkingEngine(steps)
    with pytest.raises(ValueError, match="too long"):
        engine.add("a", expected(12))
    assert not steps.waiting and not engine._walkers and not engine._owners


def test_closing_reaches_vllm():
    closed = []
    WalkingEngine(SimpleNamespace(close=lambda: closed.append(1))).close()
    assert closed == [1]


def test_a_walk_that_is_given_up_takes_its_requests_along():
    steps = Steps()
    engine = WalkingEngine(steps)
    engine.add("a", expected(12))
    engine.add("b", expected(11))
    engine.drop(["a"])
    assert set(run(engine)) == {"b"} and not engine._owners


def test_what_vllm_is_asked_and_gives():
    assert MOST_TOKEN_IDS == MAX_LOGPROB_TOKEN_IDS
    params = token_params([5, 7])
    assert (params.logprob_token_ids, params.max_tokens, params.temperature) == ([5, 7], 1, 0.0)
    rendered = {"prompt_token_ids": [1, 2], "mm_kwargs": "same"}
    assert extended(rendered, (3,)) == {"prompt_token_ids": [1, 2, 3], "mm_kwargs": "same"}
    assert rendered["prompt_token_ids"] == [1, 2] and extended(rendered, ()) is rendered
    output = SimpleNamespace(logprobs=[{5: SimpleNamespace(logprob=-1.5)}])
    assert log_probs_of(SimpleNamespace(outputs=[output])) == {5: -1.5}
