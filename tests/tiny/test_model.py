"""The tiny Qwen2.5-VL: a real one, only small."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model
from omniq_verl.tiny.tokenizer import SPECIAL_TOKENS, VISION_TOKENS, train_tokenizer

CORPUS = [*TECHNICAL.questions, "<think>slight noise, good quality</think><answer>3.7</answer>"]
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def photo(seed: int = 0, side: int = 80) -> np.ndarray:
    """As smooth as photographs are: neighbouring pixels are alike."""
    pixels = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side, 3)), (6, 6, 0))
    return np.round(255 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)


def save(folder: Path, seed: int = 0) -> int:
    return save_tiny_model(folder, CORPUS, [photo(number) for number in range(3)], seed)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save(path)
    return path


@pytest.fixture(scope="module")
def processor(folder: Path):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()


def prompt(processor, messages: list[dict], **settings) -> str:
    return processor.apply_chat_template(messages, tokenize=False, **settings)


def image_turn(text: str) -> dict:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def inputs(processor, text: str, side: int = 80) -> dict[str, torch.Tensor]:
    chat = prompt(processor, [image_turn(text)], add_generation_prompt=True)
    return processor(text=[chat], images=[photo(side=side)], return_tensors="pt")


# Folder


def test_the_parameter_count_is_that_of_the_saved_model(folder, model):
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 0.5e6 < count < 5e6
    assert json.loads((folder / "tiny_model.json").read_text())["parameters"] == count


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder, tmp_path):
    save(tmp_path / "same", seed=0)
    save(tmp_path / "other", seed=1)
    assert weights(tmp_path / "same") == weights(folder)
    assert weights(tmp_path / "other") != weights(folder)
    assert (tmp_path / "same" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_an_earlier_or_unfinished_model_is_replaced_as_a_whole(tmp_path):
    for name in ("tiny", "tiny.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale").write_text("from before")
    save(tmp_path / "tiny")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]
    assert not (tmp_path / "tiny" / "stale").exists()


def test_every_embedding_row_of_the_tokenizer_exists(model, tokenizer):
    rows = model.get_input_embeddings().weight.shape[0]
    assert len(tokenizer) <= rows < len(tokenizer) + 64
    assert rows == model.get_output_embeddings().weight.shape[0]


# Tokenizer


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_every_special_token_is_a_single_id(tokenizer, token):
    (number,) = tokenizer.encode(token)
    assert tokenizer.convert_ids_to_tokens(number) == token
    assert tokenizer.decode([number], skip_special_tokens=True) == ""


def test_ends_and_vision_tokens_are_those_of_the_configuration(model, tokenizer):
    config, token = model.config, tokenizer.convert_tokens_to_ids
    assert config.image_token_id == token("<|image_pad|>")
    assert config.video_token_id == token("<|video_pad|>")
    assert config.vision_start_token_id == token("<|vision_start|>")
    assert config.vision_end_token_id == token("<|vision_end|>")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == token("<|im_end|>")
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == token("<|endoftext|>")


@pytest.mark.parametrize("digit", "0123456789")
def test_a_digit_is_a_single_token(tokenizer, digit):
    assert len(tokenizer.encode(digit)) == 1


def test_a_number_is_read_digit_by_digit_however_often_it_was_seen():
    tokenizer = train_tokenizer(["12345.67 is 12345.67"] * 50, vocab_size=400)
    assert [tokenizer.decode([number]) for number in tokenizer.encode("12345.67")] == list("12345.67")


@pytest.mark.parametrize("tag", ["<think>", "</think>", "<answer>", "</answer>"])
def test_the_tags_of_an_answer_are_single_tokens(tokenizer, tag):
    assert len(tokenizer.encode(tag)) == 1


@settings(deadline=None, max_examples=300)
@given(st.text())
@example(" ")
@example("  a  b \n\n c\t")
@example(" ,. !?'s")
@example("a<b</c <d> 1<2 <<think>")
@example("<|im_end|> <|image_pad|>")
@example("e\u0301 \u00e9 \ufb01 \u0663 \U0001f600 \ufeff \x00")
def test_any_text_is_read_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


# Chat


def test_a_question_about_an_image_is_written_as_qwen_writes_it(processor):
    assert prompt(processor, [image_turn("Rate it.")], add_generation_prompt=True) == (
        SYSTEM + "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Rate it.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_conversation_with_a_system_turn_is_written_as_qwen_writes_it(processor):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rate it."},
        {"role": "assistant", "content": "<answer>3</answer>"},
    ]
    assert prompt(processor, messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nRate it.<|im_end|>\n"
        "<|im_start|>assistant\n<answer>3</answer><|im_end|>\n"
    )


def test_several_images_and_a_video_are_written_in_their_order(processor):
    parts = [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}, {"type": "video"}]
    start, end = "<|vision_start|>", "<|vision_end|>"
    assert prompt(processor, [{"role": "user", "content": parts}]) == (
        SYSTEM + f"<|im_start|>user\n{start}<|image_pad|>{end}or{start}<|image_pad|>{end}{start}<|video_pad|>{end}"
        "<|im_end|>\n"
    )


def test_processor_and_tokenizer_write_the_same_chat(processor, tokenizer):
    messages = [image_turn("Rate it.")]
    assert prompt(tokenizer, messages) == prompt(processor, messages)


# Image


@pytest.mark.parametrize(
    ("side", "reason"),
    [(80, "10 x 10 patches of 8 pixels, four to a token"), (160, "shrunk to 80"), (40, "enlarged to 80")],
)
def test_an_image_takes_25_tokens(processor, model, side, reason):
    batch = inputs(processor, "Rate it.", side)
    assert (batch["input_ids"] == model.config.image_token_id).sum() == 25, reason
    assert batch["image_grid_thw"].tolist() == [[1, 10, 10]]


def test_a_forward_pass_on_an_image_gives_finite_logits(processor, model):
    batch = inputs(processor, "Rate it.")
    with torch.no_grad():
        logits = model(**batch).logits
    assert logits.shape == (*batch["input_ids"].shape, model.config.text_config.vocab_size)
    assert torch.isfinite(logits).all()


def test_the_image_changes_the_answer(processor, model):
    first = inputs(processor, "Rate it.")
    second = {**first, "pixel_values": first["pixel_values"].flip(0)}
    with torch.no_grad():
        last = [model(**batch).logits[0, -1] for batch in (first, second)]
    assert not torch.allclose(*last)


def directions_seen(filters: torch.Tensor, patches: torch.Tensor) -> float:
    """In how many directions the filters' responses vary: the participation ratio of their variances."""
    energy = torch.linalg.svdvals((patches - patches.mean(0)) @ filters.T) ** 2
    return (energy.sum() ** 2 / (energy**2).sum()).item()


def test_whitened_filters_see_more_of_smooth_images_than_random_ones(processor, model):
    images = [photo(number) for number in range(3)]
    patches = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    whitened = model.model.visual.patch_embed.proj.weight.detach().flatten(1)
    random = torch.randn(whitened.shape, generator=torch.Generator().manual_seed(0))
    # Measured when this was written: 17 directions against 3.
    assert directions_seen(whitened, patches) > 3 * directions_seen(random, patches)


def test_gradients_reach_vision_and_language(processor, model):
    batch = inputs(processor, "Rate it.")
    model(**batch, labels=batch["input_ids"]).loss.backward()
    parts = (model.model.visual.patch_embed.proj, model.model.visual.merger.mlp[0], model.lm_head)
    norms = [part.weight.grad.norm().item() for part in parts]
    model.zero_grad()
    assert all(norm > 0 for norm in norms)


def test_vision_tokens_are_special_tokens():
    assert set(VISION_TOKENS) < set(SPECIAL_TOKENS)
