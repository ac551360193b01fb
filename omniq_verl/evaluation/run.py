"""Run an evaluation: ask a model about prepared files, measure its answers and write the results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from omniq_verl.data.row_refs import RowRef, limited_rows
from omniq_verl.evaluation.answers import judge_answers
from omniq_verl.evaluation.of_family import family_question, family_reader, family_texts, theirs
from omniq_verl.evaluation.results import labels_and_warnings, write_results
from omniq_verl.evaluation.row_warnings import trained_on
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
    """Data, model and options of an evaluation."""

    data: Sequence[Path]
    """Parquet files of ``data_prep/``."""
    out: Path
    """The run's folder. An interrupted run resumes."""
    engine: EngineSpec
    sampling: Sampling = field(default_factory=Sampling)
    """Greedy by default, so answers are reproducible."""
    run_options: RunOptions = field(default_factory=lambda: RunOptions(on="here", batch=256))
    by: Sequence[str] = ()
    """Columns, or keys of ``details``, to measure groups by."""
    limit: int | None = None
    """Use only the first N rows of each file; None: all."""
    resamples: int = 1000
    """Bootstrap resamples; 1,000 is our choice."""
    seed: int = 0
    mode: str = "reason"
    """``reason``, or ``direct`` for the expectation of the score without reasoning (``generation.direct``)."""
    family: str | None = None
    """Use the questions and parser of this family (``families.find.FAMILIES``); None: those of the rows."""


def evaluate(config: EvalConfig, console: Console) -> dict[str, Any]:
    """Ask the model, measure its answers and write the results into ``config.out``.

    Each batch of answers is saved in ``answers/*.jsonl`` immediately. At the end, this writes ``answers.parquet`` (one
    row per answer), ``images.parquet`` (one row per image), ``metrics.json``, ``report.md``, ``report.html`` and plots.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ValueError: there are no rows, a file cannot be read, the model cannot be loaded, or a grouping key is unknown.
        BatchesFailed: some rows have no answer; the answered ones are saved.
    """
    refs = limited_rows(list(config.data), config.limit)
    config.engine.check()  # fail before any worker is started
    _check_mode(config, refs)
    labels, warnings = labels_and_warnings(refs, config.by, trained_on(config.engine.model), console)
    job = job_of(config)
    with Store(config.out / "answers", job.settings()) as store:
        starts = record_start(config.out)
        digests = run_job(job, [WorkItem(ref) for ref in refs], store, config.run_options, console, "answers")
        data, asked = data_record(refs, config.limit, digests), job.settings()
        record = provenance(starts, data, asked["engine"], asked["sampling"], asked["seed"], **of_figures(config))
        reader = None if config.family is None else family_reader(config.family)
        judged = judge_answers(labels, read_store(config.out / "answers"), reader)
        asked = {"model": config.engine.model, **asked}
        return write_results(config, asked, record, warnings, refs, labels, judged, console)


def job_of(config: EvalConfig) -> Job:
    """Return the job that asks every row's question, in the family's wording if there is a family."""
    if config.family is None:
        return Job(config.engine, config.sampling, own_question, config.seed, mode=config.mode)
    ask, texts = partial(family_question, family=config.family), partial(family_texts, family=config.family)
    return Job(config.engine, config.sampling, ask, config.seed, mode=config.mode, family=config.family, texts=texts)


def _check_mode(config: EvalConfig, refs: Sequence[RowRef]) -> None:
    """Check that the mode fits the family, the rows and the sampling.

    Raises:
        ValueError: there is no such mode, or it does not fit.
    """
    check_mode(config.mode)
    if config.family is not None:
        family = family_named(config.family)
        family.check_mode(config.mode)
        for name in sorted({ref.info["task"] for ref in refs}):
            theirs(family, find_task(name))
    if config.mode == "direct":
        if config.sampling.n > 1:
            raise ValueError(f"{config.sampling.n} samples in mode direct, which does not sample. Fix: --samples 1")
        for name in sorted({ref.info["task"] for ref in refs}):
            score_texts(find_task(name))  # families ask for the same kinds of answers


def of_figures(config: EvalConfig) -> dict[str, Any]:
    """Return the settings that figures depend on besides the answers."""
    found = {"resamples": config.resamples, "by": list(config.by)}
    found |= {} if config.mode == "reason" else {"mode": config.mode}
    return found | ({} if config.family is None else {"family": config.family})
