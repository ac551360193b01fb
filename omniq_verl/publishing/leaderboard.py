"""A leaderboard: evaluations of many models on the same sets, the best mean SRCC first."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

import omniq_verl
from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.compare import SetKey, sets_by_key
from omniq_verl.evaluation.curves import short_names
from omniq_verl.evaluation.report import figure_text
from omniq_verl.generation.speed import read_speed
from omniq_verl.publishing.facts import doubts, read_evaluation

_NOTES = (
    "A cell is SRCC with its 95% bootstrap interval over images, and PLCC; a dash: not measured.",
    "The mean is over the sets that every model has measured; models are ordered by it.",
    "images/s: of one engine on the machine of the evaluation, without the time to load the model.",
)


def board(folders: Sequence[Path]) -> dict[str, Any]:
    """Rows and columns of the leaderboard.

    Sets are the same if their data source and task are.

    Args:
        folders: of ``omniq eval``.

    Returns:
        ``sets``, ``common`` (those of every model), ``limit`` (the ``--limit`` of all evaluations), ``notes`` (what
        makes figures doubtful), ``rows`` with ``name``, ``model``, ``mode``, ``mean`` (None where no set is common),
        ``images_per_second`` and ``figures`` by set.

    Raises:
        ValueError: a folder is none of an evaluation, or is given twice; or evaluations differ in their ``--limit``.
    """
    named = list(zip(short_names(folders), folders, strict=True))
    metrics = {name: read_evaluation(folder) for name, folder in named}
    limit = _limit_of(metrics)
    scored = {name: _scored(metrics[name], folder) for name, folder in named}
    labels = _labels(key for sets in scored.values() for key in sets)
    rows = [
        _row(name, folder, metrics[name], {labels[key]: one for key, one in scored[name].items()})
        for name, folder in named
    ]
    sets = list(labels.values())
    defined = [{name for name, one in row["figures"].items() if one["srcc"]["value"] is not None} for row in rows]
    common = [name for name in sets if all(name in one for one in defined)]
    for row in rows:
        values = [row["figures"][name]["srcc"]["value"] for name in common]
        row["mean"] = sum(values) / len(values) if values else None
    rows.sort(key=lambda row: (row["mean"] is None, -(row["mean"] or 0.0), row["name"]))
    return {
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "sets": sets,
        "common": common,
        "limit": limit,
        "notes": [*_doubtful(metrics), *_other_images(sets, rows)],
        "rows": rows,
    }


def _limit_of(metrics: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The limit of all evaluations.

    Raises:
        ValueError: they differ.
    """
    limits = {name: one.get("limit") for name, one in metrics.items()}
    if len(set(limits.values())) > 1:
        named = (f"{name} {'all rows' if limit is None else f'--limit {limit}'}" for name, limit in limits.items())
        raise ValueError(
            f"the evaluations measured different rows ({', '.join(named)}). Fix: evaluate all with the same --limit"
        )
    return next(iter(limits.values()), None)


def _scored(metrics: Mapping[str, Any], folder: Path) -> dict[SetKey, dict[str, Any]]:
    return {key: one for key, one in sets_by_key(metrics, folder / "metrics.json").items() if "srcc" in one}


def _labels(keys: Iterable[SetKey]) -> dict[SetKey, str]:
    """Names of the columns: the data source, with the task only if the source is there with several."""
    keys = list(dict.fromkeys(keys))
    sources = [source for source, _ in keys]
    return {(source, task): f"{source}/{task}" if sources.count(source) > 1 else source for source, task in keys}


def _row(name: str, folder: Path, metrics: Mapping[str, Any], sets: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("srcc", "plcc", "scored", "images")
    return {
        "name": name,
        "model": metrics["model"],
        "mode": metrics.get("mode", "reason"),
        "images_per_second": read_speed(folder / "answers").rows_per_second,
        "figures": {label: {key: one[key] for key in keys} for label, one in sets.items()},
    }


def _doubtful(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{name}: {doubt}" for name, one in metrics.items() for doubt in doubts(one)]


def _other_images(sets: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on sets of which the evaluations measured different numbers of images, as with other files."""
    notes = []
    for name in sets:
        images = {row["name"]: row["figures"][name]["images"] for row in rows if name in row["figures"]}
        if len(set(images.values())) > 1:
            counts = ", ".join(f"{run} {number}" for run, number in images.items())
            notes.append(f"{name}: the models were measured on different numbers of images ({counts})")
    return notes


def write_leaderboard(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write ``leaderboard.json``, ``.md`` and ``.html`` into ``out``; returns what the first holds."""
    found = board(folders)
    out.mkdir(parents=True, exist_ok=True)
    columns, rows = table(found)
    replace_text(out / "leaderboard.json", json.dumps(found, indent=2) + "\n")
    notes = [*_NOTES, *found["notes"]]
    replace_text(out / "leaderboard.md", _markdown(columns, rows, notes, found["made_by"]))
    pages = Environment(loader=PackageLoader("omniq_verl.publishing"), autoescape=True)
    context = {"columns": columns, "rows": rows, "notes": notes, "made_by": found["made_by"]}
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


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], made_by: str) -> str:
    lines = [columns, ["-"] * len(columns), *rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    listed = "\n".join(f"- {note}" for note in notes)
    return f"# Leaderboard\n\n{body}\n\n{listed}\n\n{made_by}\n"
