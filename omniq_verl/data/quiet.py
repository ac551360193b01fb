"""Silence Pillow's warnings while any thread reads an image.

``warnings.catch_warnings`` alone is not thread-safe: if two blocks overlap, the last one restores the filters of the
first, which then stay in effect.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import Image


class _Shared:
    """The filters of all threads inside ``quiet``: the first thread sets them, the last one restores the old ones."""

    def __init__(self) -> None:
        self._lock, self._depth = Lock(), 0

    def enter(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")  # odd tags do not affect the picture
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
    """Suppress warnings in this block; an image with too many pixels raises an error."""
    _shared.enter()
    try:
        yield
    finally:
        _shared.leave()
