"""Figures out of the folders that finished stages leave."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omniq_verl.evaluation.papers import PaperColumn, PaperTable
from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline.experiment import Reader
from omniq_verl.pipeline.summary import value_of

MEASURED = {
    "SRCC (greedy)": ("greedy", "srcc"),
    "PLCC (greedy)": ("greedy", "plcc"),
    "MAE (greedy)": ("greedy", "mae"),
    "parsable (greedy)": ("greedy", "parsed"),
    "reward (temperature 1)": ("sampled", "reward"),
}
"""Columns of the tiny tables of OmniQuality-R: from which answers, and which figure."""


def measured(folder: Path) -> dict[str, float]:
    """Figures of ``omniq_verl.quickstart.measure``, and the share of groups that the training before it used.

    The training is in the folder of the same name without ``_test``.
    """
    metrics = _metrics(folder)
    found = {column: _number(metrics[mode][key]) for column, (mode, key) in MEASURED.items()}
    return {**found, "groups kept": share_kept(folder.with_name(folder.name.removesuffix("_test")))}


def _metrics(folder: Path) -> dict[str, Any]:
    """What a stage has measured.

    Raises:
        FileNotFoundError: nothing yet.
        ValueError: the file is broken.
    """
    file = folder / "metrics.json"
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is broken ({error}). Fix: delete its folder and the stage's file below marks, then start the same"
            " command again"
        ) from error


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def share_kept(run: Path) -> float:
    """Share of a run's groups that were trained on; NaN where there was none, as in SFT, or where steps are lost."""
    steps = [] if lost_steps(run) else [step for step in read_metrics(run).values() if "filter/groups_kept" in step]
    kept, dropped = (sum(step[f"filter/groups_{name}"] for step in steps) for name in ("kept", "dropped"))
    return kept / (kept + dropped) if kept + dropped else math.nan


def lost_steps(run: Path) -> bool:
    """Whether steps are in the newest checkpoint and not in the metrics.

    verl saves a step before it writes the step's metrics, so that a kill between the two loses the latter.
    """
    tracker = run / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        return False
    logged = read_metrics(run)
    return any(step not in logged for step in range(1, int(tracker.read_text()) + 1))


def evaluated(columns: Mapping[str, tuple[str, str]]) -> Reader:
    """Reads figures of ``omniq eval``, and the share of all answers that could be parsed.

    Args:
        columns: by title, the name of a set in ``metrics.json`` and of a figure of it.
    """

    def read(folder: Path) -> dict[str, float]:
        sets = _metrics(folder)["sets"]
        found = {title: value_of(sets[name][key]) for title, (name, key) in columns.items()}
        return {**found, "parsable": parsable(sets)}

    return read


def parsable(sets: Mapping[str, Mapping[str, Any]]) -> float:
    """Share of the answers of all sets that could be parsed; NaN where there are none."""
    right = sum(one["status"].get("ok", 0) for one in sets.values())
    answers = sum(one["answers"] for one in sets.values())
    return right / answers if answers else math.nan


def of_paper(table: PaperTable, averaged: PaperTable | None = None) -> Reader:
    """Reads the figures of a paper's columns out of ``omniq eval``; NaN for a set that was not measured.

    Averages are over the columns that the paper averages, and NaN if one of them is missing.

    Args:
        table: the paper's table.
        averaged: the table with the sets of an average whose own table does not list them (RALI, tables 4 and A.5). It
            has a column of the same name.
    """

    def read(folder: Path) -> dict[str, float]:
        sets = list(_metrics(folder)["sets"].values())
        found: dict[str, float] = {}
        for column in table.columns:
            for metric in table.metrics:
                key = f"{column.name} {metric}"
                if column.mean_of:
                    found[key] = _mean([found[f"{name} {metric}"] for name in _averaged(table, column, metric)])
                elif averaged is not None and column.data_source is None:
                    found[key] = of_paper(averaged)(folder)[key]
                else:
                    found[key] = _cell(column, metric, sets)
        return found

    return read


def _averaged(table: PaperTable, column: PaperColumn, metric: str) -> list[str]:
    """The columns that an average covers: an image without a distortion has no level."""
    from omniq_verl.evaluation.answers import NO_DISTORTION

    without_level = {one.name for one in table.columns if one.of_class == NO_DISTORTION}
    return [name for name in column.mean_of if metric != "level_accuracy" or name not in without_level]


def _cell(column: PaperColumn, metric: str, sets: Sequence[Mapping[str, Any]]) -> float:
    mine = next((one for one in sets if one["data_source"] == column.data_source and _asks(one, column.task)), None)
    if mine is not None and column.of_class is not None:
        mine = mine["classes"].get(column.of_class)
    return value_of(mine[metric]) if mine is not None and metric in mine else math.nan


def _asks(one: Mapping[str, Any], task: str | None) -> bool:
    from omniq_verl.evaluation.compare import same_task

    return same_task(one["task"]) == task


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
