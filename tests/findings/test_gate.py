"""Words of tokens, shares of entropy by hand, gradients against autograd, and the page of the gate."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from findings_builders import PHOTO, answer_text, answered, save_model, setup_of, write_rows
from rich.console import Console
from scipy import stats

from omniq_verl.evaluation.heatmap import answer_logits, question_inputs, token_entropies
from omniq_verl.findings import gate
from omniq_verl.findings.gradients import answer_pass, full_gradients, output_gradients
from omniq_verl.findings.reader import Reader
from omniq_verl.findings.words import BLANK, NUMBER, entropy_shares, words_of
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.tasks import TECHNICAL

MESSAGES = TECHNICAL.messages("one")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return Reader(EngineSpec(str(save_model(tmp_path_factory.mktemp("model") / "step")), "hf"))


@pytest.fixture(scope="module")
def read(reader):
    return reader.read(MESSAGES, [PHOTO], answer_text(3.7), "number", TECHNICAL.scale)


# Words


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["<think>", "Slight", " no", "ise", ","], ["<think>", "slight", "noise", "noise", ","]),
        (
            ["</th", "ink>", "<answer>3", ".", "7", "</answer>"],
            ["</think>"] * 2 + ["<answer>", NUMBER, NUMBER, "</answer>"],
        ),
        (["a", " ", "\n", "b", ""], ["a", BLANK, BLANK, "b", BLANK]),
        (["don", "'t", " well", "-lit"], ["don't"] * 2 + ["well-lit"] * 2),
        (["3", "D a"], [NUMBER, "d"]),
        ([], []),
    ],
)
def test_every_token_is_of_a_word(texts, words):
    assert words_of(texts) == words


def test_shares_by_hand():
    tokens = pd.DataFrame(
        {
            "answer": [0, 0, 1, 1],
            "word": ["good", "bad", "good", "x"],
            "entropy": [1.0, 2.0, 5.0, 0.0],
            "passed": [False, True, True, False],
        }
    )
    found = entropy_shares(tokens, 200)
    assert list(found.index) == ["good", "bad", "x"]
    assert found.share.tolist() == [0.75, 0.25, 0]
    assert found.tokens.tolist() == [0.5, 0.25, 0.25] and found["mean"].tolist() == [3, 2, 0]
    assert found.passed.tolist() == [0.5, 1, 0]
    # Answer 0 alone: a third is "good"; answer 1 alone: all of it.
    assert found.low["good"] == pytest.approx(1 / 3) and found.high["good"] == 1


def test_a_model_without_any_entropy_has_shares_of_zero():
    tokens = pd.DataFrame({"answer": [0, 1], "word": ["a", "b"], "entropy": [0.0, 0.0], "passed": [True, True]})
    assert entropy_shares(tokens, 10).share.tolist() == [0, 0]


# Gradients


def test_gradients_by_the_output_layer_are_autograds(reader, read):
    logits, hidden = answer_pass(reader, read)
    ids = read.inputs["input_ids"][0, read.question :].tolist()
    found = output_gradients(logits, hidden, ids)
    weight = reader.model.lm_head.weight
    whole = reader.model(**read.inputs).logits[0, -len(ids) - 1 : -1]
    for token in (0, len(ids) // 2, len(ids) - 1):
        [expected] = torch.autograd.grad(whole[token].log_softmax(-1)[ids[token]], weight, retain_graph=True)
        assert found[token].item() == pytest.approx(expected.norm().item(), rel=1e-4)


def test_the_gradient_of_a_sure_token_keeps_its_digits():
    logits = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64)
    rest = 2 / (np.exp(20) + 2)
    expected = np.sqrt(rest**2 + 2 * (rest / 2) ** 2)
    assert output_gradients(logits, torch.ones(1, 1), [0]).item() == pytest.approx(expected, rel=1e-4)


def test_the_pass_gives_the_logits_and_hidden_states_of_a_plain_pass(reader, read):
    logits, hidden = answer_pass(reader, read)
    ids = read.inputs["input_ids"][0, read.question :].tolist()
    plain = answer_logits(reader.model, question_inputs(reader.processor, MESSAGES, PHOTO), ids)
    assert torch.allclose(logits, plain, atol=1e-5)
    assert torch.allclose(hidden @ reader.model.lm_head.weight.detach().T, logits, atol=1e-4)


def test_whole_gradients_are_those_of_backward(reader, read):
    ids = read.inputs["input_ids"][0, read.question :].tolist()
    found = full_gradients(reader, read, [1, 4])
    for token, norm in zip((1, 4), found, strict=True):
        reader.model.zero_grad()
        logits = reader.model(**read.inputs).logits[0, -len(ids) - 1 : -1]
        logits[token].log_softmax(-1)[ids[token]].backward()
        squares = sum(float(one.grad.pow(2).sum()) for one in reader.model.parameters() if one.grad is not None)
        assert norm == pytest.approx(squares**0.5, rel=1e-4)
    reader.model.zero_grad()


# The finding


def test_the_gate_has_one_threshold_for_all_answers(tmp_path, monkeypatch):
    folder = save_model(tmp_path / "step")
    setup = setup_of(tmp_path / "out", [folder], [write_rows(tmp_path / "rows.parquet", [2.0, 3.0, 4.0])])
    given = answered(setup, [answer_text(2.0), "nothing", answer_text(4.0)], "step")
    monkeypatch.setattr(
        gate, "ask_all", lambda _setup, sampling, _console: [given] if sampling.temperature == 1 else []
    )
    gate.find_gate(setup, 0.25, 10, Console(quiet=True))
    model = json.loads((tmp_path / "out/gate.json").read_text())["models"]["step"]
    tokens = gate.measure_tokens(setup, given, 0.25, 10, Console(quiet=True)).table
    assert model["answers"] == 2 and model["left_out"] == "1 without reasoning or score"
    assert tokens.passed.sum() == np.ceil(0.25 * len(tokens))
    assert tokens.entropy[tokens.passed].min() >= tokens.entropy[~tokens.passed].max()
    assert model["threshold"] == pytest.approx(tokens.entropy[tokens.passed].min())
    assert tokens.gradient.notna().sum() == 10, "8 of the first answer, 2 of the second"
    assert sum(word["share"] for word in model["words"].values()) == pytest.approx(1)
    both = model["entropy_and_gradient"]
    expected = stats.spearmanr(tokens.entropy, tokens.output_gradient)[0]
    assert both["output_layer"]["value"] == pytest.approx(expected) and both["all_weights"]["n"] == 10
    assert model["entropy_passed"] == pytest.approx(tokens.entropy[tokens.passed].sum() / tokens.entropy.sum())


def test_entropies_are_those_of_the_heatmap(tmp_path, reader, read, monkeypatch):
    setup = setup_of(tmp_path / "out", [save_model(tmp_path / "step")], [write_rows(tmp_path / "rows.parquet", [2.0])])
    given = answered(setup, [answer_text(3.7)], "step")
    monkeypatch.setattr(gate, "read_answers", lambda *_: [("key", read)])
    tokens = gate.measure_tokens(setup, given, 0.2, 0, Console(quiet=True)).table
    ids = read.inputs["input_ids"][0, read.question :].tolist()
    plain = token_entropies(answer_logits(reader.model, question_inputs(reader.processor, MESSAGES, PHOTO), ids))
    assert tokens.entropy.tolist() == pytest.approx(plain.tolist(), abs=1e-5)
    assert tokens.gradient.isna().all()


def test_a_share_outside_of_its_range_is_rejected_before_anything_is_asked(tmp_path):
    setup = setup_of(tmp_path / "out", [tmp_path], [tmp_path / "nothing.parquet"])
    with pytest.raises(ValueError, match="rho must lie"):
        gate.find_gate(setup, 0.0, 0, Console(quiet=True))
