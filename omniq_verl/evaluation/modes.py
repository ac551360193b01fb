"""Compare a model with and without reasoning on one page: how well its scores agree with labels, and what they cost."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.report import figure_text
from omniq_verl.evaluation.run import EvalConfig, evaluate
from omniq_verl.generation.direct import MODES
from omniq_verl.generation.speed import read_speed
from omniq_verl.generation.store import read_store

_COLUMNS = ("set", "mode", "SRCC", "PLCC", "scored", "images/s", "tokens", "outside")
_NOTES = (
    "Brackets: 95% bootstrap intervals over images.",
    "images/s: for one engine on this machine, without the time to load the model.",
    "tokens: written per image; without reasoning, the next-token distributions that were computed.",
    "outside: mean probability that the model, after a forced <answer>, writes anything but a number on the scale.",
)


def evaluate_modes(config: EvalConfig, console: Console) -> dict[str, Any]:
    """Evaluate each mode into a separate folder, and write ``modes.md`` and ``modes.json`` next to these folders.

    Returns:
        Content of ``modes.json``: ``model``, and ``rows``, one for each set and mode.

    Raises:
        ValueError: see ``evaluate``; also, a task does not ask for a number.
    """
    found = {}
    for mode in MODES:
        console.print(f"mode {mode}")
        found[mode] = evaluate(replace(config, mode=mode, out=config.out / mode), console)
    rows = [row for mode, metrics in found.items() for row in mode_rows(mode, metrics, config.out / mode / "answers")]
    rows.sort(key=lambda row: row["set"])
    page = {"model": config.engine.model, "rows": rows}
    replace_text(config.out / "modes.json", json.dumps(page, indent=2) + "\n")
    replace_text(config.out / "modes.md", modes_page(page))
    console.print(f"both modes: {config.out / 'modes.md'}", soft_wrap=True, markup=False)
    return page


def mode_rows(mode: str, metrics: Mapping[str, Any], answers: Path) -> list[dict[str, Any]]:
    """Return one row for each set of an evaluation.

    Args:
        mode: mode of the evaluation.
        metrics: content of its ``metrics.json``.
        answers: folder of its answers.
    """
    speed = read_speed(answers)
    outside = [one["outside"] for record in read_store(answers) for one in record["answers"] if "outside" in one]
    return [
        {
            "set": name,
            "mode": mode,
            "srcc": figures["srcc"],
            "plcc": figures["plcc"],
            "scored": figures["scored"],
            "images": figures["images"],
            "images_per_second": speed.rows_per_second,
            "tokens_per_image": speed.tokens_per_row,
            "outside": float(pd.Series(outside).mean()) if outside else None,
        }
        for name, figures in metrics["sets"].items()
        if "srcc" in figures
    ]


def modes_page(page: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    lines = [_COLUMNS, ["-"] * len(_COLUMNS), *map(_cells, page["rows"])]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "\n".join(f"- {note}" for note in _NOTES)
    return f"# With and without reasoning\n\nModel: `{page['model']}`\n\n{table}\n\n{notes}\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["set"].replace("|", "\\|"),
        row["mode"],
        figure_text(row["srcc"]),
        figure_text(row["plcc"]),
        f"{row['scored']} of {row['images']}",
        _number(row["images_per_second"], 2),
        _number(row["tokens_per_image"], 1),
        _number(row["outside"], 4),
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
