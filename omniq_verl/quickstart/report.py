"""The table and the plot at the end of the quickstart."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from omniq_verl.evaluation.correlations import correlations
from omniq_verl.quickstart.stages import Settings
from omniq_verl.rewards import parse_response
from omniq_verl.tasks import TECHNICAL
from omniq_verl.trainer.metric_files import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt

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
    """Gain of the mean reward at temperature 1 and its standard error, paired over images.

    Each image counts once, with the mean over its samples; the error is that of the mean over images (0 for one image).
    """
    rewards = [frame[frame["mode"] == "sampled"].groupby("id").reward.mean() for frame in (before, after)]
    if not rewards[0].index.equals(rewards[1].index):
        raise ValueError("the two measurements are not of the same images")
    difference = rewards[1] - rewards[0]
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()), float(error)


def summary(settings: Settings) -> dict[str, Any]:
    """All figures of a finished run."""
    measured = {name: json.loads((settings.root / name / "metrics.json").read_text()) for name in ("before", "after")}
    answers = [pd.read_parquet(settings.root / name / "answers.parquet") for name in ("before", "after")]
    gain, error = paired_gain(*answers)
    return {**measured, "reward_gain": gain, "reward_gain_standard_error": error, "seed": settings.seed}


def print_table(figures: dict[str, Any], console: Console) -> None:
    images = figures["before"]["greedy"]["answers"]
    table = Table(title=f"{images} held-out crops, tiny model, seed {figures['seed']}")
    for column in ("answers", "metric", "after SFT", "after GRPO"):
        table.add_column(column, justify="left" if column in ("answers", "metric") else "right")
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


def validation_srcc(folder: Path) -> dict[int, float]:
    """SRCC of all parsable validation answers, by step, from the answers verl wrote down."""
    found = {}
    for path in folder.glob("validation/*.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        parsed = [(parse_response(record["output"], scale=TECHNICAL.scale), record["gts"]) for record in records]
        pairs = [(answer.score, json.loads(target)["score"]) for answer, target in parsed if answer.ok]
        srcc = correlations(*zip(*pairs, strict=True))["srcc"] if pairs else None
        if srcc is not None:
            found[int(path.stem)] = srcc
    return dict(sorted(found.items()))


def draw_curves(folder: Path, out: Path) -> None:
    """Reward, validation SRCC, entropy and response length over the steps of a GRPO run, as one PNG."""
    metrics = read_metrics(folder)
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), sharex=True)
    reward, srcc, entropy, length = axes.flat
    _draw(reward, "mean reward", _series(metrics, "critic/score/mean"), "rollouts (other prompts each step)")
    _draw(reward, "mean reward", _validation_reward(metrics), "validation", marker="o")
    reward.legend(fontsize=9, frameon=False)
    _draw(srcc, "validation SRCC (temperature 1)", validation_srcc(folder), marker="o")
    _draw(entropy, "entropy of the policy (nats per token)", _series(metrics, "actor/entropy"))
    _draw(length, "response length (tokens)", _series(metrics, "response_length/mean"))
    for axis in axes[1]:
        axis.set_xlabel("GRPO step")
        axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _draw(axis: plt.Axes, title: str, series: dict[int, float], label: str | None = None, **style: str) -> None:
    axis.plot(list(series), list(series.values()), label=label, **style)
    axis.set_title(title, fontsize=11, loc="left")
    axis.grid(alpha=0.3)


def _validation_reward(metrics: dict[int, dict[str, float]]) -> dict[int, float]:
    # verl puts the number of samples into the key: val-core/<source>/reward/mean@2.
    return {
        step: value
        for step, values in metrics.items()
        for key, value in values.items()
        if key.startswith("val-core/") and "/reward/mean@" in key
    }


def _series(metrics: dict[int, dict[str, float]], key: str) -> dict[int, float]:
    return {step: values[key] for step, values in metrics.items() if key in values}
