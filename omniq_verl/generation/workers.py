"""Workers that answer batches, in this process or as actors of Ray Data."""

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes
from omniq_verl.generation.direct import check_reads_scores, score_texts
from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.expectation import ScoreTexts
from omniq_verl.generation.request import (
    ERROR,
    Answer,
    Engine,
    Request,
    Sampling,
    as_record,
    close_engine,
    each_answered,
    seed_of,
)
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.tasks import task_of

Ask = Callable[[Mapping[str, Any], str], Sequence[Mapping[str, str]]]
"""A function from a row and a note to the messages of its request."""


def own_question(row: Mapping[str, Any], _note: str) -> Sequence[Mapping[str, str]]:
    """The row's own question, as in training."""
    return row["prompt"]


def own_texts(info: Mapping[str, Any]) -> ScoreTexts:
    """The texts of the scores that a row's own task asks for."""
    return score_texts(task_of(info))


@dataclass(frozen=True)
class Job:
    """What to ask about every row."""

    engine: EngineSpec
    sampling: Sampling
    ask: Ask
    """A function of a module, so that it can be pickled."""
    seed: int = 0
    images: bool = True
    """Does the question show the row's image?"""
    mode: str = "reason"
    """One of ``direct.MODES``."""
    family: str | None = None
    """Whose wording ``ask`` and ``texts`` have; None: the rows' own."""
    texts: Callable[[Mapping[str, Any]], ScoreTexts] = own_texts
    """The ``extra_info`` of a row -> the texts of its scores, for the mode ``direct``."""

    def settings(self) -> dict[str, Any]:
        """What an answer depends on, for the store; which rows are asked, where and in what portions does not matter.

        Raises:
            ValueError: no model is named.
        """
        if not self.engine.model and self.engine.kind in ("vllm", "hf", "openai"):
            raise ValueError("no model. Fix: name its folder with --model FOLDER")
        found = {"engine": self.engine.identity(), "sampling": asdict(self.sampling), "seed": self.seed}
        more = {"mode": None if self.mode == "reason" else self.mode, "family": self.family}
        return found | {name: value for name, value in more.items() if value}


@dataclass(frozen=True)
class WorkItem:
    """A row to ask about, with a note."""

    ref: RowRef
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a batch: its records, or why there are none."""

    records: Sequence[Mapping[str, Any]] = ()
    failure: str | None = None
    seconds: float = 0.0
    """That the engine took, once it was open."""


class Worker:
    """Holds an engine and answers batches. Calls ``tick`` for each finished row of a batch."""

    def __init__(self, job: Job, tick: Callable[[], None] = lambda: None):
        self._job, self._tick = job, tick
        self._engine: Engine | None = None
        self._rows = RowReader(["prompt", "images", "extra_info"] if job.images else ["prompt", "extra_info"])

    def __call__(self, batch: Sequence[WorkItem]) -> Outcome:
        try:
            engine = self._engine = self._engine or self._opened()
            start, records = time.perf_counter(), []
            for record in self._records(engine, batch):
                records.append(record)
                self._tick()
            return replace(_rejected_together(records), seconds=time.perf_counter() - start)
        except Exception as error:  # whatever an engine dies of: the next batch gets a new one
            failure = Outcome(failure=f"{type(error).__name__}: {error}"[:500])
        # After the handler: the error's traceback refers to the engine.
        with suppress(Exception):  # it may be too broken to be closed
            self.close()
        return failure

    def close(self) -> None:
        """Close the engine; the next batch gets a new one."""
        engine, self._engine = self._engine, None
        if engine is not None:
            close_engine(engine)

    def _opened(self) -> Engine:
        engine = open_engine(self._job.engine)
        if self._job.mode == "direct":
            check_reads_scores(engine, self._job.engine.kind)
        return engine

    def _records(self, engine: Engine, batch: Sequence[WorkItem]) -> Iterator[dict[str, Any]]:
        requests = []
        for one, row in zip(batch, self._rows.read([one.ref for one in batch]), strict=True):
            try:
                requests.append(self._request(one, row))
            except Exception as error:  # a broken row, not a broken engine
                yield as_record(one.ref.key, [Answer(f"{type(error).__name__}: {error}", ERROR)])
        for request, answers in zip(requests, each_answered(engine, requests, self._job.sampling), strict=True):
            yield as_record(request.key, answers)

    def _request(self, one: WorkItem, row: Mapping[str, Any]) -> Request:
        job, key = self._job, one.ref.key
        images = image_bytes(row) if job.images else ()
        texts = job.texts(one.ref.info) if job.mode == "direct" else None
        return Request(key, job.ask(row, one.note), images, seed_of(key, job.seed), texts)


def _rejected_together(records: list[dict[str, Any]]) -> Outcome:
    # If a whole batch is rejected, settings are to blame rather than rows; saved rejections would never be asked again.
    if len(records) > 1 and all(answer["finish_reason"] == ERROR for record in records for answer in record["answers"]):
        return Outcome(failure=f"all {len(records)} rows were rejected: {records[0]['answers'][0]['text']}"[:500])
    return Outcome(records)


def here(job: Job, batches: Sequence[Sequence[WorkItem]], tick: Callable[[], None]) -> Generator[Outcome, None, None]:
    """Answer batches in this process, and close the engine, so that another one finds its memory free.

    ``tick`` is called for each row, before its batch is done.
    """
    worker = Worker(job, tick)
    try:
        yield from map(worker, batches)
    finally:
        worker.close()


class _RayWorker(Worker):
    def __call__(self, entry: dict[str, Any]) -> dict[str, str]:
        outcome = super().__call__(entry["batch"])
        return {"outcome": json.dumps(vars(outcome))}


def on_ray(
    job: Job, batches: Sequence[Sequence[WorkItem]], workers: int, retries: int
) -> Generator[Outcome, None, None]:
    """Answer batches in actors of Ray Data. A batch whose worker died ``retries`` times has no outcome."""
    import ray

    _join_ray(workers)
    on_gpu = "GPU" in ray.cluster_resources()
    entries = [{"batch": batch} for batch in batches]
    outcomes = ray.data.from_items(entries, override_num_blocks=len(batches)).map(
        _RayWorker,  # pyright: ignore[reportArgumentType]  Ray takes classes too
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(batches))),
        num_gpus=job.engine.devices if on_gpu else None,
        num_cpus=1,
        max_restarts=retries,
        max_task_retries=retries,
    )
    # No prefetch: finished batches would be handed over only together with the next one.
    for block in outcomes.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        texts = block["outcome"].to_pylist()  # pyright: ignore[reportAttributeAccessIssue]  the format is Arrow's
        yield from (Outcome(**json.loads(text)) for text in texts)


def _join_ray(workers: int) -> None:
    import ray

    context = ray.data.DataContext.get_current()
    # Our own bar counts rows; Ray Data's, which counts blocks, would interrupt it.
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a batch that kills its workers is skipped instead of ending the job
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Slots, not cores: Ray Data itself occupies some.
    ray.init("local", num_cpus=max(workers + 2, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)
