"""Runs side by side, with a paper's table where one is named, and paired tests of the first run against the others.

A run is the folder of an evaluation: ``metrics.json`` with the metrics of each set and their intervals, and
``images.parquet`` with one line per image. A set is known by its data source and the task asked of it.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from omniq_verl import __version__
from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.paired import TESTS, compare_scores, holm, join_images
from omniq_verl.evaluation.papers import PaperTable, load_table

SCORE_METRICS, CLASS_METRICS = ("plcc", "srcc"), ("class_accuracy", "level_accuracy")
_NAME_WIDTH, _COLUMN_WIDTH = 24, 17
"""Characters in the terminal of a row's name, and of a set: ``[0.935, 0.947]`` and what is between columns."""
SetKey = tuple[str, str]  # data source, task


@dataclass(frozen=True)
class Run:
    """One evaluation, as it was read."""

    name: str
    folder: Path
    metrics: dict[str, Any]
    sets: dict[SetKey, dict[str, Any]]


def compare_runs(runs: Sequence[Path], paper: str | None, out: Path | None, console: Console) -> dict[str, Any]:
    """Print the comparison of evaluations, and return it.

    First every run's PLCC and SRCC on every set, above the rows of the paper. Then, for each run after the first, PLCC,
    SRCC and mean absolute error of the first minus its own over the images both scored, with 95% paired bootstrap
    intervals (2,000 resamples or more, seed 0) and p-values. These are corrected by Holm's method, for each statistic
    over all sets and runs; ``compare.json`` has the uncorrected ones too. Degradation sets have no scores to pair.

    Args:
        runs: folders that hold ``metrics.json`` and, for more than one run, ``images.parquet``.
        paper: name of a table, e.g. ``"omniquality_r:1"``; None: the runs alone.
        out: folder for ``compare.md`` and ``compare.json``; None: nothing is written.
        console: where the tables go.

    Returns:
        What ``compare.json`` holds: ``made_by``, ``paper``, ``runs``, ``columns``, ``rows``, ``pairs``, ``notes``.

    Raises:
        FileNotFoundError: a run lacks one of its files; the message says which and what writes it.
        ValueError: no run, or one twice; no such table; a file of another kind; an image twice in a run, or with
            another label in the other run.
    """
    table = load_table(paper) if paper else None
    read = read_runs(runs)
    columns = list_columns(read, table)
    pairs = compare_pairs(read)
    comparison = {
        "made_by": f"omniq_verl {__version__}",
        "paper": _about_paper(table) if table else None,
        "runs": [_about_run(run) for run in read],
        "columns": columns,
        "rows": [_run_row(run, columns) for run in read] + (_paper_rows(table, columns) if table else []),
        "pairs": pairs,
        "notes": [*_unscored(read), *_unmatched(pairs)],
    }
    print_comparison(comparison, console)
    if out is not None:
        write_comparison(comparison, out)
    return comparison


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in those folders, named by them; equal names get as many parents as tell them apart."""
    folders = [Path(folder).resolve() for folder in folders]
    if not folders or len(set(folders)) < len(folders):
        raise ValueError(f"name one or more folders of evaluations, each once; got {', '.join(map(str, folders))}")
    return [_read_run(folder, _short_name(folder, folders)) for folder in folders]


def _short_name(folder: Path, folders: Sequence[Path]) -> str:
    for depth in range(1, len(folder.parts) + 1):
        tail = folder.parts[-depth:]
        if sum(other.parts[-depth:] == tail for other in folders) == 1:
            break
    return "/".join(tail)


def _read_run(folder: Path, name: str) -> Run:
    file = _existing(folder / "metrics.json")
    metrics = json.loads(file.read_text())
    if "sets" not in metrics:
        raise ValueError(f"{file} has no `sets`: it is not of `omniq eval`, which writes such a folder")
    return Run(name, folder, metrics, {(one["data_source"], one["task"]): one for one in metrics["sets"].values()})


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; `omniq eval` writes it: name the folder of a finished evaluation")
    return file


def read_images(run: Run) -> pd.DataFrame:
    """``images.parquet`` of a run, sorted out by data source, task and key.

    Raises:
        FileNotFoundError: there is none.
        ValueError: an image is in it twice.
    """
    file = _existing(run.folder / "images.parquet")
    images = pd.read_parquet(file, columns=["data_source", "task", "key", "target", "score"])
    again = images[images.duplicated(["data_source", "task", "key"])]
    if len(again):
        raise ValueError(f"{file}: {again.iloc[0].key} of {again.iloc[0].data_source} is there twice")
    return images.set_index(["data_source", "task", "key"]).sort_index()


def list_columns(runs: Sequence[Run], table: PaperTable | None) -> list[dict[str, Any]]:
    """The paper's columns in its order, the sets only the runs have, and their mean if the paper prints none.

    The mean is over the score sets that every run has a defined PLCC and SRCC on.
    """
    columns = [_column(**asdict(one)) for one in (table.columns if table else ())]
    known = {(one["data_source"], one["task"]) for one in columns}
    added = list(dict.fromkeys(key for run in runs for key in run.sets if key not in known))
    taken = [*(source for source, _ in {*added, *known}), *(one["label"] for one in columns)]
    for source, task in added:
        columns.append(_column(f"{source}/{task}" if taken.count(source) > 1 else source, source, task))
    common = [one["label"] for one in columns if all(_has_scores(run, one) for run in runs)]
    if len(common) > 1 and not any(one["mean_of"] for one in columns):
        columns.append(_column(f"mean of {len(common)}", None, None, common))
    return columns


def _column(name: str, data_source: str | None, task: str | None, mean_of: Sequence[str] = ()) -> dict[str, Any]:
    return {"label": name, "data_source": data_source, "task": task, "mean_of": list(mean_of)}


def _has_scores(run: Run, column: Mapping[str, Any]) -> bool:
    one = run.sets.get((column["data_source"], column["task"]), {})
    return all(name in one and one[name]["value"] is not None for name in SCORE_METRICS)


def _run_row(run: Run, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cells = {one["label"]: _run_cell(run.sets.get((one["data_source"], one["task"]))) for one in columns}
    for one in columns:
        if one["mean_of"]:
            cells[one["label"]] = _mean_cell([cells[label] for label in one["mean_of"]])
    return {"name": run.name, "measured": True, "group": None, "cells": list(cells.values())}


def _run_cell(about: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if about is None:
        return None
    found = [about[name] for name in (CLASS_METRICS if "class_accuracy" in about else SCORE_METRICS)]
    return {
        "values": [one["value"] for one in found],
        "intervals": [None if one["low"] is None else [one["low"], one["high"]] for one in found],
    }


def _mean_cell(cells: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Only over all of the cells: a mean over some of the sets would stand beside the paper's over all."""
    if any(cell is None or None in cell["values"] for cell in cells):
        return None
    means = np.mean([cell["values"] for cell in cells], axis=0).tolist()
    return {"values": means, "intervals": [None] * len(means)}


def _paper_rows(table: PaperTable, columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for row in table.rows:
        cells = [cell and {"values": list(cell), "intervals": [None] * len(cell)} for cell in row.values]
        cells += [None] * (len(columns) - len(cells))
        rows.append({"name": f"paper: {row.method}", "measured": False, "group": row.group, "cells": cells})
    return rows


def _about_paper(table: PaperTable) -> dict[str, Any]:
    return {
        **{name: getattr(table, name) for name in ("name", "title", "source", "caption", "metrics", "decimals")},
        "notes": [*table.notes, *map(str, table.misprints)],
    }


def _about_run(run: Run) -> dict[str, Any]:
    known = {key: run.metrics.get(key) for key in ("made_by", "model", "sampling", "seed", "sets")}
    return {"name": run.name, "folder": str(run.folder), **known}


def compare_pairs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The first run against each other one, on each score set both have.

    Each entry: ``first``, ``other``, ``data_source``, ``task``, what ``compare_scores`` returns, and in each of its
    tests ``p_holm``.
    """
    first = runs[0]
    both = [(run, [key for key, one in first.sets.items() if "plcc" in one and key in run.sets]) for run in runs[1:]]
    comparisons = sum(len(keys) for _, keys in both)
    pairs = []
    for other, keys in both:
        images = join_images(read_images(first), read_images(other), (first.name, other.name))
        of_set = dict(list(images.groupby(level=["data_source", "task"])))
        for key in keys:
            named = {"first": first.name, "other": other.name, "data_source": key[0], "task": key[1]}
            pairs.append({**named, **compare_scores(of_set.get(key, images.iloc[:0]), _resamples(comparisons))})
    for test in TESTS:
        for pair, p in zip(pairs, holm([pair[test]["p"] for pair in pairs]), strict=True):
            pair[test]["p_holm"] = p
    return pairs


def _resamples(comparisons: int) -> int:
    """So many that p can get to 0.01 after the correction: 2 / resamples is the least it is before."""
    return max(2000, 200 * comparisons)


def explain(comparison: Mapping[str, Any]) -> list[str]:
    """What the cells are and whose figures, one sentence each."""
    said = [_of_run(run) for run in comparison["runs"]]
    said.append("Cells: PLCC / SRCC (degradation: accuracy of class / of level), with 95% bootstrap intervals.")
    if paper := comparison["paper"]:
        said.append(
            f"Rows `paper: ...` are figures of {paper['title']} ({paper['source']}), {paper['name']}, as printed: "
            f"{_named(paper['metrics'])}. They were not measured here. {paper['caption']}"
        )
    return said


def explain_pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    """How to read the differences."""
    first = pairs[0]["first"]
    return (
        f"Differences are {first} minus the other run over the images both scored: above 0 in PLCC and SRCC, and below "
        f"0 in MAE (mean absolute error), {first} is the better one. Brackets: 95% paired bootstrap intervals, "
        f"{_resamples(len(pairs)):,} resamples. p is two-sided (bootstrap; of MAE: Wilcoxon's signed-rank test) and "
        f"corrected by Holm's method, for each statistic over all {len(pairs)} pairs of runs and sets."
    )


def remarks(comparison: Mapping[str, Any]) -> list[str]:
    """The notes on the runs, then those on the paper's table."""
    paper = comparison["paper"]
    return [*comparison["notes"], *(f"{paper['name']}: {note}" for note in (paper["notes"] if paper else ()))]


def _of_run(run: Mapping[str, Any]) -> str:
    sampling = run["sampling"]
    if isinstance(sampling, Mapping):
        sampling = ", ".join(f"{name} {value}" for name, value in sampling.items())
    return f"{run['name']}: {run['model']}; {sampling}; seed {run['seed']}"


def _named(metrics: Sequence[str]) -> str:
    return " / ".join(name.upper() if name in SCORE_METRICS else name.replace("_", " ") for name in metrics)


def _unscored(runs: Sequence[Run]) -> list[str]:
    return _together(
        (f"{run.name}, images without a readable answer", f"{source}/{task} {missing} of {one['images']}")
        for run in runs
        for (source, task), one in run.sets.items()
        if (missing := one["images"] - one["scored"])
    )


def _unmatched(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for pair in pairs:
        runs, where = f"{pair['first']} and {pair['other']}", f"{pair['data_source']}/{pair['task']}"
        for side in ("first", "other"):
            if number := pair[f"only_{side}"]:
                found.append((f"{runs}, images that {pair[side]} alone scored", f"{where} {number}"))
        found += [(f"{runs}, no test", f"{where} ({pair[test]['reason']})") for test in TESTS if pair[test]["reason"]]
    return _together(found)


def _together(notes: Iterable[tuple[str, str]]) -> list[str]:
    """One sentence for all that is said of the same."""
    said: dict[str, list[str]] = {}
    for about, what in notes:
        if what not in said.setdefault(about, []):
            said[about].append(what)
    return [f"{about}: {', '.join(what)}" for about, what in said.items()]


def print_comparison(comparison: Mapping[str, Any], console: Console) -> None:
    """Every table of the comparison; as many sets side by side as the terminal is wide enough for."""
    names = max(len(row["name"]) for row in comparison["rows"])
    at_once = max(1, (console.width - min(names, _NAME_WIDTH) - 2) // _COLUMN_WIDTH)
    for sentence in explain(comparison):
        console.print(Text(sentence))
    for start in range(0, len(comparison["columns"]), at_once):
        console.print(_sets_table(comparison, slice(start, start + at_once), box.SIMPLE_HEAD, "\n"))
    for other, pairs in groupby(comparison["pairs"], itemgetter("other")):
        console.print(Text(f"{comparison['runs'][0]['name']} minus {other}", style="bold"))
        console.print(_pairs_table(list(pairs), box.SIMPLE_HEAD, "\n"))
    if comparison["pairs"]:
        console.print(Text(explain_pairs(comparison["pairs"])))
    for remark in remarks(comparison):
        console.print(Text(f"- {remark}"))


def write_comparison(comparison: Mapping[str, Any], out: Path) -> None:
    """``compare.md`` and ``compare.json`` in the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "compare.md", markdown(comparison))
    replace_text(out / "compare.json", json.dumps(comparison, indent=2, allow_nan=False) + "\n")


def markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as a Markdown document."""
    sets = _sets_table(comparison, slice(None), box.MARKDOWN, " ")
    parts = ["# Comparison", _list(explain(comparison)), _as_text(sets)]
    for other, pairs in groupby(comparison["pairs"], itemgetter("other")):
        title = f"## {comparison['runs'][0]['name']} minus {other}"
        parts += [title, _as_text(_pairs_table(list(pairs), box.MARKDOWN, " "))]
    if comparison["pairs"]:
        parts.append(explain_pairs(comparison["pairs"]))
    if said := remarks(comparison):
        parts += ["## Notes", _list(said)]
    return "\n\n".join(parts) + "\n"


def _sets_table(comparison: Mapping[str, Any], places: slice, style: box.Box, between: str) -> Table:
    table = Table(box=style, pad_edge=style is box.MARKDOWN)
    table.add_column("", max_width=_NAME_WIDTH if style is not box.MARKDOWN else None, overflow="fold")
    for column in comparison["columns"][places]:
        table.add_column(_text(column["label"], style), min_width=_COLUMN_WIDTH - 3, overflow="fold")
    group = None
    for row in comparison["rows"]:
        has_nothing_here = not (row["measured"] or any(row["cells"][places]))
        if has_nothing_here and (any(row["cells"]) or places.start):  # the paper's empty rows are shown once
            continue
        if row["group"] not in (None, group):
            table.add_row(_text(row["group"], style, "italic"))
        group = row["group"]
        cells = [_cell_text(cell, comparison, row["measured"], between) for cell in row["cells"][places]]
        table.add_row(_text(row["name"], style, "bold" if row["measured"] else ""), *map(Text, cells))
    return table


def _pairs_table(pairs: Sequence[Mapping[str, Any]], style: box.Box, between: str) -> Table:
    table = Table(box=style, pad_edge=style is box.MARKDOWN)
    for title in ("set", "images", *map(str.upper, TESTS)):
        table.add_column(title, overflow="fold")
    for pair in pairs:
        cells = [Text(between.join(_test_parts(pair[test]))) for test in TESTS]
        table.add_row(_text(f"{pair['data_source']}/{pair['task']}", style), f"{pair['images']}", *cells)
    return table


def _cell_text(cell: Mapping[str, Any] | None, comparison: Mapping[str, Any], measured: bool, between: str) -> str:
    if cell is None:
        return "-"
    decimals = 3 if measured else comparison["paper"]["decimals"]
    values = " / ".join("-" if value is None else f"{value:.{decimals}f}" for value in cell["values"])
    return between.join([values, *(_interval(bounds, ".3f") for bounds in cell["intervals"] if bounds)])


def _test_parts(test: Mapping[str, Any]) -> list[str]:
    """Difference, interval and p, as far as they are defined."""
    parts = ["-" if test["difference"] is None else f"{test['difference']:+.3f}"]
    if test.get("low") is not None:
        parts.append(_interval((test["low"], test["high"]), "+.3f"))
    if test["p_holm"] is not None:
        parts.append("p < 0.001" if test["p_holm"] < 0.001 else f"p {test['p_holm']:.3f}")
    return parts


def _interval(bounds: Sequence[float], form: str) -> str:
    return f"[{bounds[0]:{form}}, {bounds[1]:{form}}]"


def _text(name: str, box_style: box.Box, style: str = "") -> Text:
    """A name, which rich is not to take for markup, nor Markdown for two cells."""
    return Text(name.replace("|", "\\|") if box_style is box.MARKDOWN else name, style=style)


def _as_text(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=100_000).print(table)
    return text.getvalue().strip()


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
