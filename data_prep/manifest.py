r"""Any table of images and scores -> parquet.

    omniq data manifest --root photos --labels scores.csv --out data/mine --data-source mine \
        --low 0 --high 100 --test-fraction 0.2

Needs a CSV with a header, or JSON lines (`manifest.csv` or `manifest.jsonl` below --root, or --labels), with a column
for the name of an image below --root and one for its score. --low and --high are the ends of the scale the scores were
given on; they become the ends of the answers' scale (--scale). The task alignment needs the column of the prompts, too.
Splits come from a column (train, val, test) or from a draw; --group-column keeps the versions of a picture in one.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import replace

from omniq_verl.data.command import DataSet, Request, main
from omniq_verl.data.label_map import LabelMap
from omniq_verl.data.prepare import Item
from omniq_verl.data.reading import draw, number, read_table, share, text
from omniq_verl.data.tables import LabelFileError
from omniq_verl.tasks import TASKS

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
OPTIONS = (
    *("data_source", "image_column", "score_column", "text_column", "split_column", "group_column"),
    *("val_fraction", "test_fraction", "seed", "low", "high", "lower_is_better"),
)


def read(request: Request) -> Iterator[Item]:
    options = request.options
    refuse_conflicts(options)
    if TASKS[request.task].needs_text and not options.text_column:
        raise LabelFileError(f"the task {request.task} asks about prompts. Mend: name their column by --text-column")
    path = request.label_file("manifest.csv", "manifest.jsonl")
    wanted = (options.score_column, options.text_column, options.split_column, options.group_column)
    for row in read_table(path, [options.image_column], [column for column in wanted if column]):
        score, name = number(row[options.score_column]), row[options.image_column]
        split = split_of(row, options)
        fault = f"{options.score_column} is {row[options.score_column]!r}" if score is None else None
        if split is None:
            fault = f"{options.split_column} is {row[options.split_column]!r}"
        prompt = text(row[options.text_column]) if options.text_column else None
        yield Item(name, split or "train", score, text=prompt, fault=fault)


def refuse_conflicts(options: argparse.Namespace) -> None:
    """Options of the draw beside a column that says the splits would do nothing."""
    drawing = [name for name in ("val_fraction", "test_fraction", "group_column") if getattr(options, name)]
    if options.split_column and drawing:
        raise LabelFileError(
            f"--{drawing[0].replace('_', '-')} is of the draw, and --split-column says the splits. Fix: drop either"
        )
    if options.val_fraction + options.test_fraction > 1.0:
        raise LabelFileError("--val-fraction and --test-fraction make more than 1")


def idle(options: argparse.Namespace) -> dict[str, str | None]:
    """Options of the draw, where nothing is drawn."""
    undrawn = None if options.val_fraction + options.test_fraction else "where no split is drawn (--test-fraction)"
    return {"seed": undrawn, "group_column": None if options.split_column else undrawn}


def columns(options: argparse.Namespace) -> list[str]:
    """The columns the table needs, under the names it has for them."""
    named = ("image_column", "score_column", "text_column", "split_column", "group_column")
    return [value for name in named if (value := getattr(options, name))]


def split_of(row: dict, options: argparse.Namespace) -> str | None:
    """None: the split column says none of the three."""
    if options.split_column:
        return SPLITS.get(str(row[options.split_column]).strip().lower())
    drawn = draw(options.seed, str(row[options.group_column or options.image_column]))
    if drawn < options.test_fraction:
        return "test"
    return "val" if drawn < options.test_fraction + options.val_fraction else "train"


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data-source", type=source_name, required=True, help="name of the data set: rewards and reports go by it")
    add("--low", type=float, required=True, help="least score of the scale the scores were given on")
    add("--high", type=float, required=True, help="greatest score of that scale")
    add("--lower-is-better", action="store_true", help="as of a difference to an original")
    add("--image-column", default="image", help="of the images' names (default: image)")
    add("--score-column", default="score", help="of the scores (default: score)")
    add("--text-column", help="of the prompts the images were made from")
    add("--split-column", help="without it the splits are drawn")
    add("--group-column", help="of what must not be in two splits, as an original or a prompt (default: the image)")
    add("--val-fraction", type=share, default=0.0, help="to draw (default: 0)")
    add("--test-fraction", type=share, default=0.0, help="to draw (default: 0)")
    add("--seed", type=int, default=0, help="of the draw (default: 0)")


def source_name(given: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", given):  # a dot would part a recipe's key in two
        raise argparse.ArgumentTypeError(f"{given!r} has other characters than letters, digits, _ and -")
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
)


def run(arguments: list[str] | None = None) -> None:
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--data-source", default=MANIFEST.name)
    name = early.parse_known_args(arguments)[0].data_source
    main(replace(MANIFEST, name=name), __doc__, arguments)


if __name__ == "__main__":
    run()
