"""Warnings of Pillow, silenced while any thread reads an image.

``warnings.catch_warnings`` alone is not for threads: of two that overlap, the last puts the first one's filters back,
and they stay for good.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import Image


class _Shared:
    """The filters of all threads that are within ``quiet``: set by the first, and put back by the last."""

    def __init__(self) -> None:
        self._lock, self._depth = Lock(), 0

    def enter(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")  # of odd tags, which say nothing about the picture
                warnings.simplefilter("error", Image.DecompressionBombWarning)
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._caught.__exit__(None, None, None)


_shared = _Shared()


@contextmanager
def quiet() -> Iterator[None]:
    """No warning is shown within; an image of too many pixels is an error."""
    _shared.enter()
    try:
        yield
    finally:
        _shared.leave()
