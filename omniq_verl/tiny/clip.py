"""A CLIP or SigLIP small enough for two CPU cores: random weights, real architecture, an ordinary model folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from omniq_verl.rali.encoder import TwoTowers, save_whole
from omniq_verl.tiny.tokenizer import TURN_END, TURN_START, train_tokenizer


@dataclass(frozen=True)
class TinyClipSize:
    """Widths and depths; the defaults give 0.6 million parameters."""

    embedding: int = 64
    """Width of image and text embeddings; CLIP ViT-L/14-336 has 768. A SigLIP has ``hidden`` instead."""
    hidden: int = 96
    layers: int = 2
    heads: int = 4
    mlp: int = 192
    patch: int = 8
    """Side of a patch in pixels."""
    image_side: int = 80
    """Side of the image in pixels; gives 100 patches."""
    vocab: int = 434
    """Number of learned tokens, without the special ones."""
    tokens: int = 77
    """Maximum length of a text, as in CLIP. SigLIP has 64."""


def build_tokenizer(corpus: Sequence[str], size: TinyClipSize) -> PreTrainedTokenizerFast:
    """Learn a tokenizer that puts each text between a start and an end token, as CLIP's does."""
    tokenizer = train_tokenizer(corpus, size.vocab)
    marks = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (TURN_START, TURN_END)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{TURN_START} $A {TURN_END}", special_tokens=marks
    )
    tokenizer.model_max_length = size.tokens
    return tokenizer


def build_clip(tokenizer: PreTrainedTokenizerFast, size: TinyClipSize, kind: str = "clip") -> TwoTowers:
    """Build the model with random weights, drawn with torch's current seed."""
    both = {
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
    }
    text = {
        **both,
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "max_position_embeddings": size.tokens,
        "bos_token_id": tokenizer.convert_tokens_to_ids(TURN_START),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**both, "image_size": size.image_side, "patch_size": size.patch}
    if kind == "siglip":
        return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    projected = {"projection_dim": size.embedding}
    text, vision = text | projected, vision | projected
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=size.embedding))


def whiten_patches(model: TwoTowers, pixels: np.ndarray, seed: int) -> None:
    """Start the patch embedding from random directions of PCA-whitened pixels, as ``omniq_verl.tiny.model`` does.

    Args:
        model: the result of ``build_clip``.
        pixels: ``[images, 3, side, side]``, normalised.
        seed: seed of the directions.
    """
    weight = model.vision_model.embeddings.patch_embedding.weight
    patch = weight.shape[-1]
    patches = functional.unfold(torch.from_numpy(pixels), patch, stride=patch).transpose(1, 2).flatten(0, 1)
    centred = patches - patches.mean(0)
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    whitening = directions @ torch.diag((variance + 0.01).rsqrt()) @ directions.T
    random = torch.randn(weight.shape[0], patches.shape[1], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_((random @ whitening / patches.shape[1] ** 0.5).view_as(weight))


def save_tiny_clip(
    folder: Path,
    corpus: Sequence[str],
    seed: int = 0,
    size: TinyClipSize | None = None,
    kind: str = "clip",
) -> int:
    """Write a tiny random CLIP with tokenizer and processor into ``folder``, and return its parameter count.

    The folder appears only when it is complete.

    Args:
        folder: a folder for ``AutoModel.from_pretrained``.
        corpus: texts from which the tokenizer is learned.
        seed: seed of the weights.
        size: widths and depths.
        kind: ``clip`` or ``siglip``.
    """
    size = size or TinyClipSize()
    tokenizer = build_tokenizer(corpus, size)
    torch.manual_seed(seed)
    model = build_clip(tokenizer, size, kind)
    square = {"height": size.image_side, "width": size.image_side}
    processor = SiglipImageProcessor(size=square)
    if kind == "clip":
        processor = CLIPImageProcessor(size={"shortest_edge": size.image_side}, crop_size=square)
    save_whole(folder, model, tokenizer, processor)
    return sum(parameter.numel() for parameter in model.parameters())


def pretrain_clip(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pixels: np.ndarray,
    texts: Sequence[str],
    epochs: int,
    batch: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Iterator[float]:
    """Train both encoders on pairs, like CLIP's pretraining, and yield the mean loss of each epoch.

    Args:
        model: the result of ``build_clip``.
        tokenizer: the result of ``build_tokenizer``.
        pixels: ``[images, 3, side, side]``, normalised.
        texts: one text per image.
        epochs: passes over all pairs; the learning rate falls to 0 along half a cosine.
        batch: number of pairs in a contrastive batch.
        learning_rate: AdamW's learning rate.
        seed: seed of the order.
    """
    tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    images, order = torch.from_numpy(pixels), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(texts) // batch))
    for _ in range(epochs):
        losses = []
        for chosen in torch.from_numpy(order.permutation(len(texts))).split(batch):
            if len(chosen) < batch:
                break
            some = {name: tokens[name][chosen] for name in ("input_ids", "attention_mask")}
            loss = model(pixel_values=images[chosen], **some, return_loss=True).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        yield float(np.mean(losses))
