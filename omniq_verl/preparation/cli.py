"""The command line that all scripts of ``data_prep/`` share."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from omniq_verl.data.image_size import PATCH, ImageSize
from omniq_verl.data.names import is_utf8, never_fail_to_print, shown_name
from omniq_verl.data.text_files import json_lines
from omniq_verl.object_reference import FORM
from omniq_verl.preparation.build import ENGINES, BuildOptions, Item, Source, prepare
from omniq_verl.preparation.card import split_of
from omniq_verl.preparation.file_index import BadPath, FileIndex, given_path
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.options import given_options, idle_option
from omniq_verl.preparation.task_names import name_for, names_for
from omniq_verl.tasks import SCALES, TASKS, Scale, find_task

_CLOSE, _EDGE = 0.05, 0.2
"""Thresholds of a warning (ours): scores that cover less than ``_CLOSE`` of their scale (0 to 1 on a scale of 0 to 100
covers a hundredth), and scores within ``_EDGE`` of the scale at one end (0 to 10 on a scale of 0 to 100)."""
_FEW = 10
"""Fewer scores than this may be close to one another by chance."""
_FROM_OWNERS = ", or download it again from its owners"


@dataclass(frozen=True)
class Request:
    """What the command line asks a reader for."""

    index: FileIndex
    task: str
    """The task whose labels are used, in any of its wordings."""
    labels: Path | None
    options: argparse.Namespace

    def label_file(self, *names: str) -> Path:
        """Return the label file: the one given by ``--labels``, or the first of these names found below the root.

        Raises:
            LabelFileError: there is no such file.
        """
        if self.labels is not None:
            return self.labels
        for name in names:
            if path := self.index.find(name):
                return path
        looked = ", ".join(names)
        raise LabelFileError(
            f"{self.index.root}: none of the label files {looked} is below it. Fix: name it with --labels"
        )


@dataclass(frozen=True)
class DataSet:
    """The script of one data set."""

    name: str
    tasks: Mapping[str, LabelMap | None]
    """Tasks that its labels fit, with the label map of each; the first is the default."""
    read: Callable[[Request], Iterator[Item]]
    facts: Mapping[str, Any]
    """For the card: ``splits``, ``labels``, ``licence``, each with its source."""
    folders: tuple[str, ...] = ()
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    label_map: Callable[[argparse.Namespace], LabelMap | None] | None = None
    """Chooses the map if it depends on the script's own options."""
    own_options: tuple[str, ...] = field(default=())
    """Names of the script's own options, for the card."""
    expected_rows: Callable[[argparse.Namespace], int | None] = lambda options: None
    """Number of labelled images that the owners state, given the script's own options; None if they do not."""
    own_columns: Callable[[argparse.Namespace], Sequence[str]] | None = None
    """Columns that a user's own table needs, for error messages; such a table cannot be downloaded from its owners."""
    idle: Callable[[argparse.Namespace], Mapping[str, str | None]] = lambda options: {}
    """For each of the script's own options, why it has no effect; see ``options.idle_option``."""
    any_task: bool = False
    """Whether any user-defined task that needs labels of the same kind may be used, even without ``like``."""


def main(dataset: DataSet, doc: str, arguments: list[str] | None = None) -> None:
    """Run a script.

    Exits with 1 if a label file or ``--out`` cannot be used, if there are no rows, or if there are rejects and
    ``--strict`` is given.
    """
    never_fail_to_print()
    args = _parser(dataset, doc).parse_args(arguments)
    reject_idle(partial(_parser, dataset, doc), arguments, {**_idle(dataset, args), **dataset.idle(args)})
    console = Console(stderr=True)
    columns = dataset.own_columns(args) if dataset.own_columns else ()
    try:
        card = run(dataset, args, console)
    except (LabelFileError, BadPath, OSError) as error:
        sys.exit(of_own_table(str(error), columns))
    _warn_of_missing_labels(card, args.labels or args.root, console)
    _warn_of_close_scores(card, console)
    report(card, args.out)
    reject_no_rows(card, args, columns)
    reject_rejects(card, args)


def of_own_table(text: str, columns: Sequence[str]) -> str:
    """Adapt an error message to the user's own table: it names the needed columns instead of the owners."""
    return text.replace(_FROM_OWNERS, f" (it needs the columns {', '.join(columns)})") if columns else text


def reject_idle(
    make: Callable[[], argparse.ArgumentParser], arguments: Sequence[str] | None, why: Mapping[str, str | None]
) -> None:
    """Exit with 2, as argparse does, if an option that has no effect was given."""
    if message := idle_option(given_options(make, arguments), why):
        make().error(message)


def _idle(dataset: DataSet, args: argparse.Namespace) -> dict[str, str | None]:
    task = find_task(args.task or next(iter(dataset.tasks)))
    return {
        "workers": "with --engine ray, which takes all nodes of its cluster" if args.engine == "ray" else None,
        "scale": f"with the task {task.name}, which asks for no score" if task.scale is None else None,
    }


def run(dataset: DataSet, args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Write the requested data set; returns its card."""
    task = args.task or next(iter(dataset.tasks))
    labelled_as = find_task(task).like or task
    labels = dataset.label_map(args) if dataset.label_map else dataset.tasks[labelled_as]
    index = FileIndex(args.root, without=args.out)
    if args.images == "path" and not is_utf8(index.root):
        raise BadPath(
            f"{shown_name(index.root)} is not UTF-8, so rows cannot name its files. Fix: leave out --images path"
        )
    source = Source(
        name=dataset.name,
        task=task,
        items=dataset.read(Request(index, labelled_as, args.labels, args)),
        labels=labels,
        scale=_scale(task, args.scale) if labels is not None else None,
        folders=dataset.folders,
        size=ImageSize(args.short_side, args.max_pixels),
        facts={**dataset.facts, "options": {name: getattr(args, name) for name in dataset.own_options}},
        expected_rows=dataset.expected_rows(args),
    )
    build_options = BuildOptions(args.workers, args.shard_rows, args.images == "embed", args.decode, args.engine)
    return prepare(source, index, args.out, build_options, console)


def _scale(task: str, name: str | None) -> Scale | None:
    """Return the named scale, or the task's own scale. None stands for the own scale of a user-defined task."""
    if name is None:
        return find_task(task).scale if task in TASKS else None
    return SCALES[name]


def _parser(dataset: DataSet, doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--root", type=given_path, required=True, help="folder of the data set")
    add("--out", type=given_path, required=True, help="folder for the parquet files")
    add("--labels", type=given_path, help="label file, or folder of several, if elsewhere or named differently")
    asked = f"what is asked: {', '.join(names_for(dataset.tasks))}, or {FORM} (default: {next(iter(dataset.tasks))})"
    add("--task", type=partial(name_for, dataset.tasks, dataset.any_task), metavar="TASK", help=asked)
    scales = "scale of the answers (default: 1-5, or a task's own; OmniQuality-R's code: 0-5)"
    add("--scale", choices=list(SCALES), help=scales)
    add(
        "--images",
        choices=("embed", "path"),
        default="embed",
        help="store image bytes in the rows (default), or only file names",
    )
    add("--short-side", type=side, metavar="PIXELS", help="shrink larger images to this length of the shorter side")
    add("--max-pixels", type=area, metavar="PIXELS", help="shrink larger images to this many pixels")
    add_writing_options(parser)
    dataset.add_options(parser)
    return parser


def add_writing_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``, ``--shard-rows``, ``--decode``, ``--strict`` and ``--engine``. None of them changes a row."""
    add = parser.add_argument
    add("--workers", type=positive, default=os.cpu_count(), help="processes (default: one for each core)")
    add(
        "--shard-rows", type=positive, default=4096, help="rows per file; a kill loses at most one file (default: 4096)"
    )
    add("--decode", action="store_true", help="decode every image instead of checking only its structure")
    add("--strict", action="store_true", help="fail if any image is rejected")
    add("--engine", choices=list(ENGINES), default="local", help="ray: use Ray Data on all nodes of a cluster")


def positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def side(text: str) -> int:
    if (pixels := positive(text)) < PATCH:
        raise argparse.ArgumentTypeError(f"{text} leaves no image; at least {PATCH}")
    return pixels


def area(text: str) -> int:
    if (pixels := positive(text)) < PATCH**2:
        raise argparse.ArgumentTypeError(f"{text} leaves no image; at least {PATCH**2}")
    return pixels


def _warn_of_missing_labels(card: dict[str, Any], where: Path, console: Console) -> None:
    rows = card["label_rows"]
    if rows["expected"] is not None and rows["found"] < rows["expected"]:
        counts = f"{rows['found']:,} labels found, {rows['expected']:,} expected"
        _warn(f"{where}: {counts}", console)


def _warn_of_close_scores(card: dict[str, Any], console: Console) -> None:
    if "scores" not in card or card["rows"] < 2:
        return
    (low, high), bounds = card["label_map"]["scale"], card["label_map"]["raw"]
    lowest, highest = card["scores"]["lowest"], card["scores"]["highest"]
    at_an_end = highest < low + _EDGE * (high - low) or lowest > high - _EDGE * (high - low)
    if (card["rows"] >= _FEW and (at_an_end or highest - lowest < _CLOSE * (high - low))) or _looks_smaller(card):
        where = f"from {lowest:g} to {highest:g} on the scale {low:g} to {high:g}"
        _warn(f"all scores lie {where}; is the scale of the labels really {bounds[0]:g} to {bounds[1]:g}?", console)


def _looks_smaller(card: dict[str, Any]) -> bool:
    """Return whether scores look like a far shorter scale with the same start, such as 0 to 1 within 0 to 100."""
    (low, high), (raw_low, raw_high) = card["label_map"]["scale"], card["label_map"]["raw"]
    better = card["label_map"]["higher_is_better"]
    share = (card["scores"]["highest"] - low if better else high - card["scores"]["lowest"]) / (high - low)
    return raw_high - raw_low >= 10 and share * (raw_high - raw_low) < 1.001


def _warn(what: str, console: Console) -> None:
    # Print a single line that grep finds, whatever the terminal's width and the brackets in a path.
    console.print(f"warning: {what}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def reject_no_rows(card: Mapping[str, Any], args: argparse.Namespace, columns: Sequence[str] = ()) -> None:
    """Exit with 1 and the first reason if nothing was written."""
    if card["rows"]:
        return
    if not card["rejects"]["all"]:
        message = (
            f"{args.root}: no image was found below it, or named by a label file (links to folders are not entered)."
            " Fix: correct --root or the label file, or download it again from its owners"
        )
        sys.exit(of_own_table(message, columns))
    _, first = next(json_lines(args.out / "rejects.jsonl"))
    count = card["rejects"]["all"]
    sys.exit(f"there are no rows, all {count} were rejected; the first, {first['row_id']}: {first['reason']}")


def reject_rejects(card: Mapping[str, Any], args: argparse.Namespace) -> None:
    """Exit with 1 if there are rejects and ``--strict`` is given."""
    if args.strict and card["rejects"]["all"]:
        sys.exit(f"--strict: {card['rejects']['all']} rejects, see {args.out / 'rejects.jsonl'}")


def override(key: str, files: Sequence[Path]) -> str:
    """Return ``key=[FILE,...]``, quoted for a shell and for Hydra, whatever the names contain."""
    names = [str(file.resolve()) for file in files]
    if all(re.fullmatch(r"[\w/.+@%-]+", name, re.ASCII) for name in names):
        return f"{key}=[{','.join(names)}]"
    return shlex.quote(f"{key}=[{','.join(map(_quoted, names))}]")


def _quoted(name: str) -> str:
    """Put a text in single quotes for Hydra. Quotes are escaped, and so is ``${``, which OmegaConf would interpolate.

    A backslash stands for itself, except before a quote, before ``${`` or at the end of the text: there it is doubled.
    """
    escaped = re.sub(r"(\\*)(\$\{|')", lambda found: f"{found[1] * 2}\\{found[2]}", name)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def _listed(files: Sequence[Path]) -> str:
    return " ".join(shlex.quote(str(file.resolve())) for file in files)


def report(card: dict[str, Any], out: Path) -> None:
    """Print the training overrides and, last, the counts of rows and rejects."""
    names = {split: [name for name in card["files"] if split_of(name) == split] for split in ("train", "val", "test")}
    files = {split: [out / name for name in some] for split, some in names.items()}
    for split, key in (("train", "data.train_files"), ("val", "data.val_files")):
        if files[split]:
            print(override(key, files[split]))
    if files["test"]:
        print(f"test: {_listed(files['test'])}")  # for omniq eval; never for validation, which chooses a checkpoint
    if files["train"] and not files["val"]:
        print("there is no validation split; see --help for an option that draws one, or validate on another data set")
    rejects = card["rejects"]
    if shrunk := card.get("images", {}).get("shrunk"):
        print(f"shrunk: {shrunk} of {card['rows']} rows had larger images")
    reasons = ", ".join(f"{name} {count}" for name, count in rejects.items() if name != "all")
    message = f" ({reasons}; see rejects.jsonl)" if reasons else ""
    print(f"{card['data_source']}: {card['rows']} rows, {rejects['all']} rejects{message}")
