"""A job of many requests: in batches, here or on Ray Data, each finished row kept at once and never asked for again."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from omniq_verl.generation.engines import EngineSpec, open_engine
from omniq_verl.generation.places import Place, image_bytes, read_places
from omniq_verl.generation.request import ERROR, Answer, Engine, Request, Sampling, answer_each, as_record, seed_of
from omniq_verl.generation.store import Store

Ask = Callable[[Mapping[str, Any], str], Sequence[Mapping[str, str]]]
"""A row and a note on it -> the messages of its request."""


@dataclass(frozen=True)
class Job:
    """What is asked of every row."""

    engine: EngineSpec
    sampling: Sampling
    ask: Ask
    """A function of a module, so that it can travel."""
    seed: int = 0
    images: bool = True
    """Does the question show the row's image?"""


@dataclass(frozen=True)
class How:
    """Where and in what portions; none of it changes an answer's seed."""

    on: str = "auto"
    """``ray``: Ray Data, on the cluster of RAY_ADDRESS or one of this machine's own; ``here``: in this process;
    ``auto``: here for an endpoint, else on Ray."""
    workers: int = 1
    """Engines side by side; on Ray only."""
    batch: int = 64
    """Rows that are finished together: what a kill can cost each worker."""
    retries: int = 2
    """Further attempts at batches whose worker failed."""

    def __post_init__(self) -> None:
        if self.on not in ("auto", "here", "ray") or min(self.workers, self.batch) < 1 or self.retries < 0:
            raise ValueError(f"on is auto, here or ray; workers and batch from 1, retries from 0; got {self}")


class BatchesFailed(RuntimeError):
    """Some rows were not answered in any attempt."""


@dataclass(frozen=True)
class Todo:
    """A row to ask about."""

    place: Place
    note: str = ""


def finish(job: Job, todo: Sequence[Todo], store: Store, how: How, console: Console, title: str) -> None:
    """Ask about every row that is not in the store yet.

    Raises:
        BatchesFailed: a worker failed at some rows ``1 + how.retries`` times; all others are in the store.
    """
    runner = _RUNNERS[("here" if job.engine.kind == "openai" else "ray") if how.on == "auto" else how.on]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
    failures: list[str] = []
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=len(todo))
        for attempt in range(1 + how.retries):
            left = [one for one in todo if one.place.key not in store.keys]
            bar.update(task, completed=len(todo) - len(left))
            if not left:
                return
            if attempt:
                console.print(f"{title}: attempt {attempt + 1} at {len(left)} rows ({failures[-1]})")
            failures = []
            batches = [left[first : first + how.batch] for first in range(0, len(left), how.batch)]
            for outcome in runner(job, batches, how):
                store.add(outcome.get("records", []))
                failures += [outcome["failure"]] if "failure" in outcome else []
                bar.advance(task, len(outcome.get("records", [])))
    left = [one.place.key for one in todo if one.place.key not in store.keys]
    if left:
        raise BatchesFailed(
            f"{title}: {len(left)} rows were not answered in {1 + how.retries} attempts, the first {left[0]}"
            f" ({(failures or ['its worker died'])[-1]}). What is finished is kept; the same command goes on from here"
        )


class Worker:
    """Holds an engine; one batch in, its records or its failure out."""

    def __init__(self, job: Job):
        self._job = job
        self._engine: Engine | None = None

    def __call__(self, batch: Sequence[Todo]) -> dict[str, Any]:
        try:
            self._engine = self._engine or open_engine(self._job.engine)
            return {"records": list(self._records(batch))}
        except Exception as error:  # whatever an engine dies of: the next batch gets a new one
            self._engine = None
            return {"failure": f"{type(error).__name__}: {error}"[:500]}

    def _records(self, batch: Sequence[Todo]) -> Iterator[dict[str, Any]]:
        requests = []
        columns = None if self._job.images else ["prompt", "extra_info"]
        for one, row in zip(batch, read_places([one.place for one in batch], columns), strict=True):
            try:
                requests.append(self._request(one, row))
            except ValueError as error:  # a broken row, not a broken engine
                yield as_record(one.place.key, [Answer(f"{type(error).__name__}: {error}", ERROR)])
        for request, answers in zip(requests, answer_each(self._engine, requests, self._job.sampling), strict=True):
            yield as_record(request.key, answers)

    def _request(self, one: Todo, row: Mapping[str, Any]) -> Request:
        job, key = self._job, one.place.key
        images = image_bytes(row) if job.images else ()
        return Request(key, job.ask(row, one.note), images, seed_of(key, job.seed))


def _here(job: Job, batches: Sequence[Sequence[Todo]], _how: How) -> Iterator[dict[str, Any]]:
    yield from map(Worker(job), batches)


class _RayWorker(Worker):
    def __call__(self, entry: dict[str, Any]) -> dict[str, str]:
        return {"outcome": json.dumps(super().__call__(entry["batch"]))}


def _on_ray(job: Job, batches: Sequence[Sequence[Todo]], how: How) -> Iterator[dict[str, Any]]:
    import ray

    _join_ray(how)
    on_gpu = "GPU" in ray.cluster_resources()
    outcomes = ray.data.from_items([{"batch": batch} for batch in batches], override_num_blocks=len(batches)).map(
        _RayWorker,
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(size=min(how.workers, len(batches))),
        num_gpus=job.engine.devices if on_gpu else None,
        num_cpus=1,
        # A worker that dies (of memory, say) leaves its batch to another; after that to the next attempt.
        max_restarts=how.retries,
        max_task_retries=how.retries,
    )
    try:
        for entry in outcomes.iter_rows():
            yield json.loads(entry["outcome"])
    except ray.exceptions.RayError as error:
        yield {"failure": str(error).strip().splitlines()[-1][:500]}


def _join_ray(how: How) -> None:
    import ray

    # The bar of finish() counts rows; Ray Data's own, of blocks, would come between.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Slots, not cores: Ray Data itself takes some.
    ray.init(num_cpus=max(how.workers + 2, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)


_RUNNERS = {"here": _here, "ray": _on_ray}
