"""Steps that every evaluation takes before and after its rows are answered, by a generating model or by a scorer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from rich.console import Console

import omniq_verl
from omniq_verl.data.files import replace_text
from omniq_verl.data.parquet import replace_table
from omniq_verl.data.row_refs import RowRef
from omniq_verl.evaluation.answers import per_image, read_labels
from omniq_verl.evaluation.grouping import group_names
from omniq_verl.evaluation.metrics import all_metrics
from omniq_verl.evaluation.report import print_tables, write_report
from omniq_verl.evaluation.row_warnings import repeated_images, training_rows, warn


class Evaluation(Protocol):
    """Settings that all evaluations have in common."""

    @property
    def data(self) -> Sequence[Path]: ...
    @property
    def out(self) -> Path: ...
    @property
    def by(self) -> Sequence[str]: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def resamples(self) -> int: ...


def labels_and_warnings(
    refs: Sequence[RowRef], by: Sequence[str], learned: Sequence[str], console: Console
) -> tuple[pd.DataFrame, list[str]]:
    """Read the labels of the rows, and return them with warnings for readers of the figures. Warnings are also printed.

    Args:
        refs: the rows.
        by: grouping keys.
        learned: files that the model was trained on.
        console: where warnings are printed.

    Raises:
        ValueError: a label is invalid, or no row has a grouping key.
    """
    labels = read_labels(refs)
    for key in by:
        group_names(labels, key)
    warnings = [*training_rows(refs, learned), *repeated_images(refs)]
    for warning in warnings:
        warn(warning, console)
    return labels, warnings


def write_results(
    config: Evaluation,
    asked: Mapping[str, Any],
    record: Mapping[str, Any],
    warnings: Sequence[str],
    refs: Sequence[RowRef],
    labels: pd.DataFrame,
    judged: pd.DataFrame,
    console: Console,
) -> dict[str, Any]:
    """Write ``answers.parquet``, ``images.parquet``, ``metrics.json``, reports and plots, and print the tables.

    Args:
        config: settings of the evaluation.
        asked: model, engine, sampling and seed, as written to ``metrics.json``.
        record: from ``provenance``.
        warnings: from ``labels_and_warnings``.
        refs: the rows, for the images of the report.
        labels: from ``labels_and_warnings``.
        judged: from ``judge_answers``, one row per answer.
        console: where tables and paths are printed.

    Returns:
        The content of ``metrics.json``.
    """
    images = per_image(labels, judged)
    metrics = {
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "data": [str(path) for path in config.data],
        **asked,
        "resamples": config.resamples,
        "limit": config.limit,
        "warnings": list(warnings),
        "provenance": dict(record),
        **all_metrics(images, judged, config.by, config.resamples),
    }
    replace_table(config.out / "answers.parquet", judged)
    replace_table(config.out / "images.parquet", images)
    replace_text(config.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    page = write_report(config.out, metrics, images, judged, refs)
    print_tables(metrics, console)
    for title, name in (("answers", "answers.parquet"), ("figures", "metrics.json"), ("report", page.name)):
        console.print(f"{title}: {config.out / name}", soft_wrap=True, markup=False)
    return metrics
