"""The output of a finding: numbers (JSON), plots (PDF and PNG), and a self-contained page (HTML)."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console

import omniq_verl
from omniq_verl.data.files import replace_bytes, replace_text
from omniq_verl.data.images import data_url
from omniq_verl.evaluation.intervals import Interval
from omniq_verl.generation.provenance import lines_of

COLUMN = 3.4
"""Width of a column of a two-column paper, in inches."""
_STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,  # keeps text as text, which publishers require
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Finding:
    """Everything that a finding's page shows."""

    name: str
    """Name of the command and of its output files."""
    title: str
    question: str
    """What is measured, in two or three sentences."""
    found: Sequence[str]
    """Sentences with the numbers that matter most."""
    tables: Sequence[Mapping[str, Any]]
    """Each table has a ``title``, ``columns``, and ``rows`` of texts."""
    numbers: Mapping[str, Any]
    """All results, for the JSON file."""
    record: Mapping[str, Any]
    """Conditions of the measurement, from ``provenance``."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Figures by the ending of their file name: "" is ``NAME.png`` and ``NAME.pdf``."""
    reading: Sequence[str] = ()
    """How to interpret the results, and what they do not show."""


def write_finding(out: Path, finding: Finding, console: Console) -> Path:
    """Write ``NAME.json``, ``NAME*.pdf``, ``NAME*.png`` and ``NAME.html``; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    name = finding.name.replace("-", "_")
    pictures = {}
    for ending, figure in finding.figures.items():
        pictures[ending or "plot"] = data_url(_save(figure, out / f"{name}{ending and '_' + ending}"))
    about = {"made_by": f"omniq_verl {omniq_verl.__version__}", "found": list(finding.found)}
    text = json.dumps({**about, **finding.numbers, "provenance": finding.record}, indent=2, allow_nan=False)
    replace_text(out / f"{name}.json", text + "\n")
    page = (
        Environment(loader=PackageLoader("omniq_verl.findings"), autoescape=True)
        .get_template("finding.html")
        .render(finding=finding, pictures=pictures, conditions=lines_of(finding.record), made_by=about["made_by"])
    )
    path = replace_text(out / f"{name}.html", page)
    for sentence in finding.found:
        console.print(sentence, markup=False, soft_wrap=True)
    for title, file in (("numbers", out / f"{name}.json"), ("page", path)):
        console.print(f"{title}: {file}", markup=False, soft_wrap=True)
    return path


def _save(figure: Figure, path: Path) -> bytes:
    """Write a figure as PDF and PNG; returns the PNG."""
    with rc_context(_STYLE):
        # No date is written, so the same numbers give the same file.
        replace_bytes(path.with_suffix(".pdf"), _drawn(figure, format="pdf", metadata={"CreationDate": None}))
        png = _drawn(figure, format="png", dpi=250)
    replace_bytes(path.with_suffix(".png"), png)
    return png


def _drawn(figure: Figure, **run_options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **run_options)
    return buffer.getvalue()


def new_figure(height: float, rows: int = 1, columns: int = 1, **run_options: Any) -> tuple[Figure, Any]:
    """Return a figure as wide as a paper's column, with 7-point text, and its axes ``[rows, columns]``.

    Args:
        height: height in inches.
        rows: rows of panels.
        columns: columns of panels.
        run_options: further arguments of matplotlib's ``subplots``.
    """
    figure = Figure(figsize=(COLUMN, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **run_options)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def label(axis: Any, title: str = "", x: str = "", y: str = "") -> None:
    """Label a panel in the text sizes of a paper's figure. Names of models are not rendered as formulas."""
    axis.set_title(title, fontsize=8, loc="left", parse_math=False)
    axis.set_xlabel(x, fontsize=7)
    axis.set_ylabel(y, fontsize=7)


def number(value: float | None, form: str = ".3f") -> str:
    """Format a number for a table; a dash if it is undefined."""
    return "-" if value is None or value != value else f"{value:{form}}"


def with_interval(value: float | None, bounds: Interval, form: str = ".3f") -> str:
    """Format a number and its interval, e.g. ``0.912 [0.903, 0.921]``."""
    if value is None or bounds.low is None or bounds.high is None:
        return number(value, form)
    return f"{value:{form}} [{bounds.low:{form}}, {bounds.high:{form}}]"


def as_figure(value: float | None, bounds: Interval, n: int) -> dict[str, Any]:
    """Return a number with its interval, for JSON."""
    return {"value": value, "low": bounds.low, "high": bounds.high, "n": n}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return a table for ``Finding.tables``."""
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
