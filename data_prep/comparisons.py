"""Pairs of images and which of the two is better -> parquet, for comparison training as in Q-Insight's code.

    omniq data comparisons --data data/koniq/train.parquet data/koniq/val.parquet --margin 0.5 \\
        --out data/koniq_pairs
    omniq data comparisons --root DiffIQA/images --labels train_comparison.json --out data/diffiqa

With --data, the pairs come from prepared files with scores: every image draws --per-image partners in its own split
whose scores differ from its own by at least --margin; the image with the higher score is the better one. Rows of
different data sets cannot be compared: make pairs for each, and combine them with `omniq data mix`.

With --root and --labels, the pairs are judged: a CSV or JSON lines with the columns image_a, image_b and winner
(image_a or image_b), names of files below --root. An optional column reference names the low-quality image from which
both were made, which is shown before them; an optional column split (train, val, test) replaces --split. A JSON list
is read in the format of Q-Insight's authors (ref_image, ImageA, ImageB, result), 5,000 pairs of DiffIQA for training a
model that can already rate. Their 1,000 rows "Similar" are rejected: the paper's prompt has no such answer. Training
rows whose image is also in a row of another split are rejected, too.

The pairs, their order, and which image comes first depend only on --seed and the rows. The better image comes first in
half of the rows; with --keep-order the given order is used.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from omniq_verl.preparation.build import BuildOptions, Source, write
from omniq_verl.preparation.cli import (
    add_writing_options,
    of_own_table,
    positive,
    reject_idle,
    reject_no_rows,
    reject_rejects,
    report,
)
from omniq_verl.preparation.file_index import BadPath, FileIndex, given_path
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.pairs import Pair, balanced, choose_pairs, read_rated
from omniq_verl.preparation.readers import number, read_records, read_table, text
from omniq_verl.preparation.shards import Planned, Reject
from omniq_verl.preparation.splits import SPLITS
from omniq_verl.tasks import comparison_task

AUTHORS = {"ref_image": "reference", "ImageA": "image_a", "ImageB": "image_b", "result": "winner"}
"""Keys in the files of Q-Insight's authors, and our names for them."""
WINNERS = {"image a": "first", "imagea": "first", "a": "first", "image b": "second", "imageb": "second", "b": "second"}
SHOWN = ("reference", "image_a", "image_b")
OPTIONS = ("margin", "per_image", "split", "keep_order", "seed")


def main(arguments: list[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    if bool(args.data) == bool(args.root and args.labels):
        sys.exit("give --data, or --root and --labels")
    reject_idle(parser, arguments, idle(args))
    try:
        source, planned, rejects = of_scores(args) if args.data else of_table(args)
        build_options = BuildOptions(args.workers, args.shard_rows, decode=args.decode, engine=args.engine)
        card = write(source, planned, rejects, args.out, build_options, Console(stderr=True))
    except (LabelFileError, BadPath, OSError) as error:
        sys.exit(of_own_table(str(error), ["image_a", "image_b", "winner"]))
    report(card, args.out)
    if not card["rows"] + card["rejects"]["all"]:
        sys.exit("there are no pairs. Fix: lower --margin, or check whether the label file is empty")
    reject_no_rows(card, args)
    reject_rejects(card, args)


def idle(args: argparse.Namespace) -> dict[str, str | None]:
    """Return the options that have no effect here because they only apply to the other kind of pairs."""
    scored = "with --data, whose rows have splits and scores" if args.data else None
    judged = None if args.data else "with --labels, which names the pairs"
    of_table = dict.fromkeys(("root", "labels", "split", "keep_order"), scored)
    seed = "with --keep-order" if args.keep_order else None
    return {**of_table, **dict.fromkeys(("margin", "per_image"), judged), "seed": seed}


# Pairs of scored images


def of_scores(args: argparse.Namespace) -> tuple[Source, dict[str, list[Planned]], list[Reject]]:
    rated = read_rated(args.data)
    name = args.data_source or f"{rated[0].source if rated else 'no'}_pairs"
    planned = {}
    for split in sorted({one.split for one in rated}):
        pairs = choose_pairs((one for one in rated if one.split == split), args.margin, args.per_image, args.seed)
        planned[split] = [pair.planned(name, row_id(name, pair), split) for pair in balanced(pairs, args.seed)]
    facts = {"scored": [str(path) for path in args.data], "labels": "the higher score", "splits": "those of the images"}
    return source(args, name, False, facts), planned, []


def row_id(name: str, pair: Pair) -> str:
    """Return a row id that does not depend on the order in which the two images are shown."""
    return f"{name}/{'|'.join(image.partition('/')[2] or image for image in sorted(pair.images))}"


def source(args: argparse.Namespace, name: str, reference: bool, facts: Mapping[str, Any]) -> Source:
    options = {key: getattr(args, key) for key in OPTIONS}
    return Source(name, comparison_task(reference).name, (), facts={**facts, "options": options})


# Judged pairs


def of_table(args: argparse.Namespace) -> tuple[Source, dict[str, list[Planned]], list[Reject]]:
    index, rows = FileIndex(args.root, without=args.out), list(table(args.labels))
    reference = any(row.get("reference") for row in rows)
    name = args.data_source or args.labels.stem
    pairs, rejects = judged(index, rows, reference, name, args.split)
    rejects += leaked(pairs)
    planned = {}
    for split, of_split in pairs.items():
        ids, shown = list(of_split), list(of_split.values())
        shown = shown if args.keep_order else balanced(shown, args.seed)
        planned[split] = [pair.planned(name, row, split) for row, pair in zip(ids, shown, strict=True)]
    return source(args, name, reference, {"labels": f"column winner of {args.labels.name}"}), planned, rejects


def table(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() == ".json":
        for record in read_records(path, list(AUTHORS)):
            yield {AUTHORS.get(key, key): value for key, value in record.items()}
    else:
        yield from read_table(path, ["image_a", "image_b", "winner"])


def judged(
    index: FileIndex, rows: Sequence[Mapping[str, Any]], reference: bool, name: str, split: str
) -> tuple[dict[str, dict[str, Pair]], list[Reject]]:
    """Return the pairs by split and row id, and the rejects."""
    pairs: dict[str, dict[str, Pair]] = defaultdict(dict)
    rejects, seen = [], set()
    for row in rows:
        images = [row.get(key) for key in SHOWN[not reference :]]
        key, shown = f"{name}/{'|'.join(map(str, images))}", ", ".join(map(str, images))
        try:
            pair, of = judged_pair(index, row, reference), str(row.get("split", split)).strip().lower()
            if of not in SPLITS:
                raise ValueError(f"label: {row['split']!r} is not a split; known: {', '.join(SPLITS)}")
            if (same := frozenset(files(pair))) in seen:
                raise ValueError("duplicate: the label file names these images again")
        except ValueError as error:
            rejects.append(Reject(key, shown, str(error)))
        else:
            seen.add(same)
            pairs[of][key] = pair
    return pairs, rejects


def judged_pair(index: FileIndex, row: Mapping[str, Any], reference: bool) -> Pair:
    choice = WINNERS.get(str(row["winner"]).strip().lower().replace("_", " "))
    if choice is None:
        raise ValueError(f"label: the winner is {row['winner']!r}, neither image_a nor image_b")
    a, b = found(index, row["image_a"]), found(index, row["image_b"])
    if a == b:
        raise ValueError("label: both images are the same file")
    if reference and not row.get("reference"):
        raise ValueError("label: it has no reference, which others have. Fix: give it one, or a label file of its own")
    before = (row["reference"], found(index, row["reference"])) if reference else None
    return Pair((row["image_a"], row["image_b"]), (a, b), choice, before)


def found(index: FileIndex, name: Any) -> Path:
    try:
        path = index.find(text(name) or "")
    except BadPath as error:
        raise ValueError(f"path: {error}") from None
    if path is None:
        raise ValueError(f"image: there is no file {name}")
    return path


def files(pair: Pair) -> list[Any]:
    return [*pair.refs, *([pair.reference[1]] if pair.reference else [])]


def leaked(pairs: dict[str, dict[str, Pair]]) -> list[Reject]:
    """Remove training pairs with images that are held out in other splits, and return them as rejects."""
    held = {file for split, of in pairs.items() if split != "train" for pair in of.values() for file in files(pair)}
    out = {row: file for row, pair in pairs.get("train", {}).items() for file in files(pair) if file in held}
    for row in out:
        del pairs["train"][row]
    return [Reject(row, file.name, "split: the image is in a row of another split, too") for row, file in out.items()]


# Options


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=given_path, nargs="+", help="prepared parquet files with scores")
    add("--root", type=given_path, help="folder of the images of --labels")
    add("--labels", type=given_path, help="CSV, JSON lines or JSON list of judged pairs")
    add("--out", type=given_path, required=True, help="folder for the parquet files")
    add("--data-source", help="name of the data set (default: <name in --data>_pairs, or the label file's name)")
    add("--margin", type=above_zero, default=0.5, help="smallest score difference of a pair (default: 0.5, ours)")
    add("--per-image", type=positive, default=1, help="partners drawn for every image (default: 1)")
    add("--split", choices=SPLITS, default="train", help="split for --labels without a column split (default: train)")
    add("--keep-order", action="store_true", help="show the images of --labels in the order of their columns")
    add("--seed", type=int, default=0, help="seed of all draws (default: 0)")
    add_writing_options(parser)
    return parser


def above_zero(given: str) -> float:
    value = number(given)
    if value is None or value <= 0:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number above 0")
    return value


if __name__ == "__main__":
    main()
