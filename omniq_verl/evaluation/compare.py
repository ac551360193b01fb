"""Compare runs side by side, optionally with a paper's table, with paired tests of the first run against the others.

A run is the folder of an evaluation: ``metrics.json`` has the metrics of each set with intervals, ``images.parquet``
one row per image. A set is identified by its data source and task.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import ArrowException
from rich.console import Console

from omniq_verl import __version__
from omniq_verl.evaluation.answers import NO_DISTORTION
from omniq_verl.evaluation.compare_report import CLASS_METRICS, SCORE_METRICS, print_comparison, write_comparison
from omniq_verl.evaluation.gaps import gap
from omniq_verl.evaluation.paired import TESTS, compare_scores, holm, join_images, resamples_for
from omniq_verl.evaluation.papers import PaperTable, load_table
from omniq_verl.generation.provenance import this_start
from omniq_verl.tasks import find_task

SetKey = tuple[str, str]  # data source, task


@dataclass(frozen=True)
class Run:
    """One evaluation, as read from its folder."""

    name: str
    folder: Path
    metrics: dict[str, Any]
    sets: dict[SetKey, dict[str, Any]]


def compare_runs(runs: Sequence[Path], paper: str | None, out: Path | None, console: Console) -> dict[str, Any]:
    """Print and return the comparison of evaluations.

    It starts with the PLCC and SRCC of every run on every set, above the rows of the paper. Each later run is then
    compared with the first one over the images that both scored: the differences (first run minus the other) in PLCC,
    SRCC and mean absolute error, with 95% paired bootstrap intervals (2,000 resamples or more, seed 0) and p-values.
    The p-values are corrected by Holm's method, for each statistic over all sets and runs; ``compare.json`` also has
    the uncorrected ones. Degradation sets are not tested, because they have no scores.

    Args:
        runs: folders with ``metrics.json`` and, for more than one run, ``images.parquet``.
        paper: name of a table, e.g. ``"omniquality_r:1"``; None: only the runs.
        out: folder for ``compare.md`` and ``compare.json``; None: nothing is written.
        console: where to print the tables.

    Returns:
        The content of ``compare.json``: ``made_by``, ``provenance`` (of this comparison), ``paper``, ``runs``,
        ``columns``, ``rows``, ``pairs``, ``notes``.

    Raises:
        FileNotFoundError: a run lacks a file; the message names it and the command that writes it.
        ValueError: there is no run or a repeated one; the table is unknown; a file is invalid; an image occurs twice in
            a run or has another label in another run; runs measured different rows of a set because of ``--limit``.
    """
    table = load_table(paper) if paper else None
    read = read_runs(runs)
    different = other_rows(read)
    marked = {name for name, _ in different}
    columns = list_columns(read, table)
    pairs = compare_pairs(read)
    comparison = {
        "made_by": f"omniq_verl {__version__}",
        "provenance": this_start(),
        "paper": _about_paper(table) if table else None,
        "runs": [_about_run(run) for run in read],
        "columns": columns,
        "rows": [
            *(_run_row(run, columns, run.name in marked) for run in read),
            *(_paper_rows(table, columns) if table else []),
        ],
        "pairs": pairs,
        "notes": [*_partial(read), *_together(different), *_unscored(read), *_undefined(read), *_unmatched(pairs)],
    }
    print_comparison(comparison, console)
    if out is not None:
        write_comparison(comparison, out)
    return comparison


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in these folders and name them after their folders, with parent folders if names are equal."""
    folders = [Path(folder).resolve() for folder in folders]
    if not folders or len(set(folders)) < len(folders):
        raise ValueError(f"give one or more folders of evaluations, each once; got {', '.join(map(str, folders))}")
    return [_read_run(folder, _short_name(folder, folders)) for folder in folders]


def _short_name(folder: Path, folders: Sequence[Path]) -> str:
    for depth in range(1, len(folder.parts) + 1):
        tail = folder.parts[-depth:]
        if sum(other.parts[-depth:] == tail for other in folders) == 1:
            return "/".join(tail)
    return "/".join(folder.parts)


def _read_run(folder: Path, name: str) -> Run:
    file = _existing(folder / "metrics.json")
    try:
        metrics = json.loads(file.read_bytes())
        sets = {(one["data_source"], same_task(one["task"])): one for one in metrics["sets"].values()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{file} has no `sets` of figures as `omniq eval` writes them ({why}). Fix: name an evaluation's folder"
        ) from error
    if len(sets) < len(metrics["sets"]):
        raise ValueError(
            f"{file} has a data source that was asked in two wordings. Fix: evaluate each wording in a separate run"
        )
    return Run(name, folder, metrics, sets)


def same_task(name: str) -> str:
    """Return the original task with the same labels, so different wordings of one question are compared."""
    try:
        return find_task(name).like or name
    except ValueError:  # a task that is not installed on this machine
        return name


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. Fix: give the folder of a finished `omniq eval` run")
    return file


def read_images(run: Run) -> pd.DataFrame:
    """Read a run's ``images.parquet``, indexed and sorted by data source, task and key.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: an image occurs twice in the file.
    """
    file = _existing(run.folder / "images.parquet")
    try:
        images = pd.read_parquet(file, columns=["data_source", "task", "key", "target", "score"])
    except (ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{file} was not written by `omniq eval` ({error}). Fix: evaluate again") from error
    # A row in another wording is the same row, but its key begins with the name of another task.
    images["key"] = [key.removeprefix(f"{task}/") for key, task in zip(images.key, images.task, strict=True)]
    images["task"] = images.task.map(same_task)
    again = images[images.duplicated(["data_source", "task", "key"])]
    if len(again):
        raise ValueError(f"{file}: {again.iloc[0].key} of {again.iloc[0].data_source} occurs twice")
    return images.set_index(["data_source", "task", "key"]).sort_index()


def other_rows(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Find sets in which a run measured other rows than an earlier run; return the run's name and a sentence for each.

    Raises:
        ValueError: the rows differ because of ``--limit``.
    """
    rows: dict[SetKey, tuple[Run, frozenset[str]]] = {}
    found = []
    for run in runs if len(runs) > 1 else ():
        for (source, task), some in read_images(run).groupby(level=["data_source", "task"]):
            source, task = str(source), str(task)
            keys = frozenset(some.index.get_level_values("key"))
            other, before = rows.setdefault((source, task), (run, keys))
            if keys == before:
                continue
            sides = f"{other.name} {len(before)}{_limit_of(other)}, {run.name} {len(keys)}{_limit_of(run)}"
            problem = f"different rows of {source}/{task}: {sides}, {len(keys & before)} in common"
            if run.metrics.get("limit") != other.metrics.get("limit"):
                raise ValueError(f"the runs measured {problem}. Fix: evaluate both with the same --limit")
            found.append((run.name, f"{problem}; only the differences below are over the same images"))
    return found


def _limit_of(run: Run) -> str:
    limit = run.metrics.get("limit")
    return f" (--limit {limit})" if limit else ""


def _marked(run: Run) -> str:
    """Return a run's name, with its ``--limit`` if it measured only part of its files."""
    return f"{run.name}{_limit_of(run)}"


def list_columns(runs: Sequence[Run], table: PaperTable | None) -> list[dict[str, Any]]:
    """List the paper's columns in its order, then the sets only the runs have, then a mean if the paper has none.

    The mean is over the score sets for which every run has a defined PLCC and SRCC.
    """
    columns = [_column(**asdict(one)) for one in (table.columns if table else ())]
    known = {(one["data_source"], one["task"]) for one in columns}
    added = list(dict.fromkeys(key for run in runs for key in run.sets if key not in known))
    taken = [*(source for source, _ in {*added, *known}), *(one["label"] for one in columns)]
    for source, task in added:
        columns.append(_column(f"{source}/{task}" if taken.count(source) > 1 else source, source, task))
    common = [one["label"] for one in columns if all(_has_scores(run, one) for run in runs)]
    if len(common) > 1 and not any(one["mean_of"] for one in columns):
        columns.append(_column(f"mean of {len(common)}", None, None, mean_of=common))
    return columns


def _column(
    name: str,
    data_source: str | None,
    task: str | None,
    of_class: str | None = None,
    mean_of: Sequence[str] = (),
) -> dict[str, Any]:
    about = {"data_source": data_source, "task": task, "of_class": of_class}
    return {"label": name, **about, "mean_of": list(mean_of)}


def _has_scores(run: Run, column: Mapping[str, Any]) -> bool:
    one = run.sets.get((column["data_source"], column["task"]), {})
    return all(name in one and one[name]["value"] is not None for name in SCORE_METRICS)


def _run_row(run: Run, columns: Sequence[Mapping[str, Any]], other_rows: bool = False) -> dict[str, Any]:
    cells = {one["label"]: _run_cell(_shown(run, one)) for one in columns}
    without_level = {one["label"] for one in columns if one["of_class"] == NO_DISTORTION}
    for one in columns:
        if one["mean_of"]:
            cells[one["label"]] = _mean_cell({label: cells[label] for label in one["mean_of"]}, without_level)
    name = f"{_marked(run)} (other rows)" if other_rows else _marked(run)
    return {"name": name, "measured": True, "group": None, "cells": list(cells.values())}


def _shown(run: Run, column: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the figures of a set, or of one distortion class in it."""
    about = run.sets.get((column["data_source"], column["task"]))
    if about is None or column["of_class"] is None:
        return about
    return about.get("classes", {}).get(column["of_class"])


def _run_cell(about: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if about is None:
        return None
    found = [about[name] for name in (CLASS_METRICS if "class_accuracy" in about else SCORE_METRICS)]
    return {
        "values": [one["value"] for one in found],
        "intervals": [None if one["low"] is None else [one["low"], one["high"]] for one in found],
    }


def _mean_cell(cells: Mapping[str, Mapping[str, Any] | None], without_level: set[str]) -> dict[str, Any] | None:
    """Return the mean over all cells; None if one is missing, because the paper's mean next to it covers all cells.

    The classes in ``without_level`` have no level accuracy and do not contribute to its mean.
    """
    known = {label: cell["values"] for label, cell in cells.items() if cell is not None}
    if len(known) < len(cells):
        return None
    if any(None in values[: 1 if label in without_level else None] for label, values in known.items()):
        return None
    figures = zip(*known.values(), strict=True)
    means = [float(np.mean([value for value in values if value is not None])) for values in figures]
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
    known = {
        key: run.metrics.get(key)
        for key in ("made_by", "model", "sampling", "seed", "limit", "warnings", "provenance", "sets")
    }
    return {"name": run.name, "folder": str(run.folder), **known}


def compare_pairs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Compare the first run with each of the others, on each score set that both have.

    Each entry has ``first``, ``other``, ``data_source``, ``task``, the result of ``compare_scores``, and ``p_holm`` in
    each of its tests.
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
            pairs.append({**named, **compare_scores(of_set.get(key, images.iloc[:0]), resamples_for(comparisons))})
    for test in TESTS:
        for pair, p in zip(pairs, holm([pair[test]["p"] for pair in pairs]), strict=True):
            pair[test]["p_holm"] = p
    return pairs


def _partial(runs: Sequence[Run]) -> list[str]:
    """Return notes that make a whole run doubtful."""
    limited = [
        f"{run.name} measured only the first {limit} rows of each file: its figures are not those of the whole sets"
        for run in runs
        if (limit := run.metrics.get("limit"))
    ]
    return [*limited, *(f"{run.name}: {warning}" for run in runs for warning in run.metrics.get("warnings") or ())]


def _undefined(runs: Sequence[Run]) -> list[str]:
    return _together(
        (f"{run.name}, {name.upper().replace('_', ' ')}", f"{source}/{task} ({reason})")
        for run in runs
        for (source, task), one in run.sets.items()
        for name in (*SCORE_METRICS, *CLASS_METRICS)
        if name in one and (reason := gap(one[name], run.metrics.get("resamples", 0)))
    )


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
                found.append((f"{runs}, images that only {pair[side]} scored", f"{where} {number}"))
        found += [(f"{runs}, no test", f"{where} ({pair[test]['reason']})") for test in TESTS if pair[test]["reason"]]
    return _together(found)


def _together(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Join the notes on the same subject into one sentence."""
    found: dict[str, list[str]] = {}
    for about, what in notes:
        if what not in found.setdefault(about, []):
            found[about].append(what)
    return [f"{about}: {', '.join(what)}" for about, what in found.items()]
