"""Run the stages that are not done, several side by side where they may, and resume where a killed run stopped."""

import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline.marks import Mark, differences, mark_path, marks_of, read_mark, renewed, write_mark
from omniq_verl.pipeline.process import check_silence, end_group, failure, log_path, start, stop
from omniq_verl.pipeline.stage import PlanError, Stage, needs

CHANGED = ("stop", "keep", "again")
"""What to do about stages that other settings, data or code made: stop with an error; accept other code, and stop for
the rest; or run them again from nothing."""
_TICK = 0.5
_COUNT_EVERY = 5.0
"""Seconds between looks at the metrics of a training, which may be long."""


@dataclass
class _Running:
    """A stage at work."""

    process: subprocess.Popen
    began: float
    bar: TaskID
    devices: tuple[str, ...]
    counted: float = 0.0


@dataclass
class _Run:
    """One call of ``run_stages``."""

    stages: dict[str, Stage]
    root: Path
    console: Console
    need: Mapping[str, Sequence[str]]
    marks: Mapping[str, Mark]
    jobs: int
    free_gpus: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    """Finished stages: how long they took now, 0.0 if they were done before."""
    running: dict[str, _Running] = field(default_factory=dict)

    def label(self, name: str) -> str:
        number = list(self.stages).index(name) + 1
        return f"[{number}/{len(self.stages)}] {name}: {self.stages[name].title}"


def run_stages(
    stages: Sequence[Stage],
    root: Path,
    console: Console,
    jobs: int = 1,
    gpus: Sequence[str] = (),
    changed: str = "again",
    need: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """Run what is not done yet.

    A stage whose settings or data have changed is run again from nothing; its old folder is removed. A folder that no
    stage has made is never touched.

    Args:
        stages: in an order in which they can run.
        root: folder of all their folders.
        console: for a line for each stage, and progress bars.
        jobs: most stages at a time.
        gpus: GPUs that stages may take, as ``CUDA_VISIBLE_DEVICES`` names them.
        changed: one of ``CHANGED``.
        need: of ``stage.needs``; found from the stages if it is not given.

    Returns:
        By stage name, the seconds it took now; 0.0 if it was done before.

    Raises:
        StageFailed: a stage ended with an error; others that were running have been stopped.
        PlanError: the stages cannot be run in this order or on so many GPUs, a folder of theirs holds files of someone
            else, or ``changed`` says to stop.
    """
    need = need or needs(stages, root)
    by_name = {stage.name: stage for stage in stages}
    _check_possible(by_name, need, len(gpus))
    _check_folders(by_name, root)
    run = _Run(by_name, root, console, need, marks_of(stages, need), jobs, list(gpus))
    check_changes(run.marks, root, changed)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True) as progress:
        try:
            while len(run.seconds) < len(stages):
                _start_ready(run, progress)
                _look_after(run, progress)
                if run.running:
                    time.sleep(_TICK)
        finally:
            for one in run.running.values():
                stop(one.process)
    return run.seconds


def _check_possible(stages: Mapping[str, Stage], need: Mapping[str, Sequence[str]], gpus: int) -> None:
    for name, stage in stages.items():
        if stage.gpus > gpus:
            raise PlanError(
                f"stage {name} needs {stage.gpus} GPUs, but {gpus} are here. Fix: use a machine with more, or name more"
                " in CUDA_VISIBLE_DEVICES"
            )
        if absent := [one for one in need[name] if one not in stages]:
            raise PlanError(f"stage {name} needs {absent[0]}, which is not among the stages to run")


def _check_folders(names: Iterable[str], root: Path) -> None:
    """A stage writes its mark before anything else, so files in a folder without a mark are not its own."""
    for name in names:
        folder = root / name
        if mark_path(root, name).exists() or not folder.exists():
            continue
        if not folder.is_dir() or any(folder.iterdir()):
            raise PlanError(f"{folder} was not made by this command. Fix: name another --out, or move it away")


def check_changes(marks: Mapping[str, Mark], root: Path, changed: str) -> None:
    """Decide about stages that were begun or finished under other conditions than today's.

    Raises:
        PlanError: there are some, and ``changed`` says to stop for them.
    """
    for name, today in marks.items():
        mark = read_mark(root, name)
        if changed == "again" or mark is None or not (different := differences(mark, today)):
            continue
        if changed == "keep" and different == ["code"]:
            write_mark(root, name, renewed(mark, today.code))
            continue
        accept = ", or --changed keep to accept it" if different == ["code"] else ""
        raise PlanError(
            f"stage {name} in {root} was made with other {' and '.join(different)}. Fix: name another folder, or add"
            f" --changed again to rerun it and what depends on it{accept}"
        )


def _start_ready(run: _Run, progress: Progress) -> None:
    for name, stage in run.stages.items():
        if name in run.seconds or name in run.running or not all(one in run.seconds for one in run.need[name]):
            continue
        mark = read_mark(run.root, name)
        if mark is not None and mark.done and not differences(mark, run.marks[name]):
            run.console.print(f"{run.label(name)} - done before", markup=False, highlight=False)
            run.seconds[name] = 0.0
        elif len(run.running) < run.jobs and stage.gpus <= len(run.free_gpus):
            _begin(run, stage, mark, progress)


def _begin(run: _Run, stage: Stage, mark: Mark | None, progress: Progress) -> None:
    today, folder = run.marks[stage.name], run.root / stage.name
    if mark is None or differences(mark, today):
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_mark(run.root, stage.name, today)
    devices = tuple(run.free_gpus[: stage.gpus])
    del run.free_gpus[: stage.gpus]
    bar = progress.add_task(run.label(stage.name), total=stage.steps or None, left="")
    run.running[stage.name] = _Running(start(stage, run.root, devices), time.monotonic(), bar, devices)


def _clear(folder: Path) -> None:
    """Remove what another command left in a stage's folder: verl would resume its checkpoint.

    Raises:
        PlanError: the folder is a link that leads to files; whose they are is not known.
        OSError: it cannot be removed.
    """
    if folder.is_symlink():
        if any(folder.iterdir()):
            raise PlanError(f"{folder} is a link, and {folder.resolve()} is not empty. Fix: empty that folder by hand")
    elif folder.exists():
        shutil.rmtree(folder)


def _look_after(run: _Run, progress: Progress) -> None:
    for name, one in list(run.running.items()):
        stage, log = run.stages[name], log_path(run.root, run.stages[name])
        code = one.process.poll()
        if code is None:
            check_silence(stage, log)
            _count_steps(run, stage, one, progress)
            continue
        del run.running[name]
        run.free_gpus += one.devices
        progress.remove_task(one.bar)
        if code != 0:
            end_group(one.process)
            raise failure(stage, code, log)
        run.seconds[name] = time.monotonic() - one.began
        write_mark(run.root, name, replace(run.marks[name], done=True, seconds=round(run.seconds[name], 1)))
        run.console.print(f"{run.label(name)} - {run.seconds[name]:.0f} s", markup=False, highlight=False)


def _count_steps(run: _Run, stage: Stage, one: _Running, progress: Progress) -> None:
    if not stage.steps or time.monotonic() - one.counted < _COUNT_EVERY:
        return
    one.counted = time.monotonic()
    with suppress(ValueError, OSError):  # a line that is being written; the stage itself reports what is wrong
        finished = max(read_metrics(run.root / stage.name), default=0)
        progress.update(one.bar, completed=finished, left=f"{finished}/{stage.steps} steps")
