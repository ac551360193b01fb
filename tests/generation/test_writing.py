"""Answers that are shown token by token: their text, and figures against a plain forward pass over the whole answer."""

import threading

import numpy as np
import pytest
import torch
from generation_builders import png

from omniq_verl.generation.request import Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.transformers_model import TransformersModel
from omniq_verl.generation.transformers_writing import Follower
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

WORDS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> TransformersModel:
    folder = tmp_path_factory.mktemp("writing") / "model"
    save_tiny_model(folder, list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    return TransformersModel(EngineSpec(str(folder), "hf", dtype="float32", max_model_len=256))


def question(seed: int = 0) -> Request:
    return Request("a", TECHNICAL.messages(None), (png(seed, 80),))


def written(model, sampling, stopped=None):
    told = []
    answers = model.write(question(), sampling, told.append, stopped or threading.Event())
    return told, answers


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_figures_are_those_of_the_whole_distribution_and_the_answer_is_the_plain_one(
    model, temperature, monkeypatch
):
    seen, read = [], model._answer
    monkeypatch.setattr(model, "_answer", lambda tokens: seen.append(tokens) or read(tokens))
    sampling = Sampling(max_tokens=WORDS, temperature=temperature, top_p=1.0 if temperature == 0 else 0.9)
    told, answers = written(model, sampling)
    assert answers == model.answer([question()], sampling)[0]
    assert "".join(one.text for one in told) == answers[0].text
    inputs = model._prepare([question()])
    start, tokens = inputs["input_ids"].shape[1], torch.tensor(seen[:1])
    whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], tokens], 1)}
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in whole:
            whole[name] = torch.cat([whole[name], torch.full_like(tokens, int(name == "attention_mask"))], 1)
    with torch.inference_mode():
        logits = model._model(**whole).logits[0, start - 1 : -1].double()
    chances = torch.softmax(logits, -1)
    entropies = -(chances * chances.log()).sum(-1)
    surprises = -chances.log().gather(1, tokens[0, :, None])[:, 0]
    found = [(surprise, entropy) for one in told for surprise, entropy in zip(one.surprise, one.entropy, strict=True)]
    count = len(found)  # without the end token, which has no text
    assert count >= 3
    assert np.array(found)[:count, 1] == pytest.approx(entropies.numpy()[:count], abs=1e-4)
    assert np.array(found)[:count, 0] == pytest.approx(surprises.numpy()[:count], abs=1e-4)


def test_a_told_stop_ends_the_answer_after_the_next_token(model):
    stopped = threading.Event()
    stopped.set()
    _, (answer,) = written(model, Sampling(max_tokens=WORDS), stopped)
    assert answer.tokens == 1


class Bytes:
    """A tokenizer whose tokens are single bytes."""

    def decode(self, ids, skip_special_tokens):
        return bytes(ids.tolist()).decode(errors="replace")


def test_tokens_that_share_a_character_are_one_piece():
    told = []
    follower = Follower(Bytes(), 0, told.append, threading.Event())
    text = "a\u00e9b".encode()
    for length in range(1, len(text) + 1):
        logits = torch.zeros(1, 256)
        logits[0, text[length - 1]] = float(length)
        follower._measure(None, logits)
        assert not follower._follow(torch.tensor([list(text[:length])]), None).item()
    assert [(one.text, len(one.surprise)) for one in told] == [("a", 1), ("\u00e9", 2), ("b", 1)]
    chances = np.exp([1.0] + [0.0] * 255) / np.exp([1.0] + [0.0] * 255).sum()
    assert told[0].surprise[0] == pytest.approx(-np.log(chances[0]), abs=1e-5)
    assert told[0].entropy[0] == pytest.approx(-(chances * np.log(chances)).sum(), abs=1e-5)
