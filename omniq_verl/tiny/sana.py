"""A SANA small enough for two CPU cores: random weights, the real classes, an ordinary diffusers folder.

Its images are meaningless, but they differ by text and seed, and are generated with the same calls as SANA-1.0-1.6B's.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

# diffusers exports lazily.
from diffusers import (
    AutoencoderDC,  # pyright: ignore[reportPrivateImportUsage]
    DPMSolverMultistepScheduler,  # pyright: ignore[reportPrivateImportUsage]
    SanaPipeline,  # pyright: ignore[reportPrivateImportUsage]
    SanaTransformer2DModel,  # pyright: ignore[reportPrivateImportUsage]
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from omniq_verl.data.files import atomic_path

_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
"""Gemma's special tokens, in its order."""
_BYTES = tuple(f"<0x{number:02X}>" for number in range(256))
"""Tokens for the bytes of characters that the tokenizer has not learned."""


@dataclass(frozen=True)
class TinySanaSize:
    """Widths and depths; the defaults give 0.2 million parameters."""

    hidden: int = 32
    """Width of the transformer; SANA-1.0-1.6B has 2240."""
    layers: int = 2
    heads: int = 2
    latents: int = 8
    """Channels of a latent; SANA's autoencoder has 32."""
    channels: tuple[int, ...] = (8, 8, 8, 16, 16, 16)
    """Channels of the autoencoder's stages. With six stages, an image side has 32 pixels per latent, as in SANA."""
    text_hidden: int = 32
    """Width of the text encoder; Gemma-2-2B has 2304."""
    text_layers: int = 2
    text_heads: int = 2
    vocab: int = 400
    """Number of tokens, including the special ones and 256 bytes."""


def build_tokenizer(corpus: Sequence[str], size: TinySanaSize) -> GemmaTokenizer:
    """Learn a tokenizer like Gemma's: pieces between spaces, and bytes for everything unseen."""
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "\u2581")
    learned.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocab - len(_SPECIAL) - len(_BYTES), show_progress=False, max_token_length=12
    )
    learned.train_from_iterator(corpus, trainer)
    model = json.loads(learned.to_str())["model"]
    pieces = (*_SPECIAL, *_BYTES, *(piece for piece, _ in sorted(model["vocab"].items(), key=lambda one: one[1])))
    merges = [tuple(pair) for pair in model["merges"]]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)  # pyright: ignore[reportArgumentType]  pairs too
    tokenizer.padding_side = "right"
    return tokenizer


def build_pipeline(corpus: Sequence[str], seed: int = 0, size: TinySanaSize | None = None) -> SanaPipeline:
    """Build the pipeline with random weights.

    Args:
        corpus: texts from which the tokenizer is learned.
        seed: seed of the weights.
        size: widths and depths.
    """
    size = size or TinySanaSize()
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(corpus, size)
    return SanaPipeline(tokenizer, _text_encoder(tokenizer, size), _autoencoder(size), _transformer(size), _scheduler())


def save_tiny_sana(folder: Path, corpus: Sequence[str], seed: int = 0, size: TinySanaSize | None = None) -> int:
    """Write a tiny random SANA into ``folder``, and return its parameter count.

    The folder appears only when it is complete. Generate images with a height and width of a few dozen pixels: like
    SANA's models, it works at the size it was made for (512) and resizes.

    Args:
        folder: a folder for ``AutoPipelineForText2Image.from_pretrained``.
        corpus: texts from which the tokenizer is learned.
        seed: seed of the weights.
        size: widths and depths.
    """
    size = size or TinySanaSize()
    pipeline = build_pipeline(corpus, seed, size)
    parts = (pipeline.text_encoder, pipeline.vae, pipeline.transformer)
    parameters = sum(parameter.numel() for part in parts for parameter in part.parameters())
    with atomic_path(folder) as unfinished:
        pipeline.save_pretrained(unfinished)
        (unfinished / "tiny_sana.json").write_text(json.dumps({**asdict(size), "seed": seed, "parameters": parameters}))
    return parameters


_SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")


def _text_encoder(tokenizer: GemmaTokenizer, size: TinySanaSize) -> Gemma2Model:
    special: dict[str, Any] = {name: getattr(tokenizer, name) for name in _SPECIAL_IDS}
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=size.text_hidden,
        intermediate_size=2 * size.text_hidden,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads,
        num_key_value_heads=size.text_heads,
        head_dim=size.text_hidden // size.text_heads,
        query_pre_attn_scalar=size.text_hidden // size.text_heads,
        **special,
    )
    return Gemma2Model(config).eval()


def _autoencoder(size: TinySanaSize) -> AutoencoderDC:
    """Build the autoencoder, like mit-han-lab/dc-ae-f32c32-sana: three stages of plain blocks, three with attention."""
    half = len(size.channels) // 2
    stages = {
        "block_types": ("ResBlock",) * half + ("EfficientViTBlock",) * (len(size.channels) - half),
        "block_out_channels": size.channels,
        "layers_per_block": (1,) * len(size.channels),
        "qkv_multiscales": ((),) * half + ((5,),) * (len(size.channels) - half),
    }
    return AutoencoderDC(
        latent_channels=size.latents,
        attention_head_dim=size.channels[-1] // 2,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in stages.items()},
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        scaling_factor=0.41407,
    ).eval()


def _transformer(size: TinySanaSize) -> SanaTransformer2DModel:
    """Build a transformer like SANA's at 512 pixels: linear attention within the image, plain attention to the text."""
    return SanaTransformer2DModel(
        in_channels=size.latents,
        out_channels=size.latents,
        num_attention_heads=size.heads,
        attention_head_dim=size.hidden // size.heads,
        num_layers=size.layers,
        num_cross_attention_heads=size.heads,
        cross_attention_head_dim=size.hidden // size.heads,
        cross_attention_dim=size.hidden,
        caption_channels=size.text_hidden,
        sample_size=16,
    ).eval()


def _scheduler() -> DPMSolverMultistepScheduler:
    """Build a scheduler with SANA's settings."""
    return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
