"""What the scripts of the technical data sets share: label files of DeQA-Score and of pyiqa, and splits.

DeQA-Score (https://huggingface.co/datasets/zhiyuanyou/Data-DeQA-Score) publishes one JSON list per data set and split;
Q-Insight and RALI train and test on these. pyiqa publishes one CSV per data set beside the archives many download.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from omniq_verl.data.command import Request
from omniq_verl.data.label_map import LabelMap
from omniq_verl.data.prepare import Item
from omniq_verl.data.reading import draw, number, read_records
from omniq_verl.data.tables import LabelFileError, read_csv

SPLITS = ("train", "val", "test")
NORMALISED = LabelMap(1.0, 5.0, "`gt_score_norm` of DeQA-Score's meta files: on [1, 5] already, higher is better")
OPTIONS = ("split", "shares", "seed", "deqa_meta")
"""Names of what ``add_options`` adds, for the card."""

Reader = Callable[[Request], Iterator[Item]]


def add_options(parser: ArgumentParser, *splits: str) -> None:
    """The options of a data set without an official split.

    Args:
        parser: of the script.
        splits: ways to split it, beside everything for testing.
    """
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--split", choices=("test", *splits), default="test", help="default: all of it is for testing")
    add_deqa_option(either)
    parser.add_argument("--shares", type=_shares, default=(8, 0, 2), help="train:val:test (default: 8:0:2)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")


def add_deqa_option(group: Any) -> None:
    """``--deqa-meta``, into the group of what it stands instead of."""
    said = "take labels and splits from these files of DeQA-Score (train_*.json, test_*.json)"
    group.add_argument("--deqa-meta", nargs="+", metavar="FILE", help=said)


def _shares(text: str) -> tuple[int, ...]:
    words = text.split(":")
    if len(words) != 3 or not all(word.isdecimal() for word in words) or not any(map(int, words)):
        raise ArgumentTypeError(f"{text!r} is not of the form 8:0:2")
    return tuple(map(int, words))


def reader(read_labels: Reader, fixed: Mapping[str, Mapping[str, str]] | None = None) -> Reader:
    """A script's ``read``: the items of DeQA-Score's files if these are asked for, else the script's own, split.

    Args:
        read_labels: reads the owners' labels, or pyiqa's.
        fixed: splits by name: references without their ending, and the side of each that is not for training.
    """

    def read(request: Request) -> Iterator[Item]:
        options = request.options
        if options.deqa_meta:
            return read_deqa(options.deqa_meta)
        items = read_labels(request)
        if fixed and options.split in fixed:
            sides = fixed[options.split]
            return (replace(item, split=sides.get(_content(item).partition(".")[0], "train")) for item in items)
        return split_items(items, options)

    return read


def map_of(own: LabelMap) -> Callable[[Namespace], LabelMap]:
    """The label map that goes with ``reader``."""
    return lambda options: NORMALISED if options.deqa_meta else own


# Labels


def labelled(name: Any, score: Any, split: str = "test", **details: Any) -> Item:
    """An item whose score is checked; details that are None are left out."""
    value = number(score)
    kept = {key: detail for key, detail in details.items() if detail is not None}
    fault = f"its score {score!r} is no number" if value is None else None
    return Item(str(name or ""), split, value, details=kept, fault=fault)


def is_pyiqa(path: Path) -> bool:
    """Whether a label file has the name of one of pyiqa's."""
    return path.name.lower().startswith("meta_info")


def read_pyiqa(path: Path, references: bool = False) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Image, score and whole row of pyiqa's label file, which begins with these two.

    Columns are named differently from one data set and one version to the next, so pyiqa itself goes by their place.

    Args:
        path: of the file.
        references: whether the name of the reference image precedes them.

    Raises:
        LabelFileError: there are not as many columns.
    """
    for row in read_csv(path, []):
        cells = list(row.values())[int(references) :]
        if len(cells) < 2:
            raise LabelFileError(f"{path}: it has {len(row)} columns, too few. Mend: download it again from its owners")
        yield cells[0], cells[1], row


def read_deqa(paths: Iterable[str]) -> Iterator[Item]:
    """The items of DeQA-Score's meta files, each for the split its name begins with.

    The score is ``gt_score_norm``: the one Q-Insight trains on, and the same way round for every data set.

    Raises:
        LabelFileError: a file's name tells no split, or it is no list of records.
    """
    for path in map(Path, paths):
        split = path.name.partition("_")[0]
        if split not in SPLITS:
            raise LabelFileError(f"{path}: its name tells no split. Mend: call it train_..., val_... or test_...json")
        for record in read_records(path, ["image"]):
            # Its folders are those of DeQA-Score's own arrangement; within a data set the name alone is enough.
            name = PurePosixPath(record["image"]).name
            given = {"gt_score": "gt_score", "standard_deviation": "std", "standard_deviation_norm": "std_norm"}
            details = {detail: number(record.get(key)) for detail, key in given.items()}
            yield labelled(name, record.get("gt_score_norm"), split, **details)


# Splits


def split_items(items: Iterable[Item], options: Namespace) -> Iterator[Item]:
    """The items under the split asked for: all for testing, or shares drawn by seed.

    What is drawn are references where the items have them, so that no content is on two sides, else images.
    """
    if options.split == "test":
        yield from (replace(item, split="test") for item in items)
        return
    items = list(items)
    sides = _sides({_content(item) for item in items if item.fault is None}, options.shares, options.seed)
    yield from (replace(item, split=sides.get(_content(item), "test")) for item in items)


def _content(item: Item) -> str:
    return item.details.get("reference", item.name).lower()


def _sides(contents: set[str], shares: Sequence[int], seed: int) -> dict[str, str]:
    ordered = sorted(contents, key=lambda content: (draw(seed, content), content))
    # The ends are rounded, not the sizes, so that the sizes add up and a share of 0 stays empty.
    ends = [round(len(ordered) * sum(shares[: place + 1]) / sum(shares)) for place in range(len(shares))]
    return {content: SPLITS[sum(place >= end for end in ends)] for place, content in enumerate(ordered)}
