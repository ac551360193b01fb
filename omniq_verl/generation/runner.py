"""A job of many requests: in batches, here or on Ray Data, each finished row kept at once and never asked for again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from omniq_verl.console import progress_bar
from omniq_verl.generation.request import ERROR
from omniq_verl.generation.store import Store
from omniq_verl.generation.workers import Job, Outcome, WorkItem, here, on_ray

_SMALLER = 8
"""By this, batches shrink from one attempt to the next: a row that kills its worker ends up with ever fewer others."""
_SAY_EVERY = 60  # seconds, where there is no bar: in a log


@dataclass(frozen=True)
class RunOptions:
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
    """Some rows were not answered."""


def run_job(
    job: Job, todo: Sequence[WorkItem], store: Store, run_options: RunOptions, console: Console, title: str
) -> dict[str, str]:
    """Ask about every row that is not in the store yet.

    Returns:
        The digest of each file of the rows, by its path.

    Raises:
        OtherConfig: a file of the rows was written anew since the store's answers were given.
        BatchesFailed: nothing but failures came back, or a worker failed at some rows in every attempt, the last of
            them alone; what is finished is in the store.
    """
    digests = store.check_files(map(Path, sorted({one.ref.file for one in todo})))
    with progress_bar(console, "rows") as bar:
        progress = _Progress(bar, console, title, len(todo))
        for attempt in range(1 + run_options.retries):
            left = [one for one in todo if one.ref.key not in store.keys]
            if not left:
                break
            size = 1 if attempt == run_options.retries > 0 else max(run_options.batch // _SMALLER**attempt, 1)
            progress.begin(attempt, len(left))
            _attempt(
                job, [left[first : first + size] for first in range(0, len(left), size)], store, run_options, progress
            )
    _reject_rest(todo, store, progress)
    if progress.errors:
        console.print(
            f"{title}: {progress.errors} rows were rejected by the engine, e.g. {progress.error}", markup=False
        )
    return digests


def _attempt(
    job: Job, batches: list[list[WorkItem]], store: Store, run_options: RunOptions, progress: "_Progress"
) -> None:
    """All batches once.

    Raises:
        BatchesFailed: so many failures in a row that no other batch would fare better.
    """
    on = ("here" if job.engine.kind == "openai" else "ray") if run_options.on == "auto" else run_options.on
    outcomes = (
        here(job, batches, progress.tick)
        if on == "here"
        else on_ray(job, batches, run_options.workers, run_options.retries)
    )
    in_a_row = 0
    for outcome in outcomes:
        store.add(outcome.records)
        progress.add(outcome)
        in_a_row = in_a_row + 1 if outcome.failure else 0
        if in_a_row > 2 * run_options.workers:
            raise BatchesFailed(f"{progress.title}: nothing but failures ({outcome.failure}). {_GOES_ON}")


def _reject_rest(todo: Sequence[WorkItem], store: Store, progress: "_Progress") -> None:
    left = [one.ref.key for one in todo if one.ref.key not in store.keys]
    if left:
        why = progress.failure or "its worker died"
        raise BatchesFailed(
            f"{progress.title}: {len(left)} rows were not answered, the first {left[0]} ({why}). {_GOES_ON}"
        )


_GOES_ON = "What is finished is kept; the same command goes on from here"


class _Progress:
    """What is shown of a job."""

    def __init__(self, bar: Progress, console: Console, title: str, total: int):
        self.title, self.failure, self.errors, self.error = title, "", 0, ""
        self._bar, self._console, self._total, self._done, self._ahead = bar, console, total, 0, 0
        self._task, self._said = bar.add_task(title, total=total), time.monotonic()

    def begin(self, attempt: int, left: int) -> None:
        self._done, self._ahead = self._total - left, 0
        self._bar.update(self._task, completed=self._done)
        if attempt:
            self._console.print(f"{self.title}: attempt {attempt + 1} at {left} rows", markup=False)

    def tick(self) -> None:
        """A row of the present batch is done, and not kept yet."""
        self._ahead += 1
        self._show()

    def add(self, outcome: Outcome) -> None:
        if outcome.failure and not self.failure:
            self._console.print(f"{self.title}: {outcome.failure}", markup=False)
        self.failure = outcome.failure or self.failure
        rejected = [record for record in outcome.records if record["answers"][0]["finish_reason"] == ERROR]
        self.errors += len(rejected)
        self.error = self.error or (rejected[0]["answers"][0]["text"] if rejected else "")
        self._done, self._ahead = self._done + len(outcome.records), 0
        self._show()

    def _show(self) -> None:
        done = self._done + self._ahead
        self._bar.update(self._task, completed=done)
        if not self._console.is_terminal and time.monotonic() - self._said > _SAY_EVERY:
            self._said = time.monotonic()
            self._console.print(f"{self.title}: {done} of {self._total} rows", markup=False)
