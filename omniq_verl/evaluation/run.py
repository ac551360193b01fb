"""An evaluation: ask a model about prepared files, measure its answers, and write what there is to see."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

import omniq_verl
from omniq_verl.data.files import replace_text
from omniq_verl.data.row_refs import RowRef, limited_rows
from omniq_verl.evaluation.answers import judge_answers, per_image, read_labels
from omniq_verl.evaluation.grouping import group_names
from omniq_verl.evaluation.metrics import all_metrics
from omniq_verl.evaluation.of_family import family_question, family_reader, family_texts, theirs
from omniq_verl.evaluation.report import print_tables, write_report
from omniq_verl.evaluation.row_warnings import repeated_images, trained_on, training_rows, warn
from omniq_verl.families.find import family_named
from omniq_verl.generation.direct import check_mode, score_texts
from omniq_verl.generation.provenance import data_record, provenance, record_start
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import RunOptions, run_job
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import Store, read_store
from omniq_verl.generation.workers import Job, WorkItem, own_question
from omniq_verl.tasks import find_task


@dataclass(frozen=True)
class EvalConfig:
    """What is measured, and run_options."""

    data: Sequence[Path]
    """Parquet files of ``data_prep/``."""
    out: Path
    """The run's folder: goes on where it stopped."""
    engine: EngineSpec
    sampling: Sampling = field(default_factory=Sampling)
    """Greedy by default: the same answers again."""
    run_options: RunOptions = field(default_factory=lambda: RunOptions(on="here", batch=256))
    by: Sequence[str] = ()
    """Columns or keys of ``details`` by which to measure groups as well."""
    limit: int | None = None
    """Only the first so many rows of each file; None: all."""
    resamples: int = 1000
    """Of the bootstrap; 1,000 is ours."""
    seed: int = 0
    mode: str = "reason"
    """``reason``, or ``direct``, the expectation of the score without any reasoning (``generation.direct``)."""
    family: str | None = None
    """Ask and read as this family does (``families.find.FAMILIES``); None: as the rows do."""


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
    refs = limited_rows(list(config.data), config.limit)
    config.engine.check()  # here, and not only once workers have started
    labels = read_labels(refs)
    _check_mode(config, refs)
    for key in config.by:
        group_names(labels, key)
    warnings = [*training_rows(refs, trained_on(config.engine.model)), *repeated_images(refs)]
    for warning in warnings:
        warn(warning, console)
    job = job_of(config)
    with Store(config.out / "answers", job.settings()) as store:
        starts = record_start(config.out)
        digests = run_job(job, [WorkItem(ref) for ref in refs], store, config.run_options, console, "answers")
        data, asked = data_record(refs, config.limit, digests), job.settings()
        record = provenance(starts, data, asked["engine"], asked["sampling"], asked["seed"], **of_figures(config))
        metrics, images, judged = measure(config, labels, record, warnings)
        page = write_report(config.out, metrics, images, judged, refs)
    print_tables(metrics, console)
    for title, name in (("answers", "answers.parquet"), ("figures", "metrics.json"), ("report", page.name)):
        console.print(f"{title}: {config.out / name}", soft_wrap=True, markup=False)
    return metrics


def job_of(config: EvalConfig) -> Job:
    """What is asked of every row: its own question."""
    if config.family is None:
        return Job(config.engine, config.sampling, own_question, config.seed, mode=config.mode)
    ask, texts = (partial(one, family=config.family) for one in (family_question, family_texts))
    return Job(config.engine, config.sampling, ask, config.seed, mode=config.mode, family=config.family, texts=texts)


def _check_mode(config: EvalConfig, refs: Sequence[RowRef]) -> None:
    """Raises:
    ValueError: no such mode, or one that some row or setting does not fit.
    """
    check_mode(config.mode)
    if config.family is not None:
        family = family_named(config.family)
        family.check_mode(config.mode)
        for name in sorted({ref.info["task"] for ref in refs}):
            theirs(family, find_task(name))
    if config.mode == "direct":
        if config.sampling.n > 1:
            raise ValueError(f"{config.sampling.n} samples in the mode direct, which draws none. Fix: --samples 1")
        for name in sorted({ref.info["task"] for ref in refs}):
            score_texts(find_task(name))  # families ask for the same kinds of answers


def of_figures(config: EvalConfig) -> dict[str, Any]:
    """What figures depend on besides the answers."""
    found = {"resamples": config.resamples, "by": list(config.by)}
    found |= {} if config.mode == "reason" else {"mode": config.mode}
    return found | ({} if config.family is None else {"family": config.family})


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
    reader = None if config.family is None else family_reader(config.family)
    judged = judge_answers(labels, read_store(config.out / "answers"), reader)
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
