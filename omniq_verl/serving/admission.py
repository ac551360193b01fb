"""How many images may be under way, and whether more are let in."""

from collections.abc import Iterator
from contextlib import contextmanager


class Full(Exception):
    """No room at present; later there will be."""


class Draining(Exception):
    """What is under way is finished, and nothing else begun."""


class Admission:
    """Room for images, of one event loop.

    Args:
        size: images at once.
    """

    def __init__(self, size: int):
        self._size = size
        self.taken = 0
        self.draining = False

    def check(self, images: int = 1) -> None:
        """Is there room for this many?

        Raises:
            Full: there is none.
            Draining: nothing is begun any more.
        """
        if self.draining:
            raise Draining
        if self.taken + images > self._size:
            raise Full

    @contextmanager
    def hold(self, images: int) -> Iterator[None]:
        """Room for this many, given back at the end; raises as ``check`` does."""
        self.check(images)
        self.taken += images
        try:
            yield
        finally:
            self.taken -= images
