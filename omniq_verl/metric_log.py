"""The metrics of a run: one file per start, because verl's file logger truncates its file each time."""

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeGuard


def metric_files(folder: Path) -> list[Path]:
    """Return the metric files of every start of a run, oldest first."""
    return sorted(folder.glob("metrics/*.jsonl"))


def next_metric_file(folder: Path) -> Path:
    """Return the file for the metrics of a new start."""
    numbers = [int(path.stem) for path in metric_files(folder) if path.stem.isdecimal()]
    return folder / "metrics" / f"{max(numbers, default=0) + 1:03d}.jsonl"


def log_into(folder: Path, loggers: Collection[str]) -> None:
    """Let verl's file-based loggers write below the run's folder, unless the user chose another location.

    By default, they write to the current folder. There, ``file`` overwrites the metrics of the previous start, and
    ``tensorboard`` uses one folder for all runs with the same experiment name.
    """
    if "file" in loggers and not os.environ.keys() & {"VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"}:
        path = next_metric_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.environ["VERL_FILE_LOGGER_PATH"] = str(path)
    if "tensorboard" in loggers:
        os.environ.setdefault("TENSORBOARD_DIR", str(folder / "tensorboard"))


def read_metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Return the metrics by step. If a step was repeated after a kill, the last values count.

    A resumed run validates before it continues, under the number of the step from which it resumed; these values are
    added to the step's metrics.

    Raises:
        ValueError: a line was not written by verl's file logger; only the last line of a file may be incomplete.
    """
    steps: dict[int, dict[str, float]] = {}
    for record in _records(folder):
        steps.setdefault(record["step"], {}).update(record["data"])
    return dict(sorted(steps.items()))


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    for path in metric_files(folder):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
                if number == len(lines):
                    continue  # the line that was being written when the run was killed
            if not _is_record(found):
                raise ValueError(
                    f'{path}, line {number}: not a step\'s metrics, {{"step": 1, "data": {{...}}}}. Fix: name the'
                    " folder of a training run whose trainer.logger has 'file', or remove the line"
                )
            yield {"step": found["step"], "data": _numbers(found["data"])}


def _is_record(found: object) -> TypeGuard[dict[str, Any]]:
    if not isinstance(found, dict) or not isinstance(found.get("data"), dict):
        return False
    return isinstance(found.get("step"), int) and not isinstance(found["step"], bool)


def _numbers(data: dict[str, Any]) -> dict[str, float]:
    """Return the numeric metrics; texts and lists cannot be plotted."""
    return {key: value for key, value in data.items() if isinstance(value, (int, float))}
