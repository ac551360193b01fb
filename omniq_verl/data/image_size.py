"""How large an image may be before a model sees it: one rule for preparation, evaluation, scoring and serving.

A data set is resized when it is prepared (``--short-side``, ``--max-pixels``), and its rows record the rule. A model
has the ``max_pixels`` of its image processor; training, vLLM and transformers apply it, and trained models inherit it.
An engine can be given a rule for images that were never prepared.
"""

import io
import math
from dataclasses import dataclass

from PIL import Image

from omniq_verl.data.images import decode_image, encode_png

PATCH = 28
"""Side in pixels of the square that is one token in Qwen2.5-VL: patches of 14, merged two by two."""


SHORTEST = 11
"""Shortest side in pixels, as in ``omniq_verl.data.images.check_size``."""


@dataclass(frozen=True)
class ImageSize:
    """Bounds of an image's size. Images are only made smaller, never larger, and keep their aspect ratio.

    No side becomes shorter than 11 pixels, below which Qwen2-VL's image processor fails.

    Raises:
        ValueError: the short side is below 28 pixels, or the number of pixels below 28 x 28.
    """

    short_side: int | None = None
    """Maximum length of the shorter side, in pixels."""
    max_pixels: int | None = None
    """Maximum number of pixels."""

    def __post_init__(self) -> None:
        bounds = (("short side", self.short_side, PATCH), ("number of pixels", self.max_pixels, PATCH**2))
        for name, value, least in bounds:
            if value is not None and value < least:
                raise ValueError(f"a bound of {value} for the {name} leaves no image. Fix: give at least {least}")

    def __bool__(self) -> bool:
        return self.short_side is not None or self.max_pixels is not None

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to which an image of this size is reduced; the same size if it is within the bounds."""
        ratio = 1.0
        if self.short_side is not None:
            ratio = min(ratio, self.short_side / min(width, height))
        if self.max_pixels is not None:
            ratio = min(ratio, math.sqrt(self.max_pixels / (width * height)))
        if ratio == 1.0:
            return width, height
        # Round down, because rounding up might exceed the bound on the area; the short side is met exactly.
        sides = (max(min(side, SHORTEST), math.floor(side * ratio + 1e-6)) for side in (width, height))
        return next(sides), next(sides)

    def fit(self, image: Image.Image) -> Image.Image:
        """Reduce the image to the bounds; returns the same object if it is within them."""
        size = self.target(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)

    def shrink(self, data: bytes) -> tuple[bytes, tuple[int, int] | None]:
        """Reduce an image file to the bounds.

        Args:
            data: a file's bytes, as ``omniq_verl.data.images.check_image`` returns them.

        Returns:
            The same bytes and None, or a PNG and the former width and height.
        """
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
        if self.target(*size) == size:
            return data, None
        return encode_png(self.fit(decode_image(data))), size


UNBOUNDED = ImageSize()
"""No bounds."""


def image_tokens(width: int, height: int) -> int:
    """Return the number of Qwen2.5-VL's tokens for an image within its processor's bounds: sides are rounded to 28s."""
    return max(1, round(width / PATCH)) * max(1, round(height / PATCH))
