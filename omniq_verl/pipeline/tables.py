"""The papers' tables next to what was measured: ``tables.md`` and ``tables.json`` in the folder of a run."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.papers import PaperRow, PaperTable, load_table
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable, seed_folder
from omniq_verl.pipeline.stage import needs
from omniq_verl.pipeline.status import DONE, OUTDATED, StageState, stage_states
from omniq_verl.pipeline.summary import Figures, figure_lines, markdown_table, print_cells, spread

OURS = "**measured** "
"""Before the titles of our rows where they stand among a paper's."""


@dataclass(frozen=True)
class Filled:
    """A table, as far as its stages are done."""

    plan: OurTable
    paper: PaperTable | None
    """None: no paper has it."""
    found: Figures
    """Rows that are measured for every seed."""
    missing: tuple[str, ...]
    """What could not be measured, one sentence each."""


def fill(experiment: Experiment, root: Path) -> list[Filled]:
    """Read what the stages of an experiment have measured so far.

    Figures of a stage that is not done under today's settings, data and code are left out, and the stage is named:
    one table would hold figures of two versions.
    """
    states = stage_states(experiment.stages, root, needs(experiment.stages, root))
    return [_fill(table, experiment.seeds, root, states) for table in experiment.tables]


def _fill(table: OurTable, seeds: Sequence[int], root: Path, states: Sequence[StageState]) -> Filled:
    paper, found, missing = load_table(table.paper) if table.paper else None, {}, []
    for row in table.rows:
        if reason := _unfinished(row, seeds, states):
            missing.append(f"{row.title}: {reason}")
            continue
        try:
            seen = [table.read(root / seed_folder(seed) / row.folder) for seed in seeds]
        except FileNotFoundError as error:
            missing.append(f"{row.title}: {Path(error.filename).relative_to(root)} is not there yet")
            continue
        found[row.title] = {column: [one[column] for one in seen] for column in seen[0]}
    return Filled(table, paper, found, (*missing, *_empty_columns(found), *_unmatched(table, paper)))


def _unfinished(row: OurRow, seeds: Sequence[int], states: Sequence[StageState]) -> str:
    """Why the figures of a row are not today's; empty if they are."""
    folders = [PurePosixPath(seed_folder(seed)) / row.folder for seed in seeds]
    mine = [one for one in states for folder in folders if folder.is_relative_to(one.name)]
    for one in mine:
        if one.state == OUTDATED:
            return f"{one.name} is out of date: {one.why}"
        if one.state != DONE:
            return f"{one.name} is not done yet"
    return ""


def _empty_columns(found: Figures) -> list[str]:
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    empty = [one for one in columns if all(any(map(math.isnan, row[one])) for row in found.values())]
    return [f"no figures for {', '.join(empty)}"] if empty else []


def _unmatched(table: OurTable, paper: PaperTable | None) -> list[str]:
    if paper is None:
        return []
    ours = {row.paper for row in table.rows}
    others = [row.method for row in paper.rows if (row.group, row.method) not in ours]
    return [f"not measured here, the paper's numbers only: {', '.join(others)}"] if others else []


def write_tables(experiment: Experiment, root: Path) -> list[Filled]:
    """Write both files; the same stages give the same bytes."""
    filled = fill(experiment, root)
    replace_text(root / "tables.md", markdown(experiment, filled))
    replace_text(root / "tables.json", json.dumps(as_data(experiment, filled), indent=2) + "\n")
    return filled


def as_data(experiment: Experiment, filled: Sequence[Filled]) -> dict[str, Any]:
    """All figures as numbers, one for each seed; None where there is none."""
    tables = {
        one.plan.name: {
            "rows": {row: {name: _plain(values) for name, values in of.items()} for row, of in one.found.items()},
            "missing": list(one.missing),
        }
        for one in filled
    }
    about = {"experiment": experiment.name, "scale": experiment.scale, "seeds": list(experiment.seeds)}
    return {**about, "tables": tables, "not_run": experiment.not_run}


def _plain(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def markdown(experiment: Experiment, filled: Sequence[Filled]) -> str:
    """All tables on one page, with what could not be run."""
    seeds = ", ".join(map(str, experiment.seeds))
    run_options = "mean ± standard deviation over seeds" if len(experiment.seeds) > 1 else "seed"
    parts = [f"# {experiment.name}, scale {experiment.scale}\n\nMeasured here: {run_options} {seeds}.\n"]
    parts += [_section(one) for one in filled]
    if experiment.not_run:
        reasons = [f"- `{name}`: {why}\n" for name, why in experiment.not_run.items()]
        parts.append("## Tables that were not run\n\n" + "".join(reasons))
    return "\n".join(parts)


def _section(one: Filled) -> str:
    paper = one.paper
    caption = f"{paper.caption}\n" if paper else ""
    parts = [f"## {one.plan.name}\n\n{caption}"]
    if one.plan.note:
        parts.append(f"{one.plan.note}\n")
    if paper is not None and one.plan.same_columns:
        parts.append(markdown_table(_paper_head(paper), together(one, paper)))
    else:
        if one.found:
            columns = list(next(iter(one.found.values())))
            parts.append(markdown_table(["measured", *columns], figure_lines(one.found)))
        parts += _paper_alone(paper)
    parts += [f"Misprint: {misprint}.\n" for misprint in (paper.misprints if paper else ())]
    if one.missing:
        parts.append("Not run or not measured:\n\n" + "".join(f"- {reason}\n" for reason in one.missing))
    return "\n".join(parts)


def _paper_alone(paper: PaperTable | None) -> list[str]:
    """The paper's numbers as a table of their own."""
    if paper is None:
        return []
    lines = [_paper_line(row, paper) for row in paper.rows]
    return [markdown_table([f"the paper ({paper.name})", *_paper_head(paper)[1:]], lines)]


def _paper_head(paper: PaperTable) -> list[str]:
    names = " / ".join(
        metric.replace("_", " ").upper() if len(metric) == 4 else metric.replace("_", " ") for metric in paper.metrics
    )
    return [names, *(column.name for column in paper.columns)]


def together(one: Filled, paper: PaperTable) -> list[list[str]]:
    """The paper's rows, each of ours above the one it reproduces, and ours without one at the end."""
    by_row = {row.paper: row for row in one.plan.rows if row.paper is not None and row.title in one.found}
    lines = []
    for row in paper.rows:
        if mine := by_row.get((row.group, row.method)):
            lines.append(_our_line(mine, one, paper))
        lines.append(_paper_line(row, paper))
    alone = [row for row in one.plan.rows if row.paper is None and row.title in one.found]
    return [*lines, *(_our_line(row, one, paper) for row in alone)]


def _our_line(row: OurRow, one: Filled, paper: PaperTable) -> list[str]:
    found = one.found[row.title]
    cells = [
        " / ".join(spread(found[f"{column.name} {metric}"], paper.decimals) for metric in paper.metrics)
        for column in paper.columns
    ]
    return [OURS + row.title, *cells]


def _paper_line(row: PaperRow, paper: PaperTable) -> list[str]:
    title = f"{row.group}: {row.method}" if row.group else row.method
    cells = [_printed(cell, paper.decimals) for cell in row.values]
    return [title, *cells]


def _printed(cell: Sequence[float | None] | None, decimals: int) -> str:
    if cell is None:
        return ""
    return " / ".join("-" if value is None else f"{value:.{decimals}f}" for value in cell)


def print_tables(filled: Sequence[Filled], console: Console) -> None:
    """What was measured, on the console."""
    for one in filled:
        if one.found:
            columns = list(next(iter(one.found.values())))
            print_cells(one.plan.name, ["measured", *columns], figure_lines(one.found), console)
        for reason in one.missing:
            console.print(f"{one.plan.name}: {reason}", markup=False, highlight=False, soft_wrap=True)
