"""Runs of an example on several seeds, and what they measured: a line for each stage, mean and spread over seeds."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from omniq_verl.quickstart.runner import StageFailed, run_folder_lock, run_stages
from omniq_verl.quickstart.stages import Settings, Stage

Figures = dict[str, dict[str, list[float]]]
"""By row and column, one number for each seed."""


def run_seeds(
    seeds: Sequence[Settings], build: Callable[[Settings], list[Stage]], collect: Callable[[list[Path]], Figures]
) -> None:
    """Run all stages of every seed, print the table, and write it as JSON beside the seeds' folders.

    Args:
        seeds: settings, each with the run folder of its seed.
        build: settings -> stages.
        collect: the seeds' run folders -> what was measured in them.
    """
    console = Console()
    try:
        for settings in seeds:
            with run_folder_lock(settings.root):
                run_stages(build(settings), settings.root, console)
    except StageFailed as error:
        sys.exit(str(error))
    found, numbers = collect([settings.root for settings in seeds]), [settings.seed for settings in seeds]
    said = {"seeds": numbers, "steps": seeds[0].grpo_steps, "rows": found}
    (seeds[0].root.parent / "table.json").write_text(json.dumps(said, indent=2) + "\n")
    print_table(found, numbers, console)


def print_table(found: Figures, seeds: list[int], console: Console) -> None:
    table = Table(title=f"tiny model, held-out crops, seeds {seeds}: mean and standard deviation over seeds")
    table.add_column("")
    for column in next(iter(found.values())):
        table.add_column(column, justify="right")
    for title, columns in found.items():
        table.add_row(title, *map(spread, columns.values()))
    console.print(table)


def value_of(figure: Mapping[str, float | None]) -> float:
    """A figure of ``omniq eval``; NaN where it is not defined."""
    return math.nan if figure["value"] is None else figure["value"]


def spread(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    if any(map(math.isnan, values)):
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")
