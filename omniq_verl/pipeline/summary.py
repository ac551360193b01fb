"""Figures of several seeds as tables: mean and spread, on a console and in Markdown."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

Figures = dict[str, dict[str, list[float]]]
"""By row and column, one number for each seed; NaN where there is none."""


def spread(values: Sequence[float], decimals: int = 3) -> str:
    """Mean and, for several seeds, the sample standard deviation; a dash if a value is missing."""
    if not len(values) or any(map(math.isnan, values)):
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{decimals}f}{deviation}"


def value_of(figure: Mapping[str, float | None]) -> float:
    """A figure of ``omniq eval``; NaN where it is not defined."""
    return math.nan if figure["value"] is None else figure["value"]


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; bars within cells are escaped."""
    rows = [list(head), ["---"] * len(head), *map(list, lines)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def figure_lines(found: Figures) -> list[list[str]]:
    """The rows of ``found`` as cells, each with its title first."""
    return [[title, *map(spread, columns.values())] for title, columns in found.items()]


def print_cells(
    title: str, head: Sequence[str], lines: Sequence[Sequence[str]], console: Console, numbers: bool = True
) -> None:
    """A table on the console; ``numbers``: all columns but the first hold numbers, which stand to the right.

    Otherwise the first column holds names, which are never broken.
    """
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(head):
        table.add_column(
            column, justify="right" if numbers and index else "left", overflow="fold", no_wrap=not (numbers or index)
        )
    for line in lines:
        table.add_row(*line)
    console.print(table)
