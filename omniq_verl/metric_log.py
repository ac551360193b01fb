"""The metrics of a run: one file for every start, as verl's file logger begins its file anew each time."""

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any


def metric_files(folder: Path) -> list[Path]:
    """The metrics of every start of a run, oldest first."""
    return sorted(folder.glob("metrics/*.jsonl"))


def next_metric_file(folder: Path) -> Path:
    """Where the metrics of a new start go."""
    numbers = [int(path.stem) for path in metric_files(folder) if path.stem.isdecimal()]
    return folder / "metrics" / f"{max(numbers, default=0) + 1:03d}.jsonl"


def log_into(folder: Path, loggers: Collection[str]) -> None:
    """Let verl's loggers of files write below a run's folder, where the user named no other place.

    Left alone they write into the current folder: ``file`` over the metrics of the start before, ``tensorboard`` into
    one place for all runs of an experiment's name.
    """
    if "file" in loggers and not os.environ.keys() & {"VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"}:
        path = next_metric_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.environ["VERL_FILE_LOGGER_PATH"] = str(path)
    if "tensorboard" in loggers:
        os.environ.setdefault("TENSORBOARD_DIR", str(folder / "tensorboard"))


def read_metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Metrics by step; what was measured again after a kill counts as measured last.

    A resumed run validates before it goes on, under the number of the step it resumed from: that adds to the
    step's metrics.

    Raises:
        ValueError: a line is none that verl's file logger writes; a file's last one may be torn.
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
            except ValueError:
                found = None
                if number == len(lines):
                    continue  # the line being written when the run was killed
            if not _is_record(found):
                raise ValueError(
                    f'{path}, line {number}: not a step\'s metrics, {{"step": 1, "data": {{...}}}}. Fix: name the'
                    " folder of a training run whose trainer.logger has 'file', or take the line out"
                )
            yield {"step": found["step"], "data": _numbers(found["data"])}


def _is_record(found: object) -> bool:
    whole = isinstance(found, dict) and isinstance(found.get("data"), dict)
    return whole and isinstance(found.get("step"), int) and not isinstance(found["step"], bool)


def _numbers(data: dict[str, Any]) -> dict[str, float]:
    """What can be drawn; texts and lists are no metrics."""
    return {key: value for key, value in data.items() if isinstance(value, (int, float))}
