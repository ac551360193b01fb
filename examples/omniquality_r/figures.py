"""Collects the measurements after each stage of a seed's run, for the tables of these examples."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from omniq_verl.metric_log import read_metrics
from omniq_verl.quickstart.tables import Figures

COLUMNS = {
    "SRCC (greedy)": ("greedy", "srcc"),
    "PLCC (greedy)": ("greedy", "plcc"),
    "MAE (greedy)": ("greedy", "mae"),
    "parsable (greedy)": ("greedy", "parsed"),
    "reward (temperature 1)": ("sampled", "reward"),
}


def figures_of(rows: Mapping[str, str]) -> Callable[[list[Path]], Figures]:
    """Return a function that collects the figures of every row.

    Args:
        rows: title -> folder of the run, relative to the seed's; its measurements are in ``<folder>_test``.
    """

    def collect(roots: list[Path]) -> Figures:
        found: Figures = {}
        for title, folder in rows.items():
            metrics = [json.loads((root / f"{folder}_test" / "metrics.json").read_text()) for root in roots]
            found[title] = {column: [m[mode][key] for m in metrics] for column, (mode, key) in COLUMNS.items()}
            found[title]["groups kept"] = [share_kept(root / folder) for root in roots]
        return found

    return collect


def share_kept(run: Path) -> float:
    """Share of a run's groups that were trained on; NaN for a run without groups, such as SFT."""
    steps = [step for step in read_metrics(run).values() if "filter/groups_kept" in step]
    kept, dropped = (sum(step[f"filter/groups_{name}"] for step in steps) for name in ("kept", "dropped"))
    return kept / (kept + dropped) if kept else math.nan
