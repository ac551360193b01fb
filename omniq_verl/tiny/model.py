"""Build the tiny Qwen2.5-VL and save it as an ordinary Hugging Face folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,  # pyright: ignore[reportAttributeAccessIssue]  exported lazily
)

from omniq_verl.data.files import atomic_path
from omniq_verl.tiny.tokenizer import END_OF_TEXT, TURN_END, train_tokenizer

# The next layers normalise, so the gain changes no feature; it makes Adam's steps small relative to the weights, which
# would otherwise lose their whitening in the first hundred steps.
_PATCH_GAIN = 4.0


@dataclass(frozen=True)
class TinySize:
    """Widths and depths; the defaults give 0.62 million parameters (chosen by trials, see examples/quickstart)."""

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    mlp: int = 256
    vision_hidden: int = 64
    vision_layers: int = 2
    vision_heads: int = 2
    vision_mlp: int = 128
    patch: int = 8
    """Side in pixels; Qwen2.5-VL has 14."""
    image_side: int = 80
    """Side in pixels; every image is resized to about this number squared, (side / patch / 2)^2 tokens."""
    vocab: int = 434
    """Number of learned tokens, without the special ones."""


def build_config(tokenizer: PreTrainedTokenizerFast, size: TinySize) -> Qwen2_5_VLConfig:
    """Return Qwen2.5-VL's configuration at the given size; all vision layers have full attention."""

    def token(text: str) -> int:
        found = tokenizer.convert_tokens_to_ids(text)
        assert isinstance(found, int)  # the result is only a list for several tokens
        return found

    head = size.hidden // size.heads
    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads,
        "intermediate_size": size.mlp,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            # Halves of a head's rotary dimensions for time, height and width: 1/4, 3/8, 3/8 as in Qwen2.5-VL.
            "mrope_section": [head // 8, head * 3 // 16, head * 3 // 16],
        },
        "bos_token_id": token(END_OF_TEXT),
        "eos_token_id": token(TURN_END),
        "pad_token_id": token(END_OF_TEXT),
        "tie_word_embeddings": False,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "num_heads": size.vision_heads,
        "intermediate_size": size.vision_mlp,
        "out_hidden_size": size.hidden,
        "patch_size": size.patch,
        "spatial_patch_size": size.patch,
        "fullatt_block_indexes": list(range(size.vision_layers)),
        "window_size": size.patch * 8,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast, size: TinySize) -> Qwen2_5_VLProcessor:
    """Return Qwen2.5-VL's processor with the tiny model's patch and image size."""
    pixels = {"shortest_edge": size.image_side**2, "longest_edge": size.image_side**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=size.patch, size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(patch_size=size.patch, size=pixels),
        chat_template=tokenizer.chat_template,
    )


def whiten_patch_embedding(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, images: Sequence[np.ndarray], seed: int
) -> None:
    """Start the patch embedding from random directions of PCA-whitened pixels.

    Most energy of natural images is in a few smooth directions, and random filters respond to little else. Noise and
    blocking artefacts are in the weak directions. Whitening gives all directions equal weight.
    """
    patches = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    centred = patches - patches.mean(0)
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    whitening = directions @ torch.diag((variance + 0.01).rsqrt()) @ directions.T
    weight = model.model.visual.patch_embed.proj.weight
    random = torch.randn(weight.shape[0], patches.shape[1], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_((_PATCH_GAIN * random @ whitening / patches.shape[1] ** 0.5).view_as(weight))


def save_tiny_model(
    folder: Path,
    corpus: Sequence[str],
    images: Sequence[np.ndarray],
    seed: int = 0,
    size: TinySize | None = None,
) -> int:
    """Write a tiny random Qwen2.5-VL with tokenizer and processor into ``folder``, and return its parameter count.

    The folder appears only when it is complete.

    Args:
        folder: a folder for ``AutoModel.from_pretrained`` and vLLM.
        corpus: texts from which the tokenizer is learned.
        images: uint8 RGB arrays ``[H, W, 3]`` for whitening the patch embedding.
        seed: seed of the weights.
    """
    size = size or TinySize()
    tokenizer = train_tokenizer(corpus, size.vocab)
    processor = build_processor(tokenizer, size)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, size))
    whiten_patch_embedding(model, processor, images, seed)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with atomic_path(folder) as unfinished:
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        (unfinished / "tiny_model.json").write_text(json.dumps({**vars(size), "seed": seed, "parameters": parameters}))
    return parameters
