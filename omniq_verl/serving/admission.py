"""Limits how many images a replica processes at once."""

from collections.abc import Iterator
from contextlib import contextmanager


class Full(Exception):
    """The server is at capacity; the client should retry later."""


class Draining(Exception):
    """The server is shutting down: it finishes running requests and accepts no new ones."""


class Admission:
    """Counts the images being processed. Use it in a single event loop only.

    Args:
        size: maximum number of images at once.
    """

    def __init__(self, size: int):
        self._size = size
        self.taken = 0
        self.draining = False

    def check(self, images: int = 1) -> None:
        """Raise an error if this many images cannot be accepted now.

        Raises:
            Full: not enough capacity is left.
            Draining: the server is shutting down.
        """
        if self.draining:
            raise Draining
        if self.taken + images > self._size:
            raise Full

    @contextmanager
    def hold(self, images: int) -> Iterator[None]:
        """Reserve capacity for this many images until the block ends; raises like ``check``."""
        self.check(images)
        self.taken += images
        try:
            yield
        finally:
            self.taken -= images
