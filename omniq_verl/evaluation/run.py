"""An evaluation: ask a model about prepared files, measure its answers, and write what there is to see."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

import omniq_verl
from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.grouping import group_names
from omniq_verl.evaluation.judging import judge_answers, per_image, read_labels
from omniq_verl.evaluation.metrics import all_metrics
from omniq_verl.evaluation.report import print_tables, write_report
from omniq_verl.evaluation.row_warnings import repeated_images, trained_on, training_rows, warn
from omniq_verl.generation.direct import check_mode, score_texts
from omniq_verl.generation.places import Place, limited_places
from omniq_verl.generation.provenance import data_record, provenance, record_start
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import How, finish
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import Store, read_store
from omniq_verl.generation.workers import Job, Todo, own_question
from omniq_verl.tasks import find_task


@dataclass(frozen=True)
class EvalConfig:
    """What is measured, and how."""

    data: Sequence[Path]
    """Parquet files of ``data_prep/``."""
    out: Path
    """The run's folder: goes on where it stopped."""
    engine: EngineSpec
    sampling: Sampling = field(default_factory=Sampling)
    """Greedy by default: the same answers again."""
    how: How = field(default_factory=lambda: How(on="here", batch=256))
    by: Sequence[str] = ()
    """Columns or keys of ``details`` by which to measure groups as well."""
    limit: int | None = None
    """Only the first so many rows of each file; None: all."""
    resamples: int = 1000
    """Of the bootstrap; 1,000 is ours."""
    seed: int = 0
    mode: str = "reason"
    """``reason``, or ``direct``, the expectation of the score without any reasoning (``generation.direct``)."""


def evaluate(config: EvalConfig, console: Console) -> dict[str, Any]:
    """Ask, measure and write into ``config.out``.

    Every batch of answers is in ``answers/*.jsonl`` as soon as it comes; at the end there are ``answers.parquet`` (a
    line an answer), ``images.parquet`` (a line an image), ``metrics.json``, ``report.md``, ``report.html`` and plots.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        ValueError: no rows, a file that cannot be read, a model that is not opened, groups that nothing belongs to.
        BatchesFailed: some rows were not answered; what was is kept.
    """
    places = limited_places(list(config.data), config.limit)
    config.engine.check()  # here, and not only once workers have started
    labels = read_labels(places)
    _check_mode(config, places)
    for key in config.by:
        group_names(labels, key)
    warnings = [*training_rows(places, trained_on(config.engine.model)), *repeated_images(places)]
    for warning in warnings:
        warn(warning, console)
    job = job_of(config)
    with Store(config.out / "answers", job.settings()) as store:
        starts = record_start(config.out)
        digests = finish(job, [Todo(place) for place in places], store, config.how, console, "answers")
        data, asked = data_record(places, config.limit, digests), job.settings()
        record = provenance(starts, data, asked["engine"], asked["sampling"], asked["seed"], **of_figures(config))
        metrics, images, judged = measure(config, labels, record, warnings)
        page = write_report(config.out, metrics, images, judged, places)
    print_tables(metrics, console)
    for title, name in (("answers", "answers.parquet"), ("figures", "metrics.json"), ("report", page.name)):
        console.print(f"{title}: {config.out / name}", soft_wrap=True, markup=False)
    return metrics


def job_of(config: EvalConfig) -> Job:
    """What is asked of every row: its own question."""
    return Job(config.engine, config.sampling, own_question, config.seed, mode=config.mode)


def _check_mode(config: EvalConfig, places: Sequence[Place]) -> None:
    """Raises:
    ValueError: no such mode, or one that some row or setting does not fit.
    """
    check_mode(config.mode)
    if config.mode == "direct":
        if config.sampling.n > 1:
            raise ValueError(f"{config.sampling.n} samples in the mode direct, which draws none. Fix: --samples 1")
        for name in sorted({place.info["task"] for place in places}):
            score_texts(find_task(name))


def of_figures(config: EvalConfig) -> dict[str, Any]:
    """What figures depend on besides the answers."""
    mode = {} if config.mode == "reason" else {"mode": config.mode}
    return {"resamples": config.resamples, "by": list(config.by), **mode}


def measure(
    config: EvalConfig, labels: pd.DataFrame, record: Mapping[str, Any], warnings: Sequence[str]
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Judge the answers that are there, and write them: metrics, a line an image, a line an answer.

    Args:
        config: of the run.
        labels: of ``read_labels``.
        record: of ``provenance``.
        warnings: what a reader of the figures has to know.
    """
    judged = judge_answers(labels, read_store(config.out / "answers"))
    images = per_image(labels, judged)
    metrics = {
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "model": config.engine.model,
        "data": [str(path) for path in config.data],
        **job_of(config).settings(),
        "resamples": config.resamples,
        "limit": config.limit,
        "warnings": list(warnings),
        "provenance": dict(record),
        **all_metrics(images, judged, config.by, config.resamples),
    }
    judged.to_parquet(config.out / "answers.parquet")
    images.to_parquet(config.out / "images.parquet")
    replace_text(config.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics, images, judged
