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
from omniq_verl.trainer.metric_files import read_metrics

COLUMNS = {
    "SRCC": ("greedy", "srcc"),
    "PLCC": ("greedy", "plcc"),
    "MAE": ("greedy", "mae"),
    "parsable": ("greedy", "parsed"),
    "reward": ("sampled", "reward"),
}
Figures = dict[str, dict[str, list[float]]]


def run_seeds(seeds: Sequence[Settings], build: Callable[[Settings], list[Stage]], rows: Mapping[str, str]) -> None:
    """Run all stages of every seed, print the table, and write it as JSON beside the seeds' folders.

    Args:
        seeds: settings, each with the run folder of its seed.
        build: settings -> stages.
        rows: title -> folder of the run in a seed's; what was measured after it is in ``<folder>_test``.
    """
    console = Console()
    try:
        for settings in seeds:
            with run_folder_lock(settings.root):
                run_stages(build(settings), settings.root, console)
    except StageFailed as error:
        sys.exit(str(error))
    found, numbers = collect([settings.root for settings in seeds], rows), [settings.seed for settings in seeds]
    said = {"seeds": numbers, "steps": seeds[0].grpo_steps, "rows": found}
    (seeds[0].root.parent / "table.json").write_text(json.dumps(said, indent=2) + "\n")
    print_table(found, numbers, console)


def collect(roots: list[Path], rows: Mapping[str, str]) -> Figures:
    """Figures of every row and column, one for each seed."""
    found: Figures = {}
    for title, folder in rows.items():
        metrics = [json.loads((root / f"{folder}_test" / "metrics.json").read_text()) for root in roots]
        found[title] = {column: [m[mode][key] for m in metrics] for column, (mode, key) in COLUMNS.items()}
        found[title]["groups kept"] = [share_kept(root / folder) for root in roots]
    return found


def share_kept(run: Path) -> float:
    """Share of a run's groups that were trained on; NaN where there was none, as in SFT."""
    steps = [step for step in read_metrics(run).values() if "filter/groups_kept" in step]
    kept, dropped = (sum(step[f"filter/groups_{name}"] for step in steps) for name in ("kept", "dropped"))
    return kept / (kept + dropped) if kept else math.nan


def print_table(found: Figures, seeds: list[int], console: Console) -> None:
    table = Table(title=f"tiny model, held-out crops, seeds {seeds}: mean and standard deviation over seeds")
    table.add_column("")
    for column in [*COLUMNS, "groups kept"]:
        said = {"reward": " (temperature 1)", "groups kept": ""}.get(column, " (greedy)")
        table.add_column(column + said, justify="right")
    for title, columns in found.items():
        table.add_row(title, *map(spread, columns.values()))
    console.print(table)


def spread(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    if any(map(math.isnan, values)):
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")
