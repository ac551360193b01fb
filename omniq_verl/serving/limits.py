"""Limits of a server."""

import math
from dataclasses import dataclass

from omniq_verl.data.images import MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """Limits of one replica. Requests beyond them are rejected before they reach a model."""

    body: int = 64 * 2**20
    """Maximum size of a request, in bytes."""
    images: int = 64
    """Maximum number of images per request, or of pairs in a comparison request."""
    pixels: int = MAX_PIXELS
    """Maximum number of pixels per image."""
    samples: int = 16
    """Maximum number of answers per image."""
    text: int = 10_000
    """Maximum length of a prompt (the text an image was generated from), in characters."""
    seconds: float = 120.0
    """Time limit from a request's arrival to its answer, in seconds."""
    waiting: int = 512
    """Maximum number of images in progress over all requests. Requests beyond it get 429."""

    def __post_init__(self) -> None:
        smallest = min(self.body, self.images, self.pixels, self.samples, self.text, self.seconds)
        if smallest <= 0 or not math.isfinite(self.seconds) or self.waiting < self.images or self.pixels > MAX_PIXELS:
            raise ValueError(
                f"limits must be > 0, seconds finite, pixels <= {MAX_PIXELS:,}, and waiting >= images; got {self}"
            )
