"""The papers' results tables as data: figures printed in OmniQuality-R, Q-Insight and RALI, not measured here.

``papers/<name>.json`` has one paper. Numbers are as printed, even if the paper's averages do not match its columns.
Such cells are listed as ``misprints``, with the actual mean of the columns.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

Cell = tuple[float | None, ...] | None
"""One value per metric of the table, with None for a dash in the paper. An empty cell is None as a whole."""


@dataclass(frozen=True)
class PaperColumn:
    """One column of numbers."""

    name: str
    """Name as printed."""
    data_source: str | None
    """Value of the column ``data_source`` in prepared data; None: no data set, or one without a script."""
    task: str | None
    """The task that the paper asks about this data set."""
    of_class: str | None = None
    """Distortion class that the column covers, or ``null``; None: all rows."""
    mean_of: tuple[str, ...] = ()
    """Columns that a printed average covers; empty: not an average."""


@dataclass(frozen=True)
class PaperRow:
    """One method."""

    method: str
    group: str | None
    """The paper's category, or the training data."""
    values: tuple[Cell, ...]
    """Cells in column order."""


@dataclass(frozen=True)
class Misprint:
    """An average that differs from its columns' mean by more than rounding explains."""

    method: str
    group: str | None
    column: str
    metric: str
    printed: float
    mean: float

    def __str__(self) -> str:
        return (
            f"{self.column} {self.metric.replace('_', ' ')} of {self.method} is printed as {self.printed:g}; "
            f"the row's mean is {self.mean:g}"
        )


@dataclass(frozen=True)
class PaperTable:
    """One table of one paper."""

    name: str
    """``<paper>:<number>``, the argument of ``load_table``."""
    title: str
    """Title of the paper."""
    source: str
    caption: str
    metrics: tuple[str, ...]
    """Names of the values in a cell, e.g. ``("plcc", "srcc")``."""
    decimals: int
    """Decimals of the printed numbers."""
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    """Irregularities of the table, other than its averages."""
    misprints: tuple[Misprint, ...]


def list_tables() -> list[str]:
    """Return the names of all tables, ``omniquality_r:1`` and so on, paper by paper in printed order."""
    return [f"{key}:{number}" for key, paper in _papers().items() for number in paper["tables"]]


def load_table(name: str) -> PaperTable:
    """Load a table by name.

    Raises:
        ValueError: the name is unknown; the message lists all names.
    """
    if name not in list_tables():
        raise ValueError(f"unknown table {name!r}; known: {', '.join(list_tables())}")
    key, number = name.split(":")
    paper = _papers()[key]
    table = paper["tables"][number]
    return PaperTable(
        name=name,
        title=paper["title"],
        source=paper["source"],
        caption=table["caption"],
        metrics=tuple(table["metrics"]),
        decimals=table["decimals"],
        columns=tuple(_column(column) for column in table["columns"]),
        rows=tuple(_row(row) for row in table["rows"]),
        notes=tuple(table.get("notes", ())),
        misprints=tuple(_misprint(one) for one in paper["misprints"] if one["table"] == number),
    )


@cache
def _papers() -> dict[str, Any]:
    files = sorted(resources.files("omniq_verl.evaluation").joinpath("papers").iterdir(), key=str)
    return {file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in files}


def _column(column: dict[str, Any]) -> PaperColumn:
    mean_of = tuple(column.get("mean_of", ()))
    return PaperColumn(column["name"], column["data_source"], column["task"], column.get("class"), mean_of)


def _row(row: dict[str, Any]) -> PaperRow:
    cells = tuple(None if cell is None else tuple(cell) for cell in row["values"])
    return PaperRow(row["method"], row.get("group"), cells)


def _misprint(one: dict[str, Any]) -> Misprint:
    return Misprint(one["method"], one.get("group"), one["column"], one["metric"], one["printed"], one["mean"])
