"""Run a job of many requests in batches, in this process or on Ray Data. Finished rows are saved and not repeated."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress

from omniq_verl.console import progress_bar
from omniq_verl.generation.request import ERROR
from omniq_verl.generation.speed import Speed, add_speed
from omniq_verl.generation.store import Store, read_store
from omniq_verl.generation.workers import Job, Outcome, WorkItem, here, on_ray

_SMALLER = 8
"""Batches shrink by this factor with each attempt, so that a row that kills its worker affects fewer others."""
_REPORT_EVERY = 60  # seconds between progress lines in a log, where there is no bar


@dataclass(frozen=True)
class RunOptions:
    """Where a job runs and in what portions; none of it changes an answer's seed."""

    on: str = "auto"
    """``ray``: Ray Data, on the cluster of RAY_ADDRESS or a local one; ``here``: in this process; ``auto``: here for an
    endpoint, otherwise on Ray."""
    workers: int = 1
    """Number of engines; on Ray only."""
    batch: int = 64
    """Rows that are saved together; a kill loses at most this many per worker."""
    retries: int = 2
    """Further attempts for batches whose worker failed."""

    def __post_init__(self) -> None:
        if self.on not in ("auto", "here", "ray") or min(self.workers, self.batch) < 1 or self.retries < 0:
            raise ValueError(f"on must be auto, here or ray; workers and batch >= 1, retries >= 0; got {self}")


class BatchesFailed(RuntimeError):
    """Some rows were not answered."""


def run_job(
    job: Job, todo: Sequence[WorkItem], store: Store, run_options: RunOptions, console: Console, title: str
) -> dict[str, str]:
    """Ask about every row that is not in the store yet.

    Returns:
        The digest of each data file, by its path.

    Raises:
        OtherConfig: the store's answers were given about other data files.
        BatchesFailed: every batch failed, every row was rejected, or some rows failed in every attempt, the last time
            on their own; finished rows are in the store.
    """
    digests = store.check_files(one.ref for one in todo)
    saved = _Saved(store)
    with progress_bar(console, "rows") as bar:
        progress = _Progress(bar, console, title, len(todo))
        for attempt in range(1 + run_options.retries):
            left = [one for one in todo if one.ref.key not in store.keys]
            if not left:
                break
            size = 1 if attempt == run_options.retries > 0 else max(run_options.batch // _SMALLER**attempt, 1)
            progress.begin(attempt, len(left))
            _attempt(
                job, [left[first : first + size] for first in range(0, len(left), size)], saved, run_options, progress
            )
    add_speed(store.folder, progress.speed)
    if saved.held:
        raise BatchesFailed(
            f"{title}: all {len(saved.held)} rows were rejected, e.g. {progress.error}. Fix: correct the settings or"
            " the rows, and repeat the command; no rejection was saved"
        )
    _reject_rest(todo, store, progress)
    if progress.errors:
        console.print(
            f"{title}: {progress.errors} rows were rejected by the engine, e.g. {progress.error}", markup=False
        )
    return digests


def _attempt(
    job: Job, batches: list[list[WorkItem]], saved: "_Saved", run_options: RunOptions, progress: "_Progress"
) -> None:
    """Try all batches once.

    Raises:
        BatchesFailed: so many batches failed in a row that others would, too.
    """
    on = ("here" if job.engine.kind == "openai" else "ray") if run_options.on == "auto" else run_options.on
    attempt = (
        here(job, batches, progress.tick)
        if on == "here"
        else on_ray(job, batches, run_options.workers, run_options.retries)
    )
    in_a_row = 0
    with closing(attempt) as outcomes:
        for outcome in outcomes:
            saved.add(outcome.records)
            progress.add(outcome)
            in_a_row = in_a_row + 1 if outcome.failure else 0
            if in_a_row > 2 * run_options.workers:
                raise BatchesFailed(f"{progress.title}: every batch fails ({outcome.failure}). {_GOES_ON}")


class _Saved:
    """The store, but for rejections before any row has been answered.

    If all rows are rejected, a setting is to blame, and not the rows. Their rejections would never be asked again, also
    not by a command with the right setting.
    """

    def __init__(self, store: Store):
        self._store = store
        self._answered = not all(map(_is_rejected, read_store(store.folder)))
        self.held: dict[str, Mapping[str, Any]] = {}
        """Rejections that are not saved, by key."""

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._answered = self._answered or not all(map(_is_rejected, records))
        self.held |= {record["key"]: record for record in records}
        if self._answered:
            self._store.add(self.held.values())
            self.held = {}


def _is_rejected(record: Mapping[str, Any]) -> bool:
    return all(answer["finish_reason"] == ERROR for answer in record["answers"])


def _reject_rest(todo: Sequence[WorkItem], store: Store, progress: "_Progress") -> None:
    left = [one.ref.key for one in todo if one.ref.key not in store.keys]
    if left:
        why = progress.failure or "its worker died"
        raise BatchesFailed(
            f"{progress.title}: {len(left)} rows were not answered, the first {left[0]} ({why}). {_GOES_ON}"
        )


_GOES_ON = "Finished rows are saved; repeat the command to resume"


class _Progress:
    """The displayed progress of a job."""

    def __init__(self, bar: Progress, console: Console, title: str, total: int):
        self.title, self.failure, self.errors, self.error = title, "", 0, ""
        self.speed = Speed()
        self._bar, self._console, self._total, self._done, self._ahead = bar, console, total, 0, 0
        self._task, self._reported_at = bar.add_task(title, total=total), time.monotonic()

    def begin(self, attempt: int, left: int) -> None:
        self._done, self._ahead = self._total - left, 0
        self._bar.update(self._task, completed=self._done)
        if attempt:
            self._console.print(f"{self.title}: attempt {attempt + 1} at {left} rows", markup=False)

    def tick(self) -> None:
        """Count a row of the present batch that is done but not saved yet."""
        self._ahead += 1
        self._show()

    def add(self, outcome: Outcome) -> None:
        if outcome.failure and not self.failure:
            self._console.print(f"{self.title}: {outcome.failure}", markup=False)
        self.failure = outcome.failure or self.failure
        tokens = sum(answer["tokens"] for record in outcome.records for answer in record["answers"])
        before = self.speed
        self.speed = Speed(before.rows + len(outcome.records), before.seconds + outcome.seconds, before.tokens + tokens)
        rejected = [record for record in outcome.records if _is_rejected(record)]
        self.errors += len(rejected)
        self.error = self.error or (rejected[0]["answers"][0]["text"] if rejected else "")
        self._done, self._ahead = self._done + len(outcome.records), 0
        self._show()

    def _show(self) -> None:
        done = self._done + self._ahead
        self._bar.update(self._task, completed=done)
        if not self._console.is_terminal and time.monotonic() - self._reported_at > _REPORT_EVERY:
            self._reported_at = time.monotonic()
            self._console.print(f"{self.title}: {done} of {self._total} rows", markup=False)
