"""Floating-point operations that Qwen2.5-VL needs, counted from its configuration.

A multiplication and an addition are two operations. Only matrix products are counted: norms, activations, rotary
embeddings and the softmax are left out, as usual. For a prompt of P tokens (I of them from an image of G = 4 I patches)
and an answer of R tokens, T = P + R:

- layers: 2 N T, with N the parameters of the language model's linear layers (without embedding and head).
- attention: 4 D L T (T + 1) / 2, causal, with D = heads x head width and L layers.
- head: 2 H V R for the answer's tokens only; the prompt's logits are not needed by any phase.
- vision: 2 M G for the linear layers and the patch embedding, 2 K I for the merger, and 4 W s^2 for each attention
  segment of s patches: the whole image in the full-attention layers, windows of 8 x 8 patches in the others.

These are the operations that are *needed*: gradient checkpointing runs the forward pass twice, but the second run is
not counted. A backward pass counts as two forward passes, so an update is 3 forward passes. Old and reference
log-probabilities are one forward pass each. Generation runs prompt and image once per group of answers, because vLLM
caches the prefix; then each answer's tokens attend to that prompt.

MFU = needed operations / (seconds x peak operations per second). The peak is that of NVIDIA's H100 and H200 data
sheets, 989 TFLOP/s for dense bf16.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

H100_PEAK = 989e12
"""Dense bf16 operations per second of one H100 SXM or H200."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a Qwen2.5-VL that determine its number of operations."""

    hidden: int
    layers: int
    query_width: int
    """Attention heads times head width."""
    key_width: int
    """Key/value heads times head width."""
    mlp: int
    vocabulary: int
    vision_hidden: int
    vision_layers: int
    vision_mlp: int
    vision_full_layers: int
    """Vision layers in which every patch attends to the whole image."""
    patch_values: int
    """Numbers in one patch: colours x frames x height x width."""
    merge: int
    """Patches per side that become one token (2)."""
    window: int
    """Tokens per side of a vision window (4)."""

    @classmethod
    def read(cls, folder: Path) -> "ModelShape":
        """The shape in a model folder's ``config.json``.

        Raises:
            ValueError: the file is missing or does not describe a Qwen2.5-VL.
        """
        path = folder / "config.json"
        try:
            config = json.loads(path.read_text())
            text, vision = config["text_config"], config["vision_config"]
            heads = text["num_attention_heads"]
            head_width = text.get("head_dim") or text["hidden_size"] // heads
            patch, merge = vision["patch_size"], vision["spatial_merge_size"]
            return cls(
                hidden=text["hidden_size"],
                layers=text["num_hidden_layers"],
                query_width=heads * head_width,
                key_width=text["num_key_value_heads"] * head_width,
                mlp=text["intermediate_size"],
                vocabulary=text["vocab_size"],
                vision_hidden=vision["hidden_size"],
                vision_layers=vision["depth"],
                vision_mlp=vision["intermediate_size"],
                vision_full_layers=len(set(vision["fullatt_block_indexes"]) & set(range(vision["depth"]))),
                patch_values=vision.get("in_channels", 3) * vision["temporal_patch_size"] * patch**2,
                merge=merge,
                window=vision["window_size"] // merge // patch,
            )
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not describe a Qwen2.5-VL ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class Lengths:
    """Mean lengths of the answers of a step."""

    prompt: float
    """Tokens of a prompt, image tokens included."""
    response: float
    grid: tuple[int, int]
    """Image tokens per column and row; (27, 37) for 1024 x 768 pixels."""


def layer_flops(shape: ModelShape, tokens: float) -> float:
    """Linear layers of the language model, forward."""
    attention = 2 * shape.hidden * (shape.query_width + shape.key_width)
    return 2 * tokens * shape.layers * (attention + 3 * shape.hidden * shape.mlp)


def attention_flops(shape: ModelShape, before: float, tokens: float) -> float:
    """Causal attention of ``tokens`` tokens that follow ``before`` others in the same sequence, forward."""
    return 4 * shape.layers * shape.query_width * (tokens * before + tokens * (tokens + 1) / 2)


def head_flops(shape: ModelShape, tokens: float) -> float:
    """Logits of ``tokens`` tokens, forward."""
    return 2 * tokens * shape.hidden * shape.vocabulary


def vision_flops(shape: ModelShape, grid: tuple[int, int]) -> float:
    """The vision tower on one image of ``grid`` tokens (rows, columns), forward."""
    tokens, width = math.prod(grid), shape.vision_hidden
    patches = tokens * shape.merge**2
    linear = shape.vision_layers * (4 * width**2 + 3 * width * shape.vision_mlp) + shape.patch_values * width
    merged = width * shape.merge**2
    merger = merged**2 + merged * shape.hidden
    rows, columns = ([min(shape.window, side - first) for first in range(0, side, shape.window)] for side in grid)
    windows = shape.merge**4 * sum(row**2 for row in rows) * sum(column**2 for column in columns)
    windowed = shape.vision_layers - shape.vision_full_layers
    segments = shape.vision_full_layers * patches**2 + windowed * windows
    return 2 * linear * patches + 2 * merger * tokens + 4 * width * segments


def forward_flops(shape: ModelShape, lengths: Lengths) -> float:
    """One answer together with its prompt and image, forward."""
    tokens = lengths.prompt + lengths.response
    return (
        layer_flops(shape, tokens)
        + attention_flops(shape, 0, tokens)
        + head_flops(shape, lengths.response)
        + vision_flops(shape, lengths.grid)
    )


def group_flops(shape: ModelShape, lengths: Lengths, answers: int) -> float:
    """A group of answers to one prompt, forward, with prompt and image computed once."""
    return (
        layer_flops(shape, lengths.prompt + answers * lengths.response)
        + attention_flops(shape, 0, lengths.prompt)
        + answers * attention_flops(shape, lengths.prompt, lengths.response)
        + head_flops(shape, answers * lengths.response)
        + vision_flops(shape, lengths.grid)
    )


def phase_flops(shape: ModelShape, lengths: Lengths, prompts: int, answers: int) -> dict[str, float]:
    """Needed operations of the phases of one training step.

    Args:
        shape: shape of the model.
        lengths: mean lengths.
        prompts: groups in the batch.
        answers: answers per group.
    """
    forward = prompts * answers * forward_flops(shape, lengths)
    return {
        "generation": prompts * group_flops(shape, lengths, answers),
        "old log-probs": forward,
        "reference": forward,
        "update": 3 * forward,
    }
