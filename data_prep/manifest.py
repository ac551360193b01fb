r"""Any table of images and scores -> parquet.

    omniq data manifest --root photos --labels scores.csv --out data/mine --data-source mine \
        --low 0 --high 100 --test-fraction 0.2

Needs a CSV with a header, or JSON lines (`manifest.csv` or `manifest.jsonl` below --root, or --labels), with a column
for the name of an image below --root and one for its score. --low and --high are the ends of the scale the scores were
given on; they become the ends of the answers' scale (--scale). The task alignment needs the column of the prompts, too.
Splits come from a column (train, val, test) or a draw; --group-column keeps versions of a picture in the same split.

Labels in any other form can be read by your own function, --reader package.module:function; see examples/extending.
Then --low and --high are needed for scores, and options of columns and draws do not apply.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.outside_reader import open_reader
from omniq_verl.preparation.readers import draw, number, read_table, share, text
from omniq_verl.tasks import find_task

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
OPTIONS = (
    *("data_source", "image_column", "score_column", "text_column", "split_column", "group_column"),
    *("val_fraction", "test_fraction", "seed", "low", "high", "lower_is_better"),
)


def read(request: Request) -> Iterator[Item]:
    options = request.options
    reject_conflicts(options)
    if find_task(request.task).needs_text and not options.text_column:
        raise LabelFileError(f"the task {request.task} asks about prompts. Fix: give their column with --text-column")
    path = request.label_file("manifest.csv", "manifest.jsonl")
    wanted = (options.score_column, options.text_column, options.split_column, options.group_column)
    for row in read_table(path, [options.image_column], [column for column in wanted if column]):
        score, name = number(row[options.score_column]), row[options.image_column]
        split = split_of(row, options)
        fault = f"{options.score_column} is {row[options.score_column]!r}" if score is None else None
        if split is None:
            column = options.split_column or options.group_column
            fault = f"{column} is {row[column]!r}"
        prompt = text(row[options.text_column]) if options.text_column else None
        yield Item(name, split or "train", score, text=prompt, fault=fault)


def reject_conflicts(options: argparse.Namespace) -> None:
    """Reject options of the draw if there is a split column, because they would have no effect."""
    drawing = [name for name in ("val_fraction", "test_fraction", "group_column") if getattr(options, name)]
    if options.split_column and drawing:
        raise LabelFileError(
            f"--{drawing[0].replace('_', '-')} belongs to the draw, but --split-column sets the splits. Fix: drop one"
        )
    if options.val_fraction + options.test_fraction > 1.0:
        raise LabelFileError("--val-fraction and --test-fraction make more than 1")


def idle(options: argparse.Namespace) -> dict[str, str | None]:
    """Return the options of the draw that have no effect because nothing is drawn."""
    undrawn = None if options.val_fraction + options.test_fraction else "where no split is drawn (--test-fraction)"
    return {"seed": undrawn, "group_column": None if options.split_column else undrawn}


def columns(options: argparse.Namespace) -> list[str]:
    """Return the table's own names for the columns that are needed."""
    named = ("image_column", "score_column", "text_column", "split_column", "group_column")
    return [value for name in named if (value := getattr(options, name))]


def split_of(row: dict, options: argparse.Namespace) -> str | None:
    """Return the split of a row; None if the split column has another value, or the group column has no value.

    Rows without a group are not treated as one group, because all of them would be in the same split.
    """
    if options.split_column:
        return SPLITS.get(str(row[options.split_column]).strip().lower())
    group = row[options.group_column or options.image_column]
    if options.group_column and (group is None or group != group or group == ""):
        return None
    drawn = draw(options.seed, str(group))
    if drawn < options.test_fraction:
        return "test"
    return "val" if drawn < options.test_fraction + options.val_fraction else "train"


def add_options(parser: argparse.ArgumentParser) -> None:
    add_scale_options(parser, required=True)
    add = parser.add_argument
    add("--image-column", default="image", help="column with the file names (default: image)")
    add("--score-column", default="score", help="column with the scores (default: score)")
    add("--text-column", help="column with the prompts that the images were generated from")
    add("--split-column", help="column with the splits; without it they are drawn")
    add("--group-column", help="column with groups that must stay in one split, e.g. the original (default: the image)")
    add("--val-fraction", type=share, default=0.0, help="validation share to draw (default: 0)")
    add("--test-fraction", type=share, default=0.0, help="test share to draw (default: 0)")
    add("--seed", type=int, default=0, help="seed of the draw (default: 0)")


def add_scale_options(parser: argparse.ArgumentParser, required: bool) -> None:
    add = parser.add_argument
    add("--data-source", type=source_name, required=True, help="name of the data set, used for rewards and reports")
    add("--low", type=float, required=required, help="lowest score of the rating scale")
    add("--high", type=float, required=required, help="highest score of the rating scale")
    add(
        "--lower-is-better",
        action="store_true",
        help="low scores mean good quality, as in differences from an original",
    )
    add("--reader", metavar="MODULE:FUNCTION", help="user-defined function that reads the labels")


def source_name(given: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", given):  # a dot would split a recipe's key in two
        raise argparse.ArgumentTypeError(f"{given!r} has characters other than letters, digits, _ and -")
    return given


def label_map(options: argparse.Namespace) -> LabelMap:
    try:
        return LabelMap(options.low, options.high, "given by --low and --high", not options.lower_is_better)
    except ValueError as error:
        raise LabelFileError(f"--low and --high: {error}") from None


MANIFEST = DataSet(
    name="manifest",
    tasks={"technical": None, "aesthetic": None, "alignment": None},
    read=read,
    facts={"splits": "the split column, or a draw by --seed and the group column or the image's name"},
    add_options=add_options,
    label_map=label_map,
    own_options=OPTIONS,
    own_columns=columns,
    idle=idle,
    any_task=True,
)


def with_reader(reader: str) -> DataSet:
    """Return the data set for labels that a user-defined function reads."""
    return replace(
        MANIFEST,
        tasks={**MANIFEST.tasks, "degradation": None},
        read=open_reader(reader),
        facts={"splits": f"by the reader {reader}"},
        add_options=partial(add_scale_options, required=False),
        label_map=label_map_of_reader,
        own_options=("data_source", "reader", "low", "high", "lower_is_better"),
        own_columns=None,
        idle=idle_of_reader,
    )


def label_map_of_reader(options: argparse.Namespace) -> LabelMap | None:
    if asks_for(options) != "score":
        return None
    if options.low is None or options.high is None:
        raise LabelFileError("--low and --high are missing. Fix: give the ends of the scale of the reader's scores")
    return label_map(options)


def idle_of_reader(options: argparse.Namespace) -> dict[str, str | None]:
    scored = asks_for(options) == "score"
    return dict.fromkeys(("low", "high", "lower_is_better"), None if scored else "where no scores are asked for")


def asks_for(options: argparse.Namespace) -> str:
    return find_task(options.task or next(iter(MANIFEST.tasks))).asks_for


def run(arguments: list[str] | None = None) -> None:
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--data-source", default=MANIFEST.name)
    early.add_argument("--reader")
    known = early.parse_known_args(arguments)[0]
    try:
        dataset = with_reader(known.reader) if known.reader else MANIFEST
    except LabelFileError as error:
        sys.exit(str(error))
    main(replace(dataset, name=known.data_source), __doc__, arguments)


if __name__ == "__main__":
    run()
