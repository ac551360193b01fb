"""The table and the plot at the end of the quickstart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from omniq_verl.evaluation import curves
from omniq_verl.pipeline.tiny_stages import Settings

PANELS = ("reward", "validation_srcc", "entropy", "response_length")
"""The curves that are meaningful without filter and gate."""
_ROWS = (
    ("PLCC", "plcc", "greedy"),
    ("SRCC", "srcc", "greedy"),
    ("MAE", "mae", "greedy"),
    ("parsable answers", "parsed", "greedy"),
    ("mean reward", "reward", "greedy"),
    ("PLCC", "plcc", "sampled"),
    ("SRCC", "srcc", "sampled"),
    ("MAE", "mae", "sampled"),
    ("parsable answers", "parsed", "sampled"),
    ("mean reward", "reward", "sampled"),
)


def paired_gain(before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float]:
    """Return the gain in mean reward at temperature 1 and its standard error, paired over images.

    Each image counts once, with the mean over its samples. The error is the standard error of the mean over images (0
    for one image).
    """
    rewards = [frame[frame["mode"] == "sampled"].groupby("id").reward.mean() for frame in (before, after)]
    if not rewards[0].index.equals(rewards[1].index):
        raise ValueError("the two measurements are of different images")
    difference = rewards[1] - rewards[0]
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()), float(error)


def summary(settings: Settings) -> dict[str, Any]:
    """Return all numbers of a finished run."""
    measured = {name: json.loads((settings.root / name / "metrics.json").read_text()) for name in ("before", "after")}
    answers = [pd.read_parquet(settings.root / name / "answers.parquet") for name in ("before", "after")]
    gain, error = paired_gain(*answers)
    return {**measured, "reward_gain": gain, "reward_gain_standard_error": error, "seed": settings.seed}


def print_table(figures: dict[str, Any], console: Console) -> None:
    images = figures["before"]["greedy"]["answers"]
    table = Table(title=f"{images} held-out crops, tiny model, seed {figures['seed']}")
    for column in ("answers", "metric", "after SFT", "after GRPO"):
        table.add_column(column, justify="left" if column in ("answers", "metric") else "right", overflow="fold")
    for title, key, mode in _ROWS:
        values = [figures[name][mode][key] for name in ("before", "after")]
        label = "greedy" if mode == "greedy" else "temperature 1"
        table.add_row(label, title, *("-" if value is None else f"{value:.3f}" for value in values))
    console.print(table)
    gain, error = figures["reward_gain"], figures["reward_gain_standard_error"]
    console.print(
        f"Mean reward at temperature 1: {gain:+.3f} by GRPO, {gain / error:+.1f} standard errors (paired over images)."
        if error
        else f"Mean reward at temperature 1: {gain:+.3f} by GRPO."
    )


def draw_curves(folder: Path, out: Path) -> None:
    """Plot reward, validation SRCC, entropy and response length over the steps of a GRPO run."""
    curves.draw_curves([folder], out, PANELS)
