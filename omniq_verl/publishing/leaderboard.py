"""A leaderboard: evaluations of many models on the same sets, the best mean SRCC first."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

import omniq_verl
from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.curves import short_names
from omniq_verl.evaluation.report import figure_text
from omniq_verl.generation.speed import read_speed
from omniq_verl.publishing.facts import read_evaluation

_NOTES = (
    "A cell is SRCC with its 95% bootstrap interval over images, and PLCC; a dash: not measured.",
    "The mean is over the sets that every model has measured; models are ordered by it.",
    "images/s: of one engine on the machine of the evaluation, without the time to load the model.",
)


def board(folders: Sequence[Path]) -> dict[str, Any]:
    """Rows and columns of the leaderboard.

    Args:
        folders: of ``omniq eval``.

    Returns:
        ``sets``, ``common`` (those of every model), ``rows`` with ``name``, ``model``, ``mode``, ``mean`` (None where
        no set is common), ``images_per_second`` and ``figures`` by set.

    Raises:
        ValueError: a folder is none of an evaluation, or is given twice.
    """
    rows = [_row(name, folder) for name, folder in zip(short_names(folders), folders, strict=True)]
    sets = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    defined = [{name for name, one in row["figures"].items() if one["srcc"]["value"] is not None} for row in rows]
    common = [name for name in sets if all(name in one for one in defined)]
    for row in rows:
        values = [row["figures"][name]["srcc"]["value"] for name in common]
        row["mean"] = sum(values) / len(values) if values else None
    rows.sort(key=lambda row: (row["mean"] is None, -(row["mean"] or 0.0), row["name"]))
    return {"made_by": f"omniq_verl {omniq_verl.__version__}", "sets": sets, "common": common, "rows": rows}


def _row(name: str, folder: Path) -> dict[str, Any]:
    metrics = read_evaluation(folder)
    keys = ("srcc", "plcc", "scored", "images")
    figures = {name: {key: one[key] for key in keys} for name, one in metrics["sets"].items() if "srcc" in one}
    return {
        "name": name,
        "model": metrics["model"],
        "mode": metrics.get("mode", "reason"),
        "images_per_second": read_speed(folder / "answers").rows_per_second,
        "figures": figures,
    }


def write_leaderboard(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write ``leaderboard.json``, ``.md`` and ``.html`` into ``out``; returns what the first holds."""
    found = board(folders)
    out.mkdir(parents=True, exist_ok=True)
    columns, rows = table(found)
    replace_text(out / "leaderboard.json", json.dumps(found, indent=2) + "\n")
    replace_text(out / "leaderboard.md", _markdown(columns, rows, found["made_by"]))
    pages = Environment(loader=PackageLoader("omniq_verl.publishing"), autoescape=True)
    context = {"columns": columns, "rows": rows, "notes": _NOTES, "made_by": found["made_by"]}
    replace_text(out / "leaderboard.html", pages.get_template("leaderboard.html").render(context))
    return found


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The leaderboard's columns and rows as texts."""
    columns = ["", "model", "mode", "mean SRCC", *found["sets"], "images/s"]
    return columns, [_cells(rank, row, found["sets"]) for rank, row in enumerate(found["rows"], 1)]


def _cells(rank: int, row: Mapping[str, Any], sets: Sequence[str]) -> list[str]:
    figures = [row["figures"].get(name) for name in sets]
    shown = [
        "-" if one is None else f"{figure_text(one['srcc'])} / {_number(one['plcc']['value'], 3)}" for one in figures
    ]
    return [str(rank), row["name"], row["mode"], _number(row["mean"], 3), *shown, _number(row["images_per_second"], 1)]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], made_by: str) -> str:
    lines = [columns, ["-"] * len(columns), *rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    notes = "\n".join(f"- {note}" for note in _NOTES)
    return f"# Leaderboard\n\n{body}\n\n{notes}\n\n{made_by}\n"
