"""The results tables of the papers as data: what OmniQuality-R, Q-Insight and RALI print, not what was measured here.

``papers/<name>.json`` holds one paper. Numbers are as printed, also where the paper itself does not add up: those cells
are its ``misprints``, with the mean of the columns they claim to average.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

Cell = tuple[float | None, ...] | None
"""One value per metric of the table, None where the paper has a dash; None as a whole: an empty cell."""


@dataclass(frozen=True)
class PaperColumn:
    """One column of numbers."""

    name: str
    """As printed."""
    data_source: str | None
    """What ``data_prep`` writes into the column of that name; None: no data set, or none there is a script for."""
    task: str | None
    """Which of the data set's questions the paper asks."""
    of_class: str | None = None
    """Of which distortion class the column is, or ``null``; None: of all rows."""
    mean_of: tuple[str, ...] = ()
    """The columns a printed average is about; empty: no average."""


@dataclass(frozen=True)
class PaperRow:
    """One method."""

    method: str
    group: str | None
    """The paper's category, or what was trained on."""
    values: tuple[Cell, ...]
    """In the order of the columns."""


@dataclass(frozen=True)
class Misprint:
    """An average that is further from its columns' mean than rounding explains."""

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
    """``<paper>:<number>``, as ``load_table`` takes it."""
    title: str
    """Of the paper."""
    source: str
    caption: str
    metrics: tuple[str, ...]
    """What the values of a cell are, e.g. ``("plcc", "srcc")``."""
    decimals: int
    """Of the printed numbers."""
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    """What is odd about the table apart from its averages."""
    misprints: tuple[Misprint, ...]


def list_tables() -> list[str]:
    """The names of all tables, ``omniquality_r:1`` and so on, paper by paper in printed order."""
    return [f"{key}:{number}" for key, paper in _papers().items() for number in paper["tables"]]


def load_table(name: str) -> PaperTable:
    """The table with that name.

    Raises:
        ValueError: there is none; the message lists all.
    """
    if name not in list_tables():
        raise ValueError(f"there is no table {name!r}; the tables are {', '.join(list_tables())}")
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
