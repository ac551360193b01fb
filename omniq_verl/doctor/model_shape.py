"""Sizes of a language model with a vision tower, read from its ``config.json``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision tower."""

    layers: int
    hidden: int
    intermediate: int
    patch_values: int
    """Numbers in one patch: channels x frames x height x width (3 x 2 x 14 x 14 = 1,176 for Qwen2.5-VL)."""
    patches_per_token: int
    """Patches that are merged into one image token (4)."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model."""

    parameters: int
    """Number of all parameters, including the vision tower's."""
    layers: int
    hidden: int
    vocabulary: int
    intermediate: int
    key_value: int
    """Width of the keys: number of key heads x size of a head."""
    vision: VisionShape | None = None
    tied: bool = False
    """Whether the output layer shares the embedding's weights."""

    @property
    def patches_per_token(self) -> int:
        """Patches behind one image token; 0 for a model without a vision tower."""
        return self.vision.patches_per_token if self.vision else 0

    @property
    def patch_values(self) -> int:
        """Numbers in one patch; 0 for a model without a vision tower."""
        return self.vision.patch_values if self.vision else 0


def read_shape(folder: Path, parameters: int) -> Shape | None:
    """Read a model's sizes from the ``config.json`` in its folder; None if a size is missing.

    Args:
        folder: the model's folder.
        parameters: number of its parameters (see ``inspect_model``).
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        text = {**config, **(config.get("text_config") or {})}
        heads = text["num_attention_heads"]
        head = text.get("head_dim") or text["hidden_size"] // heads
        return Shape(
            parameters=parameters,
            layers=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            vocabulary=text["vocab_size"],
            intermediate=text["intermediate_size"],
            key_value=(text.get("num_key_value_heads") or heads) * head,
            vision=_read_vision(config["vision_config"]) if config.get("vision_config") else None,
            tied=bool(config.get("tie_word_embeddings")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None


def _read_vision(config: dict[str, Any]) -> VisionShape:
    # Qwen2-VL calls the width "embed_dim" and uses "hidden_size" for the width of its output.
    hidden = config.get("embed_dim") or config["hidden_size"]
    channels = config.get("in_channels") or config.get("in_chans") or 3
    return VisionShape(
        layers=config["depth"],
        hidden=hidden,
        intermediate=config.get("intermediate_size") or int(hidden * config.get("mlp_ratio", 4)),
        patch_values=channels * config.get("temporal_patch_size", 2) * config["patch_size"] ** 2,
        patches_per_token=config.get("spatial_merge_size", 2) ** 2,
    )
