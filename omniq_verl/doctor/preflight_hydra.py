"""Run the checks in the driver of a training run, before it starts Ray (``hydra.callbacks`` of the recipes)."""

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
    """Stops a run whose input is bad, with exit code 1.

    A single run is checked before Hydra makes its output folder, so a rejected run leaves nothing behind;
    the jobs of a multirun are checked one by one.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        # The SFT trainer's processes all come here; one of them speaks, and logs, for them.
        if os.environ.get("RANK", "0") == "0":
            stop_unless_sound(config)
            if is_sft(config):  # verl's own trainer, which is not asked where to log; GRPO's is in another process
                log_into(Path(config.trainer.default_local_dir), config.trainer.logger)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            stop_unless_sound(config)


def check_platform(config: DictConfig, environment: Mapping[str, str]) -> list[Problem]:
    """The recipe and the process agree on the platform; verl takes the process's, and fails much later."""
    chosen = environment.get("VERL_PLATFORM", "").strip().lower()
    device = OmegaConf.select(config, "trainer.device")
    if (device == "cpu") == (chosen == "cpu"):
        return []
    fix = "set VERL_PLATFORM=cpu for the run" if device == "cpu" else "unset VERL_PLATFORM, or take a CPU recipe"
    return [Problem("configuration key trainer.device", f"is {device}, and VERL_PLATFORM is {chosen!r}", fix)]


def stop_unless_sound(config: DictConfig) -> None:
    """Print all problems to stderr and leave the program if there is one that training cannot leave out.

    Raises:
        SystemExit: there are such problems, or a check itself failed. Hydra 1.3 turns every ``Exception`` of a
            callback into a warning and goes on (hydra/_internal/callbacks.py, ``_notify``); this one passes.
    """
    try:
        report = check_config(config)
    except Exception as error:
        traceback.print_exc()
        raise SystemExit("preflight: a check failed by itself, the run was not started") from error
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
