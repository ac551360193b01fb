"""The image encoder of CLIP or SigLIP, by transformers: pixels in, embeddings of length 1 out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from omniq_verl.data.files import atomic_path
from omniq_verl.generation.model_folder import check_model_folder, expanded
from omniq_verl.generation.weights import check_loaded
from omniq_verl.rali.preprocessing import Preprocessing, read_preprocessing

VISION: dict[str, tuple[type[PretrainedConfig], type[PreTrainedModel]]] = {
    "clip": (CLIPVisionConfig, CLIPVisionModelWithProjection),
    "siglip": (SiglipVisionConfig, SiglipVisionModel),
}
"""By the ``model_type`` of the whole model; the SigLIP 2 of fixed sizes is a "siglip" as well."""

_PLAIN = {"dtype": torch.float32, "attn_implementation": "sdpa"}
"""Whatever a model's folder asks for: an attention may be the name of code at a hub."""
_FIELDS = (
    *("attention_dropout", "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps"),
    *("num_attention_heads", "num_channels", "num_hidden_layers", "patch_size", "projection_dim", "vision_use_head"),
)
"""Of a vision model's configuration: what its architecture depends on, and nothing else."""
_MOST_LAYERS = 200
"""SigLIP's largest has 40; a file that claims a million would keep us building them."""


class ImageEncoder(nn.Module):
    """Pixels -> embeddings.

    Args:
        kind: of ``VISION``.
        vision: the model.
        preprocessing: how its images are made.
    """

    def __init__(self, kind: str, vision: PreTrainedModel, preprocessing: Preprocessing):
        super().__init__()
        self.kind, self.vision, self.preprocessing = kind, vision, preprocessing
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[B, D]``, float32, of length 1: the direction is all a contrastive loss sees.

        Args:
            pixels_BHWC: uint8, as ``preprocessing`` makes them.
        """
        pixels = (pixels_BHWC.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        found = self.vision(pixel_values=pixels.to(self.vision.dtype))
        embeddings = found.image_embeds if self.kind == "clip" else found.pooler_output
        return functional.normalize(embeddings.float(), dim=1)

    @property
    def size(self) -> int:
        """Numbers of an embedding (D)."""
        config = self.vision.config
        return config.projection_dim if self.kind == "clip" else config.hidden_size


def open_model(model: str, allow_pickle: bool = False) -> PreTrainedModel:
    """Image and text encoder together, in float32, in evaluation mode.

    Args:
        model: Hugging Face folder or name.
        allow_pickle: load weights that are pickle files only, too.

    Raises:
        ValueError: it is no CLIP and no SigLIP, not safe to open, or not there.
    """
    check_model_folder(model, allow_pickle)
    try:
        found, info = AutoModel.from_pretrained(
            expanded(model), use_safetensors=None if allow_pickle else True, output_loading_info=True, **_PLAIN
        )
    except OSError as error:
        raise ValueError(f"{model} cannot be opened ({str(error).splitlines()[0]})") from error
    if found.config.model_type not in VISION:
        raise ValueError(f"{model} is a {found.config.model_type!r}; image encoders are those of {', '.join(VISION)}")
    check_loaded(model, info)
    return found.eval()


def encoder_of(model: PreTrainedModel, preprocessing: Preprocessing) -> ImageEncoder:
    """The image encoder of a whole model; the weights are the same, not copies."""
    kind = model.config.model_type
    if kind == "siglip":
        return ImageEncoder(kind, model.vision_model, preprocessing)
    with torch.device("meta"):  # weights that are replaced at once
        vision = CLIPVisionModelWithProjection(model.config.vision_config)
    vision.vision_model, vision.visual_projection = model.vision_model, model.visual_projection
    return ImageEncoder(kind, vision.eval(), preprocessing)


def open_preprocessing(model: str) -> Preprocessing:
    """How a model's images are made.

    Raises:
        ValueError: its processor is not there, or does what is not supported.
    """
    try:
        processor = AutoImageProcessor.from_pretrained(expanded(model))
    except OSError as error:
        raise ValueError(f"{model} has no image processor ({str(error).splitlines()[0]})") from error
    return read_preprocessing(processor.to_dict())


def open_encoder(model: str, allow_pickle: bool = False) -> ImageEncoder:
    """A model's image encoder alone; arguments and errors as of ``open_model``."""
    return encoder_of(open_model(model, allow_pickle), open_preprocessing(model))


def plain_config(encoder: ImageEncoder) -> dict[str, Any]:
    """A vision model's configuration as plain numbers and words."""
    config = encoder.vision.config
    return {name: getattr(config, name) for name in _FIELDS if hasattr(config, name)}


def check_vision_config(kind: str, config: Mapping[str, Any], preprocessing: Preprocessing) -> PretrainedConfig:
    """The configuration of ``plain_config``.

    Raises:
        ValueError: there is no such kind, the configuration is none or has more in it, or its images have another size.
    """
    if kind not in VISION:
        raise ValueError(f"unknown encoder {kind!r}; known: {', '.join(VISION)}")
    if unknown := [
        name for name, value in dict(config).items() if name not in _FIELDS or isinstance(value, (dict, list))
    ]:
        raise ValueError(f"unknown settings of an encoder: {', '.join(map(str, unknown))}")
    try:
        found = VISION[kind][0].from_dict(dict(config))
    except Exception as error:  # transformers' checks of fields raise errors of every kind
        raise ValueError(f"it has no sound configuration of a {kind} ({error})") from error
    if not 0 < found.num_hidden_layers <= _MOST_LAYERS:
        raise ValueError(f"no encoder has {found.num_hidden_layers} layers")
    if found.image_size != preprocessing.side:
        raise ValueError(
            f"the encoder takes images of {found.image_size} pixels, but they are made {preprocessing.side}"
        )
    return found


def save_whole(folder: Path, *parts: object) -> None:
    """Save model, tokenizer and processor into a folder that appears only when it is complete."""
    with atomic_path(folder) as unfinished:
        for part in parts:
            part.save_pretrained(unfinished)
