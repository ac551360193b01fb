"""Helpers for tasks of other evaluation packages: check a prepared file, get a row's label, parse an answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omniq_verl.data.row_refs import RowRef, limited_rows, named
from omniq_verl.evaluation.answers import read_answer, read_labels
from omniq_verl.tasks import read_truth, task_of


def check_benchmark(file: Path) -> list[RowRef]:
    """Return the rows of a file after checking that it is a single benchmark of scores.

    Raises:
        ValueError: the file or a row cannot be read, a row has no score or several images, or the rows come from
            several data sets or tasks.
    """
    refs = limited_rows([file])
    for ref in refs:
        if (task := task_of(ref.info)).asks_for != "score" or task.images != 1:
            raise ValueError(
                f"{named(ref)}: the task {task.name} gives no single score of one image. Fix: drop the row"
            )
    sets = sorted(read_labels(refs)["set"].unique())
    if len(sets) > 1:
        raise ValueError(f"{file} holds several data sets or tasks: {', '.join(sets)}. Fix: write one file for each")
    return refs


def label_of(row: Mapping[str, Any]) -> float:
    """Return the score that a row is labelled with, on its scale.

    Raises:
        ValueError: the label is invalid.
    """
    return float(read_truth(task_of(row["extra_info"]), row["reward_model"]["ground_truth"])["score"])


def read_score(answer: object, info: Mapping[str, Any]) -> float | None:
    """Return the score of an answer on the row's scale; None if it cannot be parsed.

    Args:
        answer: what the model wrote; a value that is not text has no score.
        info: the row's ``extra_info``.
    """
    return read_answer(answer, "stop", task_of(info))["score"] if isinstance(answer, str) else None
