"""Start a run only for its live check, and wait for the report."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from omniq_verl.live.findings import FILE_NAME, LiveReport

LOG_NAME = "live_check.log"
"""Name of the log in the run's folder."""
_OUR_TRAINER = "omniq_sync"
_PATIENCE = 30
"""Seconds that a run gets to end after SIGTERM."""
_SHOWN = 5


class NoReport(RuntimeError):
    """The run ended or was stopped before it could check anything."""


def run_live_check(
    recipe: str, overrides: Sequence[str], recipes: Path, config: DictConfig, timeout: float, console: Console
) -> LiveReport:
    """Start the engines of a run and return the result of the live check. Nothing is trained.

    Args:
        recipe: the recipe's name below the folder of recipes.
        overrides: the run's settings.
        recipes: the folder of recipes.
        config: the composed configuration of the run.
        timeout: seconds after which the run is stopped.
        console: shows the progress.

    Raises:
        ValueError: the run does not use this package's trainer, which does the check.
        NoReport: the engines did not start, or the time ran out.
    """
    mode = OmegaConf.select(config, "trainer.v1.trainer_mode")
    if mode != _OUR_TRAINER:
        raise ValueError(
            f"trainer.v1.trainer_mode={mode} has no live check. Fix: trainer.v1.trainer_mode={_OUR_TRAINER}"
        )
    folder = Path(config.trainer.default_local_dir)
    report, log = folder / FILE_NAME, folder / LOG_NAME
    folder.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as outputs:
        own = ["trainer.v1.live_check=only", "trainer.logger=[console]", f"hydra.run.dir={outputs}"]
        command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(recipes.resolve())]
        command += ["--config-name", recipe, *overrides, *own]
        _wait(command, log, timeout, console)
    try:
        return LiveReport.load(report)
    except (OSError, ValueError, KeyError, TypeError):
        raise NoReport(f"the run ended before the live check. Its log, {log}, ends with:\n{_errors(log)}") from None


def _wait(command: Sequence[str], log: Path, timeout: float, console: Console) -> None:
    began = time.monotonic()
    with open(log, "wb") as out:
        # A separate session, so that the many processes of Ray and vLLM can be stopped together.
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        with console.status("live check") as status:
            while process.poll() is None:
                spent = time.monotonic() - began
                status.update(f"live check: engines and checks, {spent:.0f} s (log: {log})")
                if spent > timeout:
                    raise NoReport(f"it took more than {timeout:.0f} s; its log is {log}. Fix: --live-timeout SECONDS")
                time.sleep(0.5)
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, _PATIENCE)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def _errors(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "Fix:" in line or "Fix:" in line]
    return "\n".join((errors or lines)[-_SHOWN:])
