"""What a server takes, and what it rejects."""

from dataclasses import dataclass

from omniq_verl.data.images import MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """Of one replica. Whatever is beyond is rejected before a model sees it."""

    body: int = 64 * 2**20
    """Bytes of a request."""
    images: int = 64
    """Of a request; of a comparison its pairs."""
    pixels: int = MAX_PIXELS
    """Of an image."""
    samples: int = 16
    """Answers an image."""
    text: int = 10_000
    """Characters of a text an image was made from."""
    seconds: float = 120.0
    """From a request's arrival to its answer."""
    waiting: int = 512
    """Images under way at once, over all requests; more are told to come again."""

    def __post_init__(self) -> None:
        smallest = min(self.body, self.images, self.pixels, self.samples, self.text, self.seconds)
        if smallest <= 0 or self.waiting < self.images or self.pixels > MAX_PIXELS:
            raise ValueError(
                f"limits are above 0, pixels at most {MAX_PIXELS:,}, and waiting at least what one request may bring"
                f" (images); got {self}"
            )
