"""Read DeQA-Score's label files, and add the options for them to the scripts of technical data sets.

DeQA-Score (https://huggingface.co/datasets/zhiyuanyou/Data-DeQA-Score) publishes one JSON list per data set and split.
Q-Insight and RALI train and test on these.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import Request
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.readers import labelled, number, read_records
from omniq_verl.preparation.splits import SPLITS, add_draw_options, content_of, split_items

NORMALISED = LabelMap(1.0, 5.0, "`gt_score_norm` of DeQA-Score's meta files: on [1, 5] already, higher is better")
OPTIONS = ("split", "shares", "seed", "deqa_meta")
"""Names of the options that ``add_options`` adds, for the card."""

Reader = Callable[[Request], Iterator[Item]]


def add_options(parser: ArgumentParser, *splits: str) -> None:
    """Add the options of a data set without an official split.

    Args:
        parser: the script's parser.
        splits: ways to split it, in addition to using everything for testing.
    """
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--split", choices=("test", *splits), default="test", help="default: all rows are for testing")
    add_deqa_option(either)
    add_draw_options(parser)


def add_deqa_option(group: Any) -> None:
    """Add ``--deqa-meta`` to the group of options that it replaces."""
    text = "take labels and splits from these files of DeQA-Score (train_*.json, test_*.json)"
    group.add_argument("--deqa-meta", nargs="+", metavar="FILE", help=text)


def reader(read_labels: Reader, fixed: Mapping[str, Mapping[str, str]] | None = None) -> Reader:
    """Return a script's ``read``. It yields the items of DeQA-Score's files if requested, else the script's own, split.

    Args:
        read_labels: reads the owners' labels, or pyiqa's.
        fixed: splits by name; each maps references (without file suffix) to a split. All others are for training.
    """

    def read(request: Request) -> Iterator[Item]:
        options = request.options
        if options.deqa_meta:
            return read_deqa(options.deqa_meta)
        items = read_labels(request)
        if fixed and options.split in fixed:
            sides = fixed[options.split]
            return (replace(item, split=sides.get(content_of(item).partition(".")[0], "train")) for item in items)
        return split_items(items, options)

    return read


def map_of(own: LabelMap) -> Callable[[Namespace], LabelMap]:
    """Return the label map for ``reader``."""
    return lambda options: NORMALISED if options.deqa_meta else own


def count_of(images: int) -> Callable[[Namespace], int | None]:
    """Return the ``expected_rows`` for ``reader``. The size of DeQA-Score's files is not published."""
    return lambda options: None if options.deqa_meta else images


def read_deqa(paths: Iterable[str]) -> Iterator[Item]:
    """Yield the items of DeQA-Score's meta files. The split is the beginning of the file name.

    The score is ``gt_score_norm``, which Q-Insight trains on. Higher is better for every data set.

    Raises:
        LabelFileError: a file's name does not begin with a split, or the file is not a list of records.
    """
    for path in map(Path, paths):
        split = path.name.partition("_")[0].lower()
        if split not in SPLITS:
            raise LabelFileError(f"{path}: its name states no split. Fix: call it train_..., val_... or test_...json")
        for record in read_records(path, ["image"]):
            # The folders are from DeQA-Score's own layout. Within a data set the file name is enough.
            name = PurePosixPath(record["image"]).name
            given = {"gt_score": "gt_score", "standard_deviation": "std", "standard_deviation_norm": "std_norm"}
            details = {detail: number(record.get(key)) for detail, key in given.items()}
            yield labelled(name, record.get("gt_score_norm"), split, **details)
