"""Run the stages one after another, show their progress, and resume a killed run."""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from omniq_verl.metric_log import next_metric_file, read_metrics
from omniq_verl.quickstart.stages import Stage

_LOG_TAIL = 40  # lines of a failed stage's log that are shown
# A vLLM worker that dies while it receives weights leaves verl's trainer waiting forever
# (bucketed_weight_transfer.py:164); no healthy stage is silent for this long.
_STALLED_SECONDS = 900
_PR_SET_PDEATHSIG = 1


class StageFailed(RuntimeError):
    """A stage ended with an error; the message names its log."""


@contextmanager
def run_folder_lock(root: Path) -> Iterator[None]:
    """Allow only one run at a time in a folder; the lock is released when the process ends, however it ends.

    Raises:
        StageFailed: another run holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageFailed(f"{root} is in use by another run; wait for it, or name another folder") from None
        yield


def fingerprints(stages: list[Stage]) -> dict[str, str]:
    """By stage name, a text that changes with the commands up to that stage, but not with the code they run."""
    found, before = {}, ""
    for stage in stages:
        text = json.dumps([before, stage.command, stage.environment])
        found[stage.name] = before = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def run_stages(stages: list[Stage], root: Path, console: Console) -> dict[str, float]:
    """Run the unfinished stages; returns the seconds each stage took now (0.0 if it was finished before).

    Raises:
        StageFailed: a stage ended with an error.
    """
    seconds, marks = {}, fingerprints(stages)
    for number, stage in enumerate(stages, 1):
        label = f"[{number}/{len(stages)}] {stage.name}: {stage.title}"
        folder, mark = root / stage.name, marks[stage.name]
        if _read(folder / "done") == mark:
            console.print(f"{label} - done before")
            seconds[stage.name] = 0.0
            continue
        if _read(folder / "begun") != mark:
            # Results of another command must not be used: verl would resume from its checkpoint.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "begun").write_text(mark)
        started = time.monotonic()
        _run(stage, root, label, console)
        (folder / "begun").write_text(mark)  # again, as a stage may have replaced its folder
        (folder / "done").write_text(mark)
        seconds[stage.name] = time.monotonic() - started
        console.print(f"{label} - {seconds[stage.name]:.0f} s")
    return seconds


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def log_path(root: Path, stage: Stage) -> Path:
    """The log of a stage, for all its starts."""
    return root / "logs" / f"{stage.name}.log"


def _run(stage: Stage, root: Path, label: str, console: Console) -> None:
    folder = root / stage.name
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    path = log_path(root, stage)
    path.parent.mkdir(exist_ok=True)
    with open(path, "a") as log:
        log.write(f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(stage.command)}\n")
        log.flush()
        process = _start(stage, folder, log)
        try:
            code = _wait(process, stage, root, label, console)
        finally:
            _stop(process)
    if code != 0:
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
        raise StageFailed(f"{tail}\n\n{stage.name} ended with exit code {code}; its whole log: {path}")


def _start(stage: Stage, folder: Path, log: TextIO) -> subprocess.Popen:
    environment = {
        **os.environ,
        "VERL_PLATFORM": "cpu",
        "VERL_FILE_LOGGER_PATH": str(next_metric_file(folder)),
        # Ray's workers run at niceness 15 and OpenMP's threads spin while they wait. On two cores that verl's many
        # processes (and the user's) share, a step then takes three times as long.
        "RAY_worker_niceness": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB per engine, far more than a tiny model fills
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **stage.environment,
    }
    return subprocess.Popen(
        stage.command,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=_die_with_parent,
        start_new_session=True,
    )


def _die_with_parent() -> None:
    """Kill the child when its parent dies: the next run would otherwise train next to it, in the same folder."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(process: subprocess.Popen, stage: Stage, root: Path, label: str, console: Console) -> int:
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn()]
    if stage.steps:
        columns += [MofNCompleteColumn(), TextColumn("steps,"), TimeRemainingColumn(), TextColumn("left")]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=stage.steps or None)
        while (code := process.poll()) is None:
            if stage.steps:
                bar.update(task, completed=max(read_metrics(root / stage.name), default=0))
            _reject_stall(stage, log_path(root, stage))
            time.sleep(0.5)
    return code


def _reject_stall(stage: Stage, log: Path) -> None:
    silent = time.time() - log.stat().st_mtime
    if silent > _STALLED_SECONDS:
        raise StageFailed(f"{stage.name} wrote nothing for {silent / 60:.0f} minutes and was stopped; its log: {log}")


def _stop(process: subprocess.Popen) -> None:
    """Stop the stage's processes if we leave early (Ctrl-C)."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
