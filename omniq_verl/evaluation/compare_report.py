"""Present a comparison of runs in the terminal and as Markdown."""

import io
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.paired import TESTS, resamples_for
from omniq_verl.generation.provenance import lines_of, rows_text

SCORE_METRICS, CLASS_METRICS = ("plcc", "srcc"), ("class_accuracy", "level_accuracy")
_NAME_WIDTH, _COLUMN_WIDTH = 24, 17
"""Widths in the terminal, in characters: a row's name, and a set (``[0.935, 0.947]`` and the column gap)."""


def explain(comparison: Mapping[str, Any]) -> list[str]:
    """Explain what the cells show and who measured them, one sentence each."""
    sentences = [_of_run(run) for run in comparison["runs"]]
    sentences.append(
        "Cells: PLCC / SRCC (degradation: accuracy of class / of level), with 95% bootstrap intervals. A dash means"
        " that a run did not measure the set, or that the figure is undefined; the notes give the reason."
    )
    if paper := comparison["paper"]:
        sentences.append(
            f"Rows `paper: ...` are figures of {paper['title']} ({paper['source']}), {paper['name']}, as printed: "
            f"{_named(paper['metrics'])}. They were not measured here. {paper['caption']}"
        )
    return sentences


def explain_pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Explain how to read the differences."""
    first = pairs[0]["first"]
    return (
        f"Differences are {first} minus the other run over the images both scored: {first} is better where PLCC and "
        f"SRCC are above 0 and MAE (mean absolute error) is below 0. Brackets: 95% paired bootstrap intervals, "
        f"{resamples_for(len(pairs)):,} resamples. p is two-sided (bootstrap; for MAE Wilcoxon's signed-rank test) and "
        f"corrected by Holm's method, for each statistic over all {len(pairs)} pairs of runs and sets."
    )


def remarks(comparison: Mapping[str, Any]) -> list[str]:
    """Return the notes on the runs, followed by those on the paper's table."""
    paper = comparison["paper"]
    return [*comparison["notes"], *(f"{paper['name']}: {note}" for note in (paper["notes"] if paper else ()))]


def _of_run(run: Mapping[str, Any]) -> str:
    sampling = run["sampling"]
    if isinstance(sampling, Mapping):
        sampling = ", ".join(f"{name} {value}" for name, value in sampling.items())
    parts = [f"{run['name']}: {run['model']}", str(sampling), f"seed {run['seed']}"]
    if record := run.get("provenance"):
        parts += [f"rows {rows_text(record['data'])}", f"measured {record['date']}"]
    return "; ".join(parts)


def _named(metrics: Sequence[str]) -> str:
    return " / ".join(name.upper() if name in SCORE_METRICS else name.replace("_", " ") for name in metrics)


def print_comparison(comparison: Mapping[str, Any], console: Console) -> None:
    """Print every table of the comparison, with as many sets side by side as fit into the terminal."""
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
    """Write ``compare.md`` and ``compare.json`` into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "compare.md", markdown(comparison))
    replace_text(out / "compare.json", json.dumps(comparison, indent=2, allow_nan=False) + "\n")


def markdown(comparison: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown."""
    sets = _sets_table(comparison, slice(None), box.MARKDOWN, " ")
    parts = ["# Comparison", _list(explain(comparison)), _as_text(sets)]
    for other, pairs in groupby(comparison["pairs"], itemgetter("other")):
        title = f"## {comparison['runs'][0]['name']} minus {other}"
        parts += [title, _as_text(_pairs_table(list(pairs), box.MARKDOWN, " "))]
    if comparison["pairs"]:
        parts.append(explain_pairs(comparison["pairs"]))
    if notes := remarks(comparison):
        parts += ["## Notes", _list(notes)]
    parts += ["## Conditions", _list([f"{name}: `{text}`" for name, text in lines_of(comparison["provenance"])])]
    for run in comparison["runs"]:
        lines = [f"{name}: {one['scored']} of {one['images']} images scored" for name, one in run["sets"].items()]
        lines += [f"{name}: `{text}`" for name, text in lines_of(run["provenance"])]
        parts += [f"### {run['name']}", _list(lines)]
    return "\n\n".join(parts) + "\n"


def _sets_table(comparison: Mapping[str, Any], refs: slice, style: box.Box, between: str) -> Table:
    table = Table(box=style, pad_edge=style is box.MARKDOWN)
    table.add_column("", max_width=_NAME_WIDTH if style is not box.MARKDOWN else None, overflow="fold")
    for column in comparison["columns"][refs]:
        table.add_column(_text(column["label"], style), min_width=_COLUMN_WIDTH - 3, overflow="fold")
    group = None
    for row in comparison["rows"]:
        has_nothing_here = not (row["measured"] or any(row["cells"][refs]))
        if has_nothing_here and (any(row["cells"]) or refs.start):  # the paper's empty rows are shown once
            continue
        if row["group"] not in (None, group):
            table.add_row(_text(row["group"], style, "italic"))
        group = row["group"]
        cells = [_cell_text(cell, comparison, row["measured"], between) for cell in row["cells"][refs]]
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
    """Format difference, interval and p, if defined."""
    parts = ["-" if test["difference"] is None else f"{test['difference']:+.3f}"]
    if test.get("low") is not None:
        parts.append(_interval((test["low"], test["high"]), "+.3f"))
    if test["p_holm"] is not None:
        parts.append("p < 0.001" if test["p_holm"] < 0.001 else f"p {test['p_holm']:.3f}")
    return parts


def _interval(bounds: Sequence[float], form: str) -> str:
    return f"[{bounds[0]:{form}}, {bounds[1]:{form}}]"


def _text(name: str, box_style: box.Box, style: str = "") -> Text:
    """Escape a name so that neither rich nor Markdown interprets it as markup."""
    return Text(name.replace("|", "\\|") if box_style is box.MARKDOWN else name, style=style)


def _as_text(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=100_000).print(table)
    return text.getvalue().strip()


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
