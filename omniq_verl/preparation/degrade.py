"""Choose the distortions of an image and apply them; used by ``data_prep/degradations.py``."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from omniq_verl.data.images import BadImage, check_image
from omniq_verl.preparation.distortions import OPERATORS, degrade
from omniq_verl.preparation.readers import draw
from omniq_verl.tasks import SEVERITIES


@dataclass(frozen=True)
class Degradation:
    """A change to one image file; the result depends on these fields only."""

    operator: str | None
    """None for no distortion."""
    level: int
    """1 to 5; 0 without a distortion."""
    seed: int
    """Seed of this image's generator."""
    max_side: int | None = None
    """Pixels to which the longer side is reduced first; None leaves the size unchanged."""

    @property
    def distortion(self) -> str | None:
        """The distortion's class, as named in rows."""
        return self.operator and OPERATORS[self.operator].distortion

    @property
    def severity(self) -> str | None:
        """The level in words."""
        return SEVERITIES[self.level - 1] if self.level else None

    def details(self) -> dict[str, Any]:
        """Values that a row stores to reproduce the change: ``degrade(pixels, operator, level, default_rng(seed))``."""
        drawn = OPERATORS[self.operator].parameters(self.level, self._rng()) if self.operator else {}
        return {"operator": self.operator, "level": self.level, "parameters": drawn, "seed": self.seed}

    def __call__(self, data: bytes) -> bytes:
        """Return the result as PNG. Without a distortion, an image within ``max_side`` keeps its bytes.

        Args:
            data: an image as ``check_image`` returns it.

        Raises:
            BadImage: it cannot be decoded, is too narrow after resizing or too wide for a codec, or the result equals
                that of the level below (a black image that is darkened, or one too plain for a codec to remove more).
        """
        clean = decoded(data)
        image = smaller(clean, self.max_side)
        if self.operator is None and image is clean:
            return data
        if self.operator is not None:
            image = Image.fromarray(self._degraded(np.asarray(image)))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return check_image(buffer.getvalue())

    def _degraded(self, pixels: np.ndarray) -> np.ndarray:
        changed = self._at(self.level, pixels)
        if np.array_equal(changed, pixels):
            raise BadImage(f"{self.operator} at level {self.level} changes nothing of it")
        milder = self.level > 1 and self.distortion != "noise"  # noise always differs from one level to the next
        if milder and np.array_equal(changed, self._at(self.level - 1, pixels)):
            raise BadImage(
                f"{self.operator} at level {self.level} changes no more of it than at level {self.level - 1}"
            )
        return changed

    def _at(self, level: int, pixels: np.ndarray) -> np.ndarray:
        try:
            return pixels if self.operator is None else degrade(pixels, self.operator, level, self._rng())[0]
        except MemoryError:  # this machine's fault, not the image's
            raise
        except Exception as error:  # codecs have their own limits and raise many kinds of errors
            raise BadImage(f"{self.operator} cannot be applied to it ({error})") from None

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def decoded(data: bytes) -> Image.Image:
    """Decode a checked image as RGB.

    Raises:
        BadImage: it cannot be decoded.
    """
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds of errors on broken data
        raise BadImage(f"it does not decode ({error})") from None


def smaller(image: Image.Image, max_side: int | None) -> Image.Image:
    """Reduce the image's longer side to ``max_side`` pixels (Lanczos); return the same object if it already fits."""
    if max_side is None or max(image.size) <= max_side:
        return image
    copy = image.copy()
    copy.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=None)
    return copy


def degradations_of(
    name: str, count: int, seed: int, classes: Sequence[str], levels: Sequence[int], max_side: int | None = None
) -> list[Degradation]:
    """Draw different degradations of an image. They depend only on these arguments, not on other images.

    The classes take turns in an order drawn for the image; null occurs only once. Within a class the levels take turns,
    and within a level its operators. So all classes, and all levels, are equally likely for the first degradation of an
    image, and the first five have five classes. A greater ``count`` adds degradations and keeps the first ones.

    Args:
        name: the image's name.
        count: how many to draw; fewer are returned if there are not enough.
        seed: seed of the draws.
        classes: members of ``DISTORTIONS`` and ``null``.
        levels: members of 1 to 5.
        max_side: see ``Degradation``.
    """
    cells = _take_turns([_cells(kind, levels, seed, name) for kind in _shuffled(classes, seed, name)])
    return [
        Degradation(operator, level, int(draw(seed, name, "generator", str(operator), str(level)) * 2**53), max_side)
        for operator, level in islice(cells, count)
    ]


def how_many(classes: Sequence[str], levels: Sequence[int]) -> int:
    """Return the number of different degradations."""
    return sum(1 for kind in classes for _ in _cells(kind, levels, 0, ""))


def _cells(kind: str, levels: Sequence[int], seed: int, name: str) -> Iterator[tuple[str | None, int]]:
    """Yield the operators and levels of a class, in the order drawn for an image."""
    if kind == "null":
        yield None, 0
        return
    decks = [_of_level(kind, level, seed, name) for level in _shuffled(levels, seed, name, kind)]
    yield from _take_turns(decks)


def _of_level(kind: str, level: int, seed: int, name: str) -> Iterator[tuple[str, int]]:
    able = [key for key, operator in OPERATORS.items() if operator.distortion == kind and level in operator.levels]
    for key in _shuffled(able, seed, name, kind, str(level)):
        yield key, level


def _shuffled(items: Sequence[Any], seed: int, *key: str) -> list[Any]:
    return sorted(items, key=lambda item: draw(seed, *key, str(item)))


def _take_turns(decks: Sequence[Iterator[Any]]) -> Iterator[Any]:
    """Yield one item of each deck in turn until all are empty; draws no more than requested."""
    left = list(decks)
    while left:
        for deck in tuple(left):
            try:
                yield next(deck)
            except StopIteration:
                left.remove(deck)
