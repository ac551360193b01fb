"""The stages of plan-then-reason data. Each stage needs the one before it, and resumes after a kill."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

import omniq_verl
from omniq_verl.cot.cost import cost_line, generated
from omniq_verl.cot.draw import draw_rows
from omniq_verl.cot.levels import cut_sources
from omniq_verl.cot.prompts import ask_for_plan, ask_for_reasoning
from omniq_verl.cot.select import Judged, Selection, count, draw_images, judge_row, sft_records
from omniq_verl.cot.verdict import judge_plan
from omniq_verl.data.files import replace_text
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import RowReader, RowRef, learnable_rows
from omniq_verl.generation.provenance import data_record, provenance, record_start
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import RunOptions, run_job
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import Store, known_files, read_store
from omniq_verl.generation.workers import Ask, Job, WorkItem
from omniq_verl.tasks import find_task


@dataclass
class CotConfig:
    """Settings of a run, read from its YAML file; every key can be overridden by KEY=VALUE."""

    data: list[str] = field(default_factory=list)
    """Parquet files written by ``data_prep/``."""
    out: str = "runs/cot"
    engine: EngineSpec = field(default_factory=lambda: EngineSpec(model=""))
    paths: int = 8
    """Reasoning paths per image. The paper says "several"; 8 is our choice."""
    plan: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, max_tokens=512))
    reason: Sampling = field(default_factory=lambda: Sampling(temperature=1.0, max_tokens=1024))
    select: Selection = field(default_factory=Selection)
    run_options: RunOptions = field(default_factory=RunOptions)
    take: dict[str, int] = field(default_factory=dict)
    """Number of rows by name of the data source, e.g. ``{ava: 10000, koniq: 7000}``, drawn by ``seed`` from all its
    files; empty: all rows."""
    limit: int | None = None
    """Maximum number of rows in total, for a trial; shared evenly between the data sources and drawn by ``seed``."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.paths < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"paths and limit must be >= 1, got {self.paths} and {self.limit}")
        if self.plan.n != 1 or self.reason.n != 1:
            raise ValueError("plan.n and reason.n must be 1; the key paths sets the number of paths. Fix: remove n")
        _ = self.path_sampling

    @property
    def path_sampling(self) -> Sampling:
        """Return the sampling settings of the paths."""
        return replace(self.reason, n=self.paths)


class NotFinished(RuntimeError):
    """A stage needs output that an earlier stage has not finished."""


def rows_of(config: CotConfig) -> list[RowRef]:
    """Return the rows of a run, drawn from ``all_rows``."""
    return draw_rows(all_rows(config), config.take, config.limit, config.seed)


def all_rows(config: CotConfig) -> list[RowRef]:
    """Return all rows of the data.

    Raises:
        HeldOutRows: some rows belong to a validation or test split.
        ValueError: there are no rows, or a row's task does not ask for a score, or it has no separate answer rule that
            could be replaced by a question for a level.
    """
    if not config.data:
        raise ValueError("data: no files are given. Fix: data=[data/koniq/train.parquet], or a list in the YAML file")
    refs = learnable_rows([Path(file) for file in config.data])
    if others := sorted({ref.info["task"] for ref in refs if not find_task(ref.info["task"]).answer_rule}):
        raise ValueError(
            f"the task {others[0]} has the answer format inside its question, so a level cannot be asked for instead."
            f" Fix: prepare the rows with --task {find_task(others[0]).like or 'technical'}"
        )
    return refs


def make_plans(config: CotConfig, console: Console) -> None:
    """Write a plan for every row into ``<out>/plan``."""
    todo = [WorkItem(ref) for ref in rows_of(config)]
    job = _job(config, config.plan, ask_for_plan, images=False)
    record_start(Path(config.out))
    # The reasoning that was written from the plans would remain.
    with Store(Path(config.out) / "plan", job.settings(), run=Path(config.out)) as store:
        console.print(cost_line("plans", store, todo, config.plan), markup=False, soft_wrap=True)
        run_job(job, todo, store, config.run_options, console, "plans")


def _job(config: CotConfig, sampling: Sampling, ask: Ask, images: bool = True) -> Job:
    if not config.engine.model and ":" not in config.engine.kind:
        raise ValueError("engine.model: no model is given. Fix: set engine.model=FOLDER, or set it in the YAML file")
    return Job(config.engine, sampling, ask, config.seed, images)


def make_paths(config: CotConfig, console: Console) -> None:
    """Write ``config.paths`` reasoning paths for every row with a valid plan into ``<out>/reason``.

    Raises:
        NotFinished: some rows have no plan yet.
    """
    refs = rows_of(config)
    plans = _plans(config, refs)
    job = _job(config, config.path_sampling, ask_for_reasoning)
    todo = [WorkItem(ref, plans[ref.key]["text"]) for ref in refs if not judge_plan(plans[ref.key])]
    record_start(Path(config.out))
    with Store(Path(config.out) / "reason", job.settings()) as store:
        console.print(cost_line("reasoning", store, todo, config.path_sampling), markup=False, soft_wrap=True)
        run_job(job, todo, store, config.run_options, console, "reasoning")


def select_paths(config: CotConfig) -> dict[str, Any]:
    """Judge all paths, write ``<out>/sft.parquet``, ``judged.jsonl`` and ``counts.json``, and return the counts.

    Raises:
        NotFinished: some rows have no plan or no paths yet.
        ValueError: no image is left for training.
    """
    out = Path(config.out)
    (out / "sft.parquet").unlink(missing_ok=True)  # it may be from a selection with other bounds
    judged, without_plan = judge(config)
    counts = {
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "provenance": conditions(config),
        "sources": count(judged),
        "without_plan": without_plan,
        "select": asdict(config.select),
        "paths_per_image": max((len(one.verdicts) for one in judged), default=0),
        "records": sum(len(one.chosen) for one in judged),
        "generated": {stage: generated(out / stage) for stage in ("plan", "reason")},
    }
    replace_text(out / "counts.json", json.dumps(counts, indent=2) + "\n")
    replace_text(out / "judged.jsonl", "".join(json.dumps(_as_record(one)) + "\n" for one in judged))
    kept = [one for one in judged if one.chosen]
    if not kept:
        raise ValueError(f"no image is left for training; see {out / 'counts.json'} for the reasons")
    write_parquet(_records(kept, config), out / "sft.parquet")
    return counts


def conditions(config: CotConfig) -> dict[str, Any]:
    """Return the provenance of the records."""
    out = Path(config.out)
    data = data_record(rows_of(config), config.limit, known_files(out / "plan"))
    sampling = {"plan": asdict(config.plan), "reason": asdict(config.path_sampling)}
    return provenance(record_start(out), data, config.engine.identity(), sampling, config.seed, take=dict(config.take))


def judge(config: CotConfig) -> tuple[list[Judged], dict[str, int]]:
    """Judge every row, in the order of the data. Rows without a valid plan are counted by the plan's fault."""
    everything, rule = all_rows(config), config.select
    cuts = cut_sources(everything, rule.levels, rule.levels_of)
    refs = draw_rows(everything, config.take, config.limit, config.seed)
    plans = _plans(config, refs)
    by_key, judged = {ref.key: ref for ref in refs}, {}
    records = read_store(Path(config.out) / "reason")  # stream: together they may be many GB
    for record in track(records, "judging", total=len(refs), transient=True, disable=len(refs) < 1000):
        key = record["key"]
        if key in by_key:
            cut = cuts[by_key[key].info["data_source"]]
            judged[key] = judge_row(by_key[key], record["answers"], plans[key]["text"], rule, cut)
    faults = {ref.key: judge_plan(plans[ref.key]) for ref in refs}
    for ref in refs:
        if ref.key not in judged and not faults[ref.key]:
            raise NotFinished(f"{ref.key} has no reasoning yet. Fix: run omniq cot reason, which resumes that stage")
    without_plan = Counter(fault.value for fault in faults.values() if fault)
    in_order = [judged[ref.key] for ref in refs if ref.key in judged]
    draw_images(in_order, rule, config.seed)
    return in_order, dict(without_plan)


def _plans(config: CotConfig, refs: list[RowRef]) -> dict[str, dict[str, Any]]:
    plans = {record["key"]: record["answers"][0] for record in read_store(Path(config.out) / "plan")}
    for ref in refs:
        if ref.key not in plans:
            raise NotFinished(f"{ref.key} has no plan yet. Fix: run omniq cot plan, which resumes that stage")
    return plans


def _records(kept: list[Judged], config: CotConfig) -> Iterator[dict[str, Any]]:
    rows = RowReader(["prompt", "images", "extra_info"]).read(one.ref for one in kept)
    for one, row in zip(kept, rows, strict=True):
        yield from sft_records(one, row, config.select, config.seed)


def _as_record(one: Judged) -> dict[str, Any]:
    return {
        "key": one.ref.key,
        "data_source": one.ref.info["data_source"],
        "level": one.level,
        "outcome": one.outcome,
        "right": one.right,
        "records": len(one.chosen),
        "paths": [
            {
                "fault": verdict.fault and verdict.fault.value,
                "level": verdict.level,
                "characters": verdict.characters,
                "tokens": verdict.tokens,
            }
            for verdict in one.verdicts
        ],
    }
