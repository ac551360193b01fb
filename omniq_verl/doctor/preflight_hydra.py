"""Run the checks in the driver of a training run before it starts Ray (``hydra.callbacks`` of the recipes)."""

import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.checks import check_config
from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.sft import is_sft
from omniq_verl.metric_log import log_into


class Preflight(Callback):
    """Stops a run with bad input, with exit code 1.

    A single run is checked before Hydra creates its output folder, so a rejected run leaves nothing behind. The jobs of
    a multirun are checked one after another.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        # All processes of the SFT trainer get here. One of them reports and logs for all.
        if os.environ.get("RANK", "0") == "0":
            stop_unless_sound(config)
            if is_sft(config):  # verl's SFT trainer has no hook for its log; the GRPO trainer opens its own
                log_into(Path(config.trainer.default_local_dir), config.trainer.logger)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            stop_unless_sound(config)


def check_platform(config: DictConfig, environment: Mapping[str, str]) -> list[Problem]:
    """Report if recipe and process name different platforms. verl follows the process, and fails much later."""
    chosen = environment.get("VERL_PLATFORM", "").strip().lower()
    device = OmegaConf.select(config, "trainer.device")
    if (device == "cpu") == (chosen == "cpu"):
        return []
    fix = "set VERL_PLATFORM=cpu for the run" if device == "cpu" else "unset VERL_PLATFORM, or use a CPU recipe"
    return [Problem("configuration key trainer.device", f"is {device}, and VERL_PLATFORM is {chosen!r}", fix)]


def stop_unless_sound(config: DictConfig) -> None:
    """Print all problems to stderr and exit if any of them must stop the run.

    Raises:
        SystemExit: there are such problems, or a check itself failed. Hydra 1.3 turns every ``Exception`` of a callback
            into a warning and continues (hydra/_internal/callbacks.py, ``_notify``), but lets ``SystemExit`` through.
    """
    try:
        report = check_config(config)
    except Exception as error:
        traceback.print_exc()
        raise SystemExit("preflight: a check itself failed, the run was not started") from error
    report.problems += check_platform(config, os.environ)
    stops = report.blocking
    for problem in report.problems:
        print(problem, file=sys.stderr)
    for note in report.notes:
        print(f"preflight: {note}", file=sys.stderr)
    print(f"preflight: {report.summary()}", file=sys.stderr, flush=True)
    if stops:
        raise SystemExit(1)
    if report.problems:
        print(f"preflight: training leaves out these {report.bad_rows} rows", file=sys.stderr, flush=True)
