"""How large an image may be before a model sees it: one rule for preparation, evaluation, scoring and serving.

A data set has the rule of its preparation (``--short-side``, ``--max-pixels``), which the rows then hold. A model has
the ``max_pixels`` of its image processor, which training, vLLM and transformers apply and trained models inherit. An
engine can be given a rule for images that no preparation has seen.
"""

import io
import math
from dataclasses import dataclass

from PIL import Image

from omniq_verl.data.images import decode_image, encode_png

PATCH = 28
"""Pixels of a side of what Qwen2.5-VL counts as one token: patches of 14, merged two by two."""


SHORTEST = 11
"""Pixels of a side, as in ``omniq_verl.data.images.check_size``."""


@dataclass(frozen=True)
class ImageSize:
    """Bounds of an image's size. Images are only made smaller, never larger, and keep their shape.

    No side becomes shorter than 11 pixels, below which Qwen2-VL's image processor fails.

    Raises:
        ValueError: the short side is below 28 pixels, or the number of pixels below 28 x 28.
    """

    short_side: int | None = None
    """Longest length of the shorter side, in pixels."""
    max_pixels: int | None = None
    """Most pixels."""

    def __post_init__(self) -> None:
        bounds = (("short side", self.short_side, PATCH), ("number of pixels", self.max_pixels, PATCH**2))
        for name, value, least in bounds:
            if value is not None and value < least:
                raise ValueError(f"a bound of {value} for the {name} leaves no image. Fix: give at least {least}")

    def __bool__(self) -> bool:
        return self.short_side is not None or self.max_pixels is not None

    def target(self, width: int, height: int) -> tuple[int, int]:
        """The size of an image of so many pixels under these bounds; its own where it keeps them."""
        ratio = 1.0
        if self.short_side is not None:
            ratio = min(ratio, self.short_side / min(width, height))
        if self.max_pixels is not None:
            ratio = min(ratio, math.sqrt(self.max_pixels / (width * height)))
        if ratio == 1.0:
            return width, height
        # Downwards for a bound on the area, as rounding might pass it; the short side is met exactly.
        sides = (max(min(side, SHORTEST), math.floor(side * ratio + 1e-6)) for side in (width, height))
        return next(sides), next(sides)

    def fit(self, image: Image.Image) -> Image.Image:
        """The image within the bounds: the very same object where it keeps them."""
        size = self.target(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)

    def shrink(self, data: bytes) -> tuple[bytes, tuple[int, int] | None]:
        """An image file within the bounds.

        Args:
            data: as ``omniq_verl.data.images.check_image`` returns it.

        Returns:
            The very same bytes and None, or a PNG and the former width and height.
        """
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
        if self.target(*size) == size:
            return data, None
        return encode_png(self.fit(decode_image(data))), size


UNBOUNDED = ImageSize()
"""No bounds."""


def image_tokens(width: int, height: int) -> int:
    """Tokens of an image to Qwen2.5-VL, where its processor's own bounds do not change it: sides are rounded to 28s."""
    return max(1, round(width / PATCH)) * max(1, round(height / PATCH))
