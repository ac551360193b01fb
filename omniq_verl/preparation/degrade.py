"""Which distortion an image gets, and the file that becomes of it: what `data_prep/degradations.py` stands on."""

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
    """What becomes of one image file's bytes; its fields are all that depends on."""

    operator: str | None
    """None: no distortion."""
    level: int
    """1 to 5; 0 without a distortion."""
    seed: int
    """Of this image's generator."""
    max_side: int | None = None
    """Pixels the longer side is brought down to before; None: as large as it is."""

    @property
    def distortion(self) -> str | None:
        """Its class, as rows name it."""
        return self.operator and OPERATORS[self.operator].distortion

    @property
    def severity(self) -> str | None:
        """Its level in words."""
        return SEVERITIES[self.level - 1] if self.level else None

    def details(self) -> dict[str, Any]:
        """What a row has to keep to be made again: ``degrade(pixels, operator, level, default_rng(seed))``."""
        drawn = OPERATORS[self.operator].parameters(self.level, self._rng()) if self.operator else {}
        return {"operator": self.operator, "level": self.level, "parameters": drawn, "seed": self.seed}

    def __call__(self, data: bytes) -> bytes:
        """The bytes of a PNG; without a distortion the very same bytes, unless the image is larger than ``max_side``.

        Args:
            data: an image as ``check_image`` returns it.

        Raises:
            BadImage: it does not decode, is too narrow once it is smaller, too wide for a codec, or the same as at the
                level before: a black image that is darkened, or one too plain for a codec to leave more out.
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
        milder = self.level > 1 and self.distortion != "noise"  # of which more is never the same
        if milder and np.array_equal(changed, self._at(self.level - 1, pixels)):
            raise BadImage(
                f"{self.operator} at level {self.level} changes no more of it than at level {self.level - 1}"
            )
        return changed

    def _at(self, level: int, pixels: np.ndarray) -> np.ndarray:
        try:
            return degrade(pixels, self.operator, level, self._rng())[0]
        except MemoryError:  # of this machine, not of the image
            raise
        except Exception as error:  # codecs have limits of their own, and errors of every kind
            raise BadImage(f"{self.operator} cannot be applied to it ({error})") from None

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def decoded(data: bytes) -> Image.Image:
    """A checked image as RGB.

    Raises:
        BadImage: it does not decode.
    """
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # Pillow's decoders raise errors of every kind on broken data
        raise BadImage(f"it does not decode ({error})") from None


def smaller(image: Image.Image, max_side: int | None) -> Image.Image:
    """The image with its longer side brought down to so many pixels (Lanczos); the very same object where it fits."""
    if max_side is None or max(image.size) <= max_side:
        return image
    copy = image.copy()
    copy.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=None)
    return copy


def degradations_of(
    name: str, count: int, seed: int, classes: Sequence[str], levels: Sequence[int], max_side: int | None = None
) -> list[Degradation]:
    """Different degradations of an image, which depend on these arguments alone: not on the other images.

    The classes take turns in an order drawn for the image, null only once. Within a class the levels take turns, and
    each level's operators, likewise. So the first of an image is of each class, and of each level, with the same
    chance, and five of an image are of five classes. With a greater ``count`` the first ones stay what they are.

    Args:
        name: of the image.
        count: how many; fewer come where there are no more.
        seed: of the draws.
        classes: of ``DISTORTIONS`` and ``null``.
        levels: of 1 to 5.
        max_side: see ``Degradation``.
    """
    cells = _take_turns([_cells(kind, levels, seed, name) for kind in _shuffled(classes, seed, name)])
    return [
        Degradation(operator, level, int(draw(seed, name, "generator", str(operator), str(level)) * 2**53), max_side)
        for operator, level in islice(cells, count)
    ]


def how_many(classes: Sequence[str], levels: Sequence[int]) -> int:
    """How many different degradations there are."""
    return sum(1 for kind in classes for _ in _cells(kind, levels, 0, ""))


def _cells(kind: str, levels: Sequence[int], seed: int, name: str) -> Iterator[tuple[str | None, int]]:
    """Operators and levels of a class, in the order drawn for an image."""
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
    """One of each deck that still has one, again and again; no more is drawn than is asked for."""
    left = list(decks)
    while left:
        for deck in tuple(left):
            try:
                yield next(deck)
            except StopIteration:
                left.remove(deck)
