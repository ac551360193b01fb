"""Run the checks in the driver of a training run, before it starts Ray (``hydra.callbacks`` of the recipes)."""

import sys
import traceback
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from omniq_verl.doctor.checks import check_config


class Preflight(Callback):
    """Stops a run whose input is bad, with exit code 1.

    A single run is checked before Hydra makes its output folder, so a refused run leaves nothing behind;
    the jobs of a multirun are checked one by one.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        stop_unless_sound(config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            stop_unless_sound(config)


def stop_unless_sound(config: DictConfig) -> None:
    """Print all problems to stderr and leave the program if there is any.

    Raises:
        SystemExit: there are problems, or a check itself failed. Hydra 1.3 turns every ``Exception`` of a
            callback into a warning and goes on (hydra/_internal/callbacks.py, ``_notify``); this one passes.
    """
    try:
        report = check_config(config)
    except Exception as error:
        traceback.print_exc()
        raise SystemExit("preflight: a check failed by itself, the run was not started") from error
    for problem in report.problems:
        print(problem, file=sys.stderr)
    print(f"preflight: {report.summary()}", file=sys.stderr, flush=True)
    if report.problems:
        raise SystemExit(1)
