"""Turn an image file into the square of pixels that an image encoder expects, like its own (Pillow-based) processor.

Pixels stay uint8 here; the encoder scales them on its device at no cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from omniq_verl.data.images import decode_image

_SHORTEST, _CROP = "shortest_edge", "crop_size"


@dataclass(frozen=True)
class Preprocessing:
    """Input format of an encoder."""

    side: int
    """Side of the square in pixels; 336 for CLIP ViT-L/14-336."""
    crop: bool
    """True (CLIP): resize the shorter side and cut out the centre, so that the ends of a long image are lost.
    False (SigLIP): resize both sides, which distorts a long image."""
    mean: tuple[float, float, float]
    """Mean of red, green and blue in [0, 1]; subtracted before the division by ``std``."""
    std: tuple[float, float, float]
    resample: int = int(Image.Resampling.BICUBIC)
    """Pillow's number of the resampling filter."""

    def __post_init__(self) -> None:
        if not 1 <= self.side <= 4096:
            raise ValueError(f"the side of an encoder's images must be 1 to 4,096 pixels, got {self.side}")
        if self.resample not in tuple(Image.Resampling):
            raise ValueError(f"unknown Pillow filter {self.resample}; known: {list(map(int, Image.Resampling))}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std must have three numbers each, std > 0; got {self.mean} and {self.std}")

    def __call__(self, data: bytes) -> np.ndarray:
        """Pixels ``[side, side, 3]``, uint8, of an image file, decoded with the rules of training."""
        return self.pixels(decode_image(data))

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Pixels ``[side, side, 3]``, uint8, of an RGB image."""
        return np.array(self._square(image))

    def _square(self, image: Image.Image) -> Image.Image:
        if not self.crop:
            return image.resize((self.side, self.side), self.resample)
        width, height = image.size
        shorter = min(width, height)
        # Rounded down, like transformers' get_resize_output_image_size.
        size = (self.side * width // shorter, self.side * height // shorter)
        left, top = ((length - self.side) // 2 for length in size)
        return image.resize(size, self.resample).crop((left, top, left + self.side, top + self.side))


def read_preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """Read the ``preprocessor_config.json`` of CLIP's or SigLIP's processor.

    Raises:
        ValueError: unsupported settings: no resizing, no scaling to [0, 1], or an image that is not square.
    """
    size = {name: value for name, value in dict(settings["size"]).items() if value}
    crop = dict(settings.get(_CROP) or {}) if settings.get("do_center_crop") else {}
    sides = {*size.values(), *(value for value in crop.values() if value)}
    wanted = [settings.get(name, True) for name in ("do_resize", "do_rescale", "do_normalize")]
    squared = (size.keys() <= {_SHORTEST} and crop) or size.keys() <= {"height", "width"}
    if not all(wanted) or len(sides) != 1 or not squared or abs(settings["rescale_factor"] * 255 - 1) > 1e-6:
        raise ValueError(
            f"unsupported image processor: images must be resized to a square, scaled to [0, 1] and normalised; it has"
            f" size {size}, crop {crop}, rescale_factor {settings['rescale_factor']} and"
            f" (resize, rescale, normalize) = {wanted}"
        )
    mean, std = (_of_channels(settings, name) for name in ("image_mean", "image_std"))
    return Preprocessing(int(sides.pop()), _SHORTEST in size, mean, std, int(settings["resample"]))


def _of_channels(settings: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    found = list(map(float, settings[name]))
    if len(found) != 3:
        raise ValueError(f"unsupported image processor: {name} must be three numbers (red, green, blue), not {found}")
    return found[0], found[1], found[2]
