"""Image encoders of CLIP and SigLIP (transformers): pixels in, embeddings of unit length out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
    SiglipModel,
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
"""Classes by the whole model's ``model_type``; SigLIP 2 with fixed sizes is also "siglip"."""
TwoTowers = CLIPModel | SiglipModel
"""The whole models."""

_PLAIN = {"dtype": torch.float32, "attn_implementation": "sdpa"}
"""Override what a model's folder asks for: an attention implementation may name code on a hub."""
_FIELDS = (
    *("attention_dropout", "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps"),
    *("num_attention_heads", "num_channels", "num_hidden_layers", "patch_size", "projection_dim", "vision_use_head"),
)
"""Fields of a vision model's configuration that define its architecture; all others are ignored."""
_MOST_LAYERS = 200
"""SigLIP's largest has 40; a file that claims a million would take forever to build."""


class ImageEncoder(nn.Module):
    """Pixels -> embeddings.

    Args:
        kind: of ``VISION``.
        vision: the model.
        preprocessing: how its images are made.
        normalize: to length 1; False for the official release of RALI alone.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, kind: str, vision: PreTrainedModel, preprocessing: Preprocessing, normalize: bool = True):
        super().__init__()
        self.kind, self.vision, self.preprocessing, self.normalize = kind, vision, preprocessing, normalize
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[B, D]``, float32, of length 1 if ``normalize``: the direction is all a contrastive loss sees.

        Args:
            pixels_BHWC: uint8, made by ``preprocessing``.
        """
        pixels = (pixels_BHWC.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        found = self.vision(pixel_values=pixels.to(self.vision.dtype))
        embeddings = found.image_embeds if self.kind == "clip" else found.pooler_output
        return functional.normalize(embeddings.float(), dim=1) if self.normalize else embeddings.float()

    @property
    def size(self) -> int:
        """Size of an embedding (D)."""
        config = self.vision.config
        return config.projection_dim if self.kind == "clip" else config.hidden_size


def open_model(model: str, allow_pickle: bool = False) -> TwoTowers:
    """Load image and text encoder together, in float32 and evaluation mode.

    Args:
        model: Hugging Face folder or name.
        allow_pickle: also load weights that exist only as pickle files.

    Raises:
        ValueError: the model is neither CLIP nor SigLIP, not safe to load, or missing.
    """
    check_model_folder(model, allow_pickle)
    try:
        found, info = AutoModel.from_pretrained(
            expanded(model), use_safetensors=None if allow_pickle else True, output_loading_info=True, **_PLAIN
        )
    except OSError as error:
        raise ValueError(f"{model} cannot be loaded ({str(error).splitlines()[0]})") from error
    if found.config.model_type not in VISION:
        raise ValueError(f"{model} is a {found.config.model_type!r}; supported image encoders: {', '.join(VISION)}")
    check_loaded(model, info)
    return found.eval()


def encoder_of(model: TwoTowers, preprocessing: Preprocessing) -> ImageEncoder:
    """The image encoder of a whole model; shares its weights."""
    kind = model.config.model_type
    if isinstance(model, SiglipModel):
        return ImageEncoder(kind, model.vision_model, preprocessing)
    with torch.device("meta"):  # replaced right below
        config: Any = model.config.vision_config  # declared as a dictionary too, which it is only in the file
        vision = CLIPVisionModelWithProjection(config)
    vision.vision_model, vision.visual_projection = model.vision_model, model.visual_projection
    return ImageEncoder(kind, vision.eval(), preprocessing)


def open_preprocessing(model: str) -> Preprocessing:
    """Read how a model's input images are made.

    Raises:
        ValueError: its processor is missing or needs an unsupported operation.
    """
    try:
        processor = AutoImageProcessor.from_pretrained(expanded(model))
    except OSError as error:
        raise ValueError(f"{model} has no image processor ({str(error).splitlines()[0]})") from error
    return read_preprocessing(processor.to_dict())


def open_encoder(model: str, allow_pickle: bool = False) -> ImageEncoder:
    """Load only a model's image encoder; see ``open_model`` for arguments and errors."""
    return encoder_of(open_model(model, allow_pickle), open_preprocessing(model))


def plain_config(encoder: ImageEncoder) -> dict[str, Any]:
    """A vision model's configuration as plain numbers and strings."""
    config = encoder.vision.config
    return {name: getattr(config, name) for name in _FIELDS if hasattr(config, name)}


def check_vision_config(kind: str, config: Mapping[str, Any], preprocessing: Preprocessing) -> PretrainedConfig:
    """Check and build a configuration written by ``plain_config``.

    Raises:
        ValueError: unknown kind, invalid or additional fields, or another image size than the preprocessing.
    """
    if kind not in VISION:
        raise ValueError(f"unknown encoder {kind!r}; known: {', '.join(VISION)}")
    if unknown := [
        name for name, value in dict(config).items() if name not in _FIELDS or isinstance(value, (dict, list))
    ]:
        raise ValueError(f"unknown encoder settings: {', '.join(map(str, unknown))}")
    try:
        found = VISION[kind][0].from_dict(dict(config))
    except Exception as error:  # transformers' checks of fields raise all kinds of errors
        raise ValueError(f"its {kind} configuration is invalid ({error})") from error
    if not 0 < found.num_hidden_layers <= _MOST_LAYERS:
        raise ValueError(f"an encoder has 1 to {_MOST_LAYERS} layers, not {found.num_hidden_layers}")
    if found.image_size != preprocessing.side:
        raise ValueError(
            f"the encoder takes images of {found.image_size} pixels, but the preprocessing makes {preprocessing.side}"
        )
    return found


class _Savable(Protocol):
    def save_pretrained(self, folder: Path, /) -> Any: ...


def save_whole(folder: Path, *parts: _Savable) -> None:
    """Save model, tokenizer and processor into a folder that appears only when it is complete."""
    with atomic_path(folder) as unfinished:
        for part in parts:
            part.save_pretrained(unfinished)
