"""Attention of the score: the rows against transformers' own weights, kinds of tokens, shares that add up."""

import json

import numpy as np
import pytest
import torch
from findings_builders import PHOTO, answer_text, answered, save_model, setup_of, write_rows
from rich.console import Console
from transformers import AutoModelForImageTextToText

from omniq_verl.findings import attention
from omniq_verl.findings.attention_rows import NAME, RowSums, attention_rows, register
from omniq_verl.findings.reader import Reader
from omniq_verl.findings.tokens import KINDS, answer_kinds, spans
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.tasks import TECHNICAL

MESSAGES = TECHNICAL.messages("one")
ANSWER = answer_text(3.7)
SCALE = TECHNICAL.scale


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "step")


@pytest.fixture(scope="module")
def reader(folder):
    register()
    return Reader(EngineSpec(str(folder), "hf"), NAME)


# Rows


def test_rows_by_hand():
    # One head of width 1: query 2 at position 1, keys 0 and ln(3)/2: scores 0 and ln 3, so a quarter and three.
    query = torch.tensor([0.0, 2.0]).view(1, 1, 2, 1)
    key = torch.tensor([0.0, np.log(3) / 2]).view(1, 1, 2, 1)
    found = attention_rows(query, key, torch.tensor([0, 1]), scaling=1.0)
    assert found[0].tolist() == [[1, 0], pytest.approx([0.25, 0.75])]


@pytest.mark.parametrize("kind", ["none", "boolean", "added"])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_rows_are_those_of_the_whole_matrix(kind, softcap):
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 6, 9, 8, generator=random), torch.randn(1, 2, 9, 8, generator=random)
    see = torch.ones(9, 9, dtype=torch.bool).tril()
    if kind != "none":
        see[7, :3] = False  # as a sliding window does
    scores = query[0] @ key[0].repeat_interleave(3, dim=0).transpose(1, 2) / 8**0.5
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    expected = scores.masked_fill(~see, -torch.inf).softmax(-1)[:, [7, 2]]
    masks = {"none": None, "boolean": see[None, None], "added": torch.where(see, 0.0, -torch.inf)[None, None]}
    found = attention_rows(query, key, torch.tensor([7, 2]), masks[kind], softcap=softcap)
    assert torch.allclose(found, expected, atol=1e-6)


def test_sums_are_the_mean_over_rows_by_group():
    sums = RowSums(torch.tensor([0, 1]), torch.tensor([[1.0, 0], [0, 1], [0, 1]]))
    sums.add(0, torch.tensor([[[0.2, 0.3, 0.5], [0.4, 0.6, 0.0]]]))
    assert sums.shares().tolist() == [[pytest.approx([0.3, 0.7])]]


def test_the_shares_are_those_of_transformers_own_attention_weights(folder, reader):
    read = reader.read(MESSAGES, [PHOTO], ANSWER, "number", SCALE)
    eager = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        weights = eager(**read.inputs, output_attentions=True).attentions
    rows = [ref - 1 for ref, kind in enumerate(read.kinds) if kind == "score"]
    expected = np.zeros((2, 4, len(KINDS)))
    for layer, of_layer in enumerate(weights):
        for ref, kind in enumerate(read.kinds):
            expected[layer, :, KINDS.index(kind)] += of_layer[0, :, rows, ref].mean(dim=1).numpy()
    found = attention.answer_shares(reader, read)
    assert found.shape == (2, 4, 5)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.sum(axis=-1) == pytest.approx(np.ones((2, 4)), abs=1e-5)
    assert found[..., KINDS.index("image")].min() > 0


def test_a_model_that_is_only_watched_computes_what_sdpa_does(folder, reader):
    read = reader.read(MESSAGES, [PHOTO], ANSWER, "number", SCALE)
    plain = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    with torch.inference_mode():
        assert torch.equal(reader.model(**read.inputs).logits, plain(**read.inputs).logits)


# Kinds of tokens


def test_every_token_is_of_one_kind(reader):
    read = reader.read(MESSAGES, [PHOTO], ANSWER, "number", SCALE)
    ids = read.inputs["input_ids"][0]
    assert len(read.kinds) == len(ids)
    assert read.kinds.count("image") == (ids == reader.model.config.image_token_id).sum() > 9
    told = {
        kind: "".join(t for t, k in zip(read.texts, read.kinds[read.question :], strict=True) if k == kind)
        for kind in ("reasoning", "score", "format")
    }
    assert told["score"] == "3.7"
    assert "slight noise, fair quality" in told["reasoning"]
    assert "<answer>" in told["format"]
    assert set(read.kinds[: read.question]) == {"image", "prompt"}


@pytest.mark.parametrize(
    ("text", "form", "reasoning", "score"),
    [
        ("<think>a 4</think><answer> 3.5 </answer>", "number", "a 4", "3.5"),
        (' <think>b</think>\n<answer>{"rating": 4.25}</answer>', "json", "b", "4.25"),
        ('<think>b</think><answer>{"why": "2", "rating": "4"}</answer>', "json", "b", "4"),
    ],
)
def test_spans_of_reasoning_and_score(text, form, reasoning, score):
    one, other = spans(text, form, SCALE)
    assert text[one.start : one.stop] == reasoning and text[other.start : other.stop] == score


@pytest.mark.parametrize(
    "text", ["", "3", "<answer>3</answer>", "<think></think><answer>3</answer>", "<think>a</think><answer>9</answer>"]
)
def test_answers_without_reasoning_or_score_have_no_spans(text):
    assert spans(text, "number", SCALE) is None


def test_a_token_over_a_boundary_belongs_to_what_it_has_a_part_of():
    texts = ["<think", ">a", "", "b", "</", "think><answer>", "3", ".5<", "/answer>"]
    joined = "".join(texts)
    reasoning, score = range(7, 9), range(joined.index("3"), joined.index("3") + 3)
    expected = ["format", "reasoning", "reasoning", "reasoning", "format", "format", "score", "score", "format"]
    assert answer_kinds(texts, reasoning, score) == expected


# The finding


def test_reasonings_part_leaves_the_prompt_out():
    shares = np.array([[0.1, 0.5, 0.3, 0.1, 0.0], [0, 1, 0, 0, 0]])
    assert attention.reasoning_part(shares) == pytest.approx([0.75, np.nan], nan_ok=True)


def test_the_finding_measures_every_model_and_counts_what_is_left_out(tmp_path, folder, monkeypatch):
    other = save_model(tmp_path / "runs" / "other", seed=1)
    data = write_rows(tmp_path / "rows.parquet", [1.0, 2.0, 3.0, 4.0])
    setup = setup_of(tmp_path / "out", [folder, other], [data])
    texts = [answer_text(2.0), "no answer", answer_text(4.0), "<answer>3</answer>"]
    given = [answered(setup, texts, name, number) for number, name in enumerate(setup.names())]
    monkeypatch.setattr(attention, "ask_all", lambda *_: given)
    attention.find_attention(setup, Console(quiet=True))
    numbers = json.loads((tmp_path / "out/attention.json").read_text())
    assert len(numbers["models"]) == 2
    for one in numbers["models"].values():
        assert one["images"] == 2 and one["left_out"] == "2 without reasoning or score"
        assert sum(share["value"] for share in one["share"].values()) == pytest.approx(1, abs=1e-5)
        assert one["share"]["image"]["low"] <= one["share"]["image"]["value"] <= one["share"]["image"]["high"]
    first, second = numbers["models"].values()
    assert first["by_layer_and_head"] != second["by_layer_and_head"]
    for ending in ("png", "pdf", "html"):
        assert (tmp_path / f"out/attention.{ending}").stat().st_size > 5000


def test_answers_without_reasoning_alone_are_an_error(tmp_path, folder, monkeypatch):
    setup = setup_of(tmp_path / "out", [folder], [write_rows(tmp_path / "rows.parquet", [1.0, 2.0])])
    given = [answered(setup, ["<answer>3</answer>"] * 2)]
    monkeypatch.setattr(attention, "ask_all", lambda *_: given)
    with pytest.raises(ValueError, match=r"no answer has reasoning.*2 without reasoning or score.*Fix"):
        attention.find_attention(setup, Console(quiet=True))


def test_a_model_behind_an_endpoint_cannot_be_looked_into(tmp_path):
    data = write_rows(tmp_path / "rows.parquet", [1.0])
    setup = setup_of(tmp_path / "out", [], [data])
    setup = type(setup)((EngineSpec("gpt", "openai"),), setup.data, setup.out)
    with pytest.raises(ValueError, match=r"reads the weights.*Fix"):
        attention.find_attention(setup, Console(quiet=True))
