"""Run an example with several seeds and tabulate the results: a row per stage, with mean and spread over seeds."""

import argparse
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
    """Run all stages for every seed, print the table, and write it as JSON and Markdown next to the seeds' folders.

    Args:
        seeds: settings, each with the run folder of its seed.
        build: a function from settings to stages.
        collect: a function from the seeds' run folders to their figures.
    """
    console = Console()
    try:
        for settings in seeds:
            with run_folder_lock(settings.root):
                run_stages(build(settings), settings.root, console)
    except StageFailed as error:
        sys.exit(str(error))
    found, numbers = collect([settings.root for settings in seeds]), [settings.seed for settings in seeds]
    figures = {"seeds": numbers, "steps": seeds[0].grpo_steps, "rows": found}
    out = seeds[0].root.parent
    (out / "table.json").write_text(json.dumps(figures, indent=2) + "\n")
    (out / "table.md").write_text(markdown(found))
    print_table(found, numbers, console)


def seeds_parser(doc: str, out: str, steps: int) -> argparse.ArgumentParser:
    """A parser with the options that all these examples share.

    Args:
        doc: description of the example.
        out: default folder.
        steps: default number of GRPO steps of each run.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder; runs are resumed (default: {out})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument(
        "--steps", type=int, default=steps, help=f"GRPO steps for each task or set of a run (default: {steps})"
    )
    return parser


def crops_arguments(doc: str) -> argparse.Namespace:
    """Parse ``data``, ``out`` (which is created) and ``seed`` of a script that derives data from the quickstart's."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="output folder of omniq data photo_distortions")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def seeds_of(args: argparse.Namespace, repo: Path, crops: Mapping[str, int] | None = None) -> list[Settings]:
    """The settings for these options, in the checkout ``repo``; ``crops`` as in ``Settings``."""
    size = {"grpo_steps": args.steps, "crops": dict(crops or {})}
    return [Settings(repo, args.out.resolve() / f"seed{seed}", seed, **size) for seed in args.seeds]


def print_table(found: Figures, seeds: list[int], console: Console) -> None:
    table = Table(title=f"tiny model, held-out crops, seeds {seeds}: mean and standard deviation over seeds")
    table.add_column("", overflow="fold")
    for column in next(iter(found.values())):
        table.add_column(column, justify="right", overflow="fold")
    for title, columns in found.items():
        table.add_row(title, *map(spread, columns.values()))
    console.print(table)


def markdown(found: Figures) -> str:
    """The same table for a README."""
    head = ["", *next(iter(found.values()))]
    lines = [head, ["---"] * len(head), *([title, *map(spread, columns.values())] for title, columns in found.items())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def value_of(figure: Mapping[str, float | None]) -> float:
    """A figure of ``omniq eval``; NaN if it is not defined."""
    return math.nan if figure["value"] is None else figure["value"]


def spread(values: list[float]) -> str:
    """Mean and, for several values, standard deviation."""
    if any(map(math.isnan, values)):
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")
