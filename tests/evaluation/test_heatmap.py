"""Entropies of an answer's tokens: the numbers, the text of tokens, the pass through a model, the page."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_builders import saved, smooth
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForImageTextToText, AutoProcessor

from omniq_verl.evaluation import heatmap_page
from omniq_verl.evaluation.heatmap import (
    answer_ids,
    answer_logits,
    asked_messages,
    draw_heatmap,
    greedy_ids,
    question_inputs,
    token_entropies,
    token_numbers,
    token_texts,
)
from omniq_verl.evaluation.heatmap_page import NEWLINE, PART, TAB, place_cells, visible
from omniq_verl.generation.chat_inputs import decode_images, question_text
from omniq_verl.tasks import ALIGNMENT, TECHNICAL
from omniq_verl.tiny.model import TinySize, save_tiny_model

CORPUS = [*TECHNICAL.questions, "<think>slight noise, good quality</think><answer>3.7</answer>"]
ANSWER = 'a <b>"bold"</b>\n\n\t$x$ & <script>alert(1)</script> caf\u00e9 \u4e2d \U0001f600 \u202eno\u202c 3.7'
MESSAGES = TECHNICAL.messages("one")
PHOTO = saved(smooth(96, 80), "PNG")
SIZE = TinySize(layers=1, vision_layers=1)


def save_model(folder: Path, seed: int, corpus: list[str] = CORPUS) -> Path:
    save_tiny_model(folder, corpus, [smooth(80, 80, number) for number in range(3)], seed, SIZE)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [save_model(root / f"step_{seed}" / "huggingface", seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def processor(folders):
    return AutoProcessor.from_pretrained(folders[0])


@pytest.fixture(scope="module")
def model(folders):
    return AutoModelForImageTextToText.from_pretrained(folders[0], dtype=torch.float32)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(PHOTO)
    return tmp_path / "photo.png"


# Entropies


def test_a_task_about_a_text_is_asked_with_it_and_a_question_of_ones_own_as_it_is():
    [turn] = asked_messages("alignment", "two cats on a red sofa", None)
    assert turn == ALIGNMENT.messages(None, "two cats on a red sofa")[0] and len(turn["content"]) > 60
    assert asked_messages("technical", None, "How good?") == [{"role": "user", "content": "<image>How good?"}]
    with pytest.raises(ValueError, match="none was given"):
        asked_messages("alignment", None, None)
    with pytest.raises(ValueError, match="ask your own question with --question"):
        asked_messages("technical", "How good?", None)


def test_equal_logits_have_the_entropy_of_their_number():
    logits = torch.tensor([[0.0] * 8, [5.0] * 8, [-1e4] * 8])
    assert token_entropies(logits).tolist() == pytest.approx([np.log(8)] * 3)


def test_a_sure_token_has_none():
    assert token_entropies(torch.tensor([[0.0, 1e4, 0.0], [-torch.inf, 3.0, -torch.inf]])).tolist() == [0, 0]


def test_entropies_by_hand_with_tokens_ruled_out():
    shares = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.5, 0.5, 0.0, 0.0]])
    # 1/2 ln 2 + 2/4 ln 4 = 3/2 ln 2, and ln 2.
    assert token_entropies(shares.log() + 7).tolist() == pytest.approx([1.5 * np.log(2), np.log(2)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_entropies_are_taken_in_single_precision(dtype):
    logits = (torch.randn(5, 300, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    assert token_entropies(logits).dtype is torch.float32
    assert torch.equal(token_entropies(logits), token_entropies(logits.float()))


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 200])
def test_entropies_are_those_of_the_plain_formula(rows):
    logits = torch.randn(rows, 50, generator=torch.Generator().manual_seed(rows)) * 4
    p = np.exp(logits.double().numpy())
    p /= p.sum(-1, keepdims=True)
    assert token_entropies(logits).tolist() == pytest.approx(list(-(p * np.log(p)).sum(-1)), abs=1e-5)


def test_a_large_vocabulary_is_worked_on_in_parts():
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and not result._is_view():
                self.seen = max(self.seen, result.numel())
            return result

    logits = torch.zeros(1, 1).expand(130, 151936)
    with Largest() as largest:
        entropy = token_entropies(logits)
    assert entropy.tolist() == pytest.approx([np.log(151936)] * 130, rel=1e-5)
    assert largest.seen == 64 * 151936


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_no_distribution_are_rejected(bad):
    with pytest.raises(ValueError, match="not a distribution"):
        token_entropies(torch.tensor([[0.0, 1.0], [0.0, bad]]))
    with pytest.raises(ValueError, match="not a distribution"):
        token_entropies(torch.full((1, 3), -torch.inf))


def test_probability_rank_and_gate_by_hand():
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.98, 0.01, 0.01], [0.2, 0.4, 0.4]])
    table = token_numbers(shares.log(), [1, 0, 0, 2], rho=0.5)
    assert list(table["probability"]) == pytest.approx([0.3, 0.1, 0.98, 0.4])
    assert list(table["rank"]) == [2, 3, 1, 1]
    # Entropies 1.030, 0.898, 0.112, 1.055: the two highest of four pass.
    assert list(table["entropy"]) == pytest.approx([1.0297, 0.8979, 0.1119, 1.0549], abs=1e-4)
    assert list(table["passed"]) == [True, False, False, True]


# Tokens


@settings(deadline=None, max_examples=60)
@given(text=st.text())
@example(ANSWER)
@example("\ufffd and \ufffd")
@example("<|im_end|>e\u0301")
def test_the_tokens_joined_are_the_answer(processor, text):
    ids = processor.tokenizer.encode(text)
    texts = token_texts(processor.tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_a_character_belongs_to_the_token_that_completes_it(processor):
    ids = processor.tokenizer.encode("a\u4e2d")
    assert token_texts(processor.tokenizer, ids) == ["a", "", "", "\u4e2d"]
    assert token_texts(processor.tokenizer, ids[:3]) == ["a", "", "\ufffd"], "cut within it"
    assert "".join(token_texts(processor.tokenizer, [ids[1], ids[0]])) == "\ufffda", "bytes that are none"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" word", " word"),
        ("<b>&", "<b>&"),
        ("\n\n", NEWLINE * 2),
        ("\t", TAB),
        ("", PART),
        ("\u202e", "\\u202e"),
        ("\x00\r", "\\u0000\\u000d"),
        ("\u00a0\u200b", "\\u00a0\\u200b"),
        ("\u4e2d\U0001f600", "\u4e2d\U0001f600"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(text, shown):
    assert visible(text) == shown


def test_tokens_are_placed_in_lines():
    refs = place_cells(["ab", "cde", "f" + NEWLINE, "\u4e2d\u4e2d", "x", "longer than a line"], columns=6)
    assert refs == [(0, 0, 2), (0, 2, 3), (1, 0, 2), (2, 0, 4), (2, 4, 1), (3, 0, 6)]


# Model


def plain_entropies(model, processor, ids: list[int]) -> list[float]:
    """The whole text in one call of the processor and one forward pass, and the formula in double precision."""
    text = question_text(processor, MESSAGES) + processor.tokenizer.decode(ids)
    batch = processor(text=[text], images=decode_images(processor, [PHOTO]), return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[0, -len(ids) - 1 : -1].double()
    log = logits.log_softmax(-1)
    return (-(log.exp() * log).sum(-1)).tolist()


def test_the_entropies_are_those_of_a_plain_pass_over_the_whole_text(model, processor):
    ids = answer_ids(processor, CORPUS[-1])
    logits = answer_logits(model, question_inputs(processor, MESSAGES, PHOTO), ids)
    assert logits.shape == (len(ids), model.config.text_config.vocab_size)
    assert token_entropies(logits).tolist() == pytest.approx(plain_entropies(model, processor, ids), abs=1e-5)


def test_an_answer_ends_as_a_turn_does(processor):
    ids = answer_ids(processor, "3.7")
    assert processor.tokenizer.decode(ids) == "3.7<|im_end|>"
    assert answer_ids(processor, "3.7<|im_end|>") == ids


def test_an_answer_with_a_place_for_an_image_is_rejected(processor):
    with pytest.raises(ValueError, match=r"<\|image_pad\|>.*remove it"):
        answer_ids(processor, "a <|image_pad|> b")


def test_the_greedy_answer_is_the_likeliest_token_again_and_again(folders, processor):
    model = AutoModelForImageTextToText.from_pretrained(folders[0], dtype=torch.float32)
    model.generation_config.repetition_penalty = 5.0
    inputs = question_inputs(processor, MESSAGES, PHOTO)
    ids = greedy_ids(model, processor, inputs, max_tokens=8)
    table = token_numbers(answer_logits(model, inputs, ids), ids)
    assert 1 <= len(ids) <= 8
    assert set(table["rank"]) == {1}


# Heatmap


class Cells(HTMLParser):
    """The texts and hover titles of coloured spans, section by section, and every tag of the page."""

    def __init__(self, page: Path):
        super().__init__()
        self.tags, self.texts, self.titles, self.underlined, self.inside = set(), [], [], [], False
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        given = dict(attributes)
        if tag == "section":
            self.texts, self.titles, self.underlined = (
                [*kept, []] for kept in (self.texts, self.titles, self.underlined)
            )
        if tag == "span" and "title" in given:
            self.inside = True
            self.titles[-1].append(given["title"])
            self.underlined[-1].append(given.get("class") == "u")
            self.texts[-1].append("")

    def handle_data(self, data):
        if self.inside:
            self.texts[-1][-1] += data

    def handle_endtag(self, tag):
        self.inside = False


@pytest.fixture(scope="module")
def drawn(folders, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("heatmap")
    (out / "photo.png").write_bytes(PHOTO)
    (out / "answer.txt").write_text(ANSWER + "\n", "utf-8")
    return draw_heatmap(
        folders, out / "photo.png", out, answer=str(out / "answer.txt"), question="How <b>good</b>?"
    ).parent


def test_the_page_shows_both_checkpoints_and_the_difference_with_every_token(drawn):
    cells, table = Cells(drawn / "heatmap.html"), pd.read_csv(drawn / "heatmap.csv", keep_default_na=False)
    shown = [visible(text) for text in table[table["checkpoint"] == "step_0"]["token"]]
    assert cells.texts == [shown] * 3
    assert cells.underlined[0] == list(table[table["checkpoint"] == "step_0"]["passed"])
    assert cells.underlined[2] == [a != b for a, b in zip(*cells.underlined[:2], strict=True)]
    first = table.iloc[0]
    assert cells.titles[0][0].splitlines() == [
        f'"{first["token"]}", step_0',
        f"entropy {first['entropy']:.3f} nats",
        f"probability {first['probability']:.4f}",
        f"rank {first['rank']}",
    ]
    change = table.loc[table["position"] == 0, "entropy"].diff().iloc[1]
    assert cells.titles[2][0].splitlines()[-1] == f"difference {change:+.3f} nats"


def test_nothing_of_the_answer_or_the_question_becomes_markup(drawn):
    assert not {"script", "b"} & Cells(drawn / "heatmap.html").tags
    assert "\u202e" not in (drawn / "heatmap.html").read_text("utf-8")


def test_the_numbers_are_those_of_each_checkpoint(drawn, folders, processor):
    table = pd.read_csv(drawn / "heatmap.csv", keep_default_na=False)
    about = json.loads((drawn / "heatmap.json").read_text())
    ids = answer_ids(processor, ANSWER)
    messages = [{"role": "user", "content": "<image>How <b>good</b>?"}]
    for one, folder in zip(about["checkpoints"], folders, strict=True):
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        expected = token_entropies(answer_logits(model, question_inputs(processor, messages, PHOTO), ids))
        mine = table[table["checkpoint"] == one["name"]]
        assert list(mine["id"]) == ids
        assert list(mine["entropy"]) == pytest.approx(expected.tolist(), abs=1e-5)
        assert "".join(mine["token"]) == about["answer"] == ANSWER + "<|im_end|>"
        assert one["mean_entropy"] == pytest.approx(mine["entropy"].mean())
        assert one["gate_threshold"] == pytest.approx(mine[mine["passed"]]["entropy"].min())
        assert 0.2 <= one["tokens_passed"] / one["tokens"] < 0.25
    assert table.groupby("position")["entropy"].std().max() > 1e-3, "the checkpoints differ"


def test_the_picture_is_a_png(drawn):
    with Image.open(drawn / "heatmap.png") as image:
        assert image.format == "PNG"
        assert image.width == 1152


def test_one_checkpoint_answers_greedily_and_has_a_strip_alone(folders, photo, tmp_path):
    page = draw_heatmap(folders[:1], photo, tmp_path / "out", max_tokens=3, rho=1.0)
    cells = Cells(page)
    assert len(cells.texts) == 1 and 1 <= len(cells.texts[0]) <= 3
    assert all(cells.underlined[0])
    about = json.loads((tmp_path / "out" / "heatmap.json").read_text())
    assert about["answer_is"] == f"greedy, by {folders[0]}"
    assert about["question"] == TECHNICAL.question(None)


def test_a_picture_gets_no_higher_than_matplotlib_draws(folders, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(heatmap_page, "_HIGHEST", 200)
    draw_heatmap(folders[:1], photo, tmp_path, answer="\n" * 20)
    with Image.open(tmp_path / "heatmap.png") as image:
        assert 190 < image.height <= 200


# Refusals


def test_checkpoints_with_other_tokenizers_are_rejected(folders, photo, tmp_path):
    other = save_model(tmp_path / "other", seed=0, corpus=["quite another text"])
    with pytest.raises(ValueError, match=r"different tokenizers.*two checkpoints of one model"):
        draw_heatmap([folders[0], other], photo, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rho": 0.0}, "rho must lie"),
        ({"task": "beauty"}, "--task is 'beauty', an unknown task. Fix: name one of technical"),
        ({"task": "alignment"}, "none was given"),
        ({"models": []}, "got 0"),
        ({"models": [Path("a"), Path("b"), Path("c")]}, "got 3"),
        ({"models": [Path("nowhere")]}, "no such folder"),
        ({"image": Path("nowhere.png")}, "cannot be read"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_rejected_before_a_model_is_loaded(folders, photo, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        draw_heatmap(**{"models": folders[:1], "image": photo, "out": tmp_path / "out"} | change)
    assert not (tmp_path / "out").exists()
