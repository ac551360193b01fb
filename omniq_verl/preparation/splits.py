"""Splits for data sets without an official one: all rows for testing, or shares drawn with a seed."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from omniq_verl.data.names import name_key
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.readers import draw

SPLITS = ("train", "val", "test")


def add_draw_options(parser: ArgumentParser) -> None:
    """Add ``--shares`` and ``--seed``."""
    parser.add_argument("--shares", type=_shares, default=(8, 0, 2), help="train:val:test (default: 8:0:2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")


def _shares(text: str) -> tuple[int, ...]:
    words = text.split(":")
    if len(words) != 3 or not all(word.isdecimal() for word in words) or not any(map(int, words)):
        raise ArgumentTypeError(f"{text!r} is not of the form 8:0:2")
    return tuple(map(int, words))


def split_items(items: Iterable[Item], options: Namespace) -> Iterator[Item]:
    """Assign the requested split to the items: all for testing, or shares drawn with a seed.

    If the items have references, references are drawn, so all images of one content are in the same split. Otherwise
    images are drawn.
    """
    if options.split == "test":
        yield from (replace(item, split="test") for item in items)
        return
    items = list(items)
    sides = _sides({content_of(item) for item in items if item.fault is None}, options.shares, options.seed)
    yield from (replace(item, split=sides.get(content_of(item), "test")) for item in items)


def content_of(item: Item) -> str:
    """Return what must be in one split only: the reference if there is one, otherwise the image."""
    return name_key(item.details.get("reference", item.name))


def _sides(contents: set[str], shares: Sequence[int], seed: int) -> dict[str, str]:
    ordered = sorted(contents, key=lambda content: (draw(seed, content), content))
    # Rounding the ends instead of the sizes makes the sizes add up, and keeps a share of 0 empty.
    ends = [round(len(ordered) * sum(shares[: ref + 1]) / sum(shares)) for ref in range(len(shares))]
    return {content: SPLITS[sum(ref >= end for end in ends)] for ref, content in enumerate(ordered)}
