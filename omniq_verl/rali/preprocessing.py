"""An image file -> the square of pixels an image encoder is shown, as its own processor makes it (Pillow's way).

Pixels stay whole numbers here: the encoder scales them on its device, which costs it nothing.
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
    """How an encoder wants its images."""

    side: int
    """Pixels of the square; 336 for CLIP ViT-L/14-336."""
    crop: bool
    """CLIP: the shorter side is resized, and the middle cut out, so that the ends of a long image are not seen.
    False (SigLIP): both sides are resized, and a long image is squeezed."""
    mean: tuple[float, float, float]
    """Of red, green and blue in [0, 1]; taken off before the division by ``std``."""
    std: tuple[float, float, float]
    resample: int = int(Image.Resampling.BICUBIC)
    """Pillow's number of the filter."""

    def __post_init__(self) -> None:
        if not 1 <= self.side <= 4096:
            raise ValueError(f"an encoder's images have sides of 1 to 4,096 pixels, got {self.side}")
        if self.resample not in tuple(Image.Resampling):
            raise ValueError(f"no filter of Pillow's: {self.resample}; known: {list(map(int, Image.Resampling))}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std are three numbers each, std above 0; got {self.mean} and {self.std}")

    def __call__(self, data: bytes) -> np.ndarray:
        """Pixels ``[side, side, 3]``, uint8, of a file, after the image rules of training."""
        return self.pixels(decode_image(data))

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The same of a picture in RGB."""
        return np.array(self._square(image))

    def _square(self, image: Image.Image) -> Image.Image:
        if not self.crop:
            return image.resize((self.side, self.side), self.resample)
        width, height = image.size
        shorter = min(width, height)
        # Cut down, as transformers' get_resize_output_image_size does.
        size = tuple(self.side * length // shorter for length in (width, height))
        left, top = ((length - self.side) // 2 for length in size)
        return image.resize(size, self.resample).crop((left, top, left + self.side, top + self.side))


def read_preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """From the ``preprocessor_config.json`` of CLIP's or SigLIP's processor.

    Raises:
        ValueError: it asks for what is not supported: no resizing, no scaling to [0, 1], a picture that is no square.
    """
    size = {name: value for name, value in dict(settings["size"]).items() if value}
    crop = dict(settings.get(_CROP) or {}) if settings.get("do_center_crop") else {}
    sides = {*size.values(), *(value for value in crop.values() if value)}
    wanted = [settings.get(name, True) for name in ("do_resize", "do_rescale", "do_normalize")]
    squared = (size.keys() <= {_SHORTEST} and crop) or size.keys() <= {"height", "width"}
    if not all(wanted) or len(sides) != 1 or not squared or abs(settings["rescale_factor"] * 255 - 1) > 1e-6:
        raise ValueError(
            f"images are resized to a square, scaled to [0, 1] and normalised; the processor has size {size}, crop"
            f" {crop}, rescale_factor {settings['rescale_factor']} and {wanted} of resizing, scaling, normalising"
        )
    mean, std = (tuple(map(float, settings[name])) for name in ("image_mean", "image_std"))
    return Preprocessing(int(sides.pop()), _SHORTEST in size, mean, std, int(settings["resample"]))
