"""Processes of stages: started so that none outlives its pipeline, stopped with everything they started."""

import ctypes
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from omniq_verl.metric_log import next_metric_file
from omniq_verl.pipeline.stage import Stage

_PR_SET_PDEATHSIG = 1
_TAIL_LINES, _TAIL_BYTES = 40, 2**16
_TINY = {
    "VERL_PLATFORM": "cpu",
    # Ray's workers run at niceness 15 and OpenMP's threads spin while they wait: on two cores that are
    # shared by verl's many processes (and the user's) a step then takes three times as long.
    "RAY_worker_niceness": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TQ_NUM_THREADS": "1",  # TransferQueue's 8 are more than the cores, of which it warns at each message
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB per engine, far more than a tiny model fills
    "HF_HUB_OFFLINE": "1",
}
_QUIET = {"TRANSFORMERS_VERBOSITY": "error"}
"""Unless the user has set it otherwise: at the default, verl's SFT dataset causes a warning for each row it reads."""


class StageFailed(RuntimeError):
    """A stage ended with an error; the message names its log."""


@contextmanager
def run_folder_lock(root: Path) -> Iterator[None]:
    """Only one run at a time in a folder; the lock is released with the process, however it ends.

    Raises:
        StageFailed: another run holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageFailed(f"{root} is in use by another run. Fix: wait for it, or name another folder") from None
        yield


def log_path(root: Path, stage: Stage) -> Path:
    """Where the output of all starts of a stage goes."""
    return root / "logs" / f"{stage.name}.log"


def start(stage: Stage, root: Path, devices: Sequence[str] = ()) -> subprocess.Popen:
    """Start a stage. To be called in the main thread: a child is killed when the thread that started it ends.

    Args:
        stage: to be started.
        root: of the pipeline.
        devices: GPUs it gets, as ``CUDA_VISIBLE_DEVICES`` names them.
    """
    path, folder = log_path(root, stage), root / stage.name
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {"TOKENIZERS_PARALLELISM": "false", **({} if stage.gpus else _TINY)}
    if stage.steps:
        (folder / "metrics").mkdir(parents=True, exist_ok=True)
        own["VERL_FILE_LOGGER_PATH"] = str(next_metric_file(folder))
    if devices:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    with open(path, "a") as log:
        log.write(f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(stage.command)}\n")
        log.flush()
        return subprocess.Popen(
            stage.command,
            env={**_QUIET, **os.environ, **own, **stage.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )


def _die_with_parent() -> None:
    """A child must not outlive a killed run: the next one would train beside it, in the same folder."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(process: subprocess.Popen) -> None:
    """End a stage and everything it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        end_group(process)


def end_group(process: subprocess.Popen) -> None:
    """Kill what a stage has started and left behind; to be called as soon as it has ended."""
    with suppress(ProcessLookupError):  # there is none
        os.killpg(process.pid, signal.SIGKILL)


def check_silence(stage: Stage, log: Path) -> None:
    """Raise StageFailed if a stage has written nothing for longer than it may."""
    silent = time.time() - log.stat().st_mtime
    if silent > stage.silence:
        raise StageFailed(
            f"{stage.name} wrote nothing for {silent / 60:.0f} minutes and was stopped. Fix: see the end of {log}, then"
            " start the same command again"
        )


def failure(stage: Stage, code: int, log: Path) -> StageFailed:
    """The error of a stage that ended with an exit code: the end of its log, and where the rest is."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    tail = "\n".join(lines[-_TAIL_LINES:])
    return StageFailed(
        f"{tail}\n\n{stage.name} ended with exit code {code}. Fix: correct what its log names, {log}, then start"
        " the same command again"
    )
