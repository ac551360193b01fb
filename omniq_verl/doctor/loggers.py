"""Check that the loggers of a run can be opened. Otherwise verl would fail only after all engines have started."""

from importlib.util import find_spec

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.paths import paths_of
from omniq_verl.doctor.problem import Problem

PACKAGES = {
    **dict.fromkeys(("wandb", "tracking"), "wandb"),
    **{name: name for name in ("mlflow", "swanlab", "tensorboard", "clearml", "trackio", "rl_insight")},
    "vemlp_wandb": "volcengine_ml_platform",
    **dict.fromkeys(("console", "file")),
}
"""The loggers of verl 0.9.1 (verl/utils/tracking.py) and the packages they import."""


def check_loggers(config: DictConfig) -> list[Problem]:
    """Find loggers that verl does not know, or whose package is not installed."""
    problems = []
    for name in paths_of(OmegaConf.select(config, "trainer.logger")):
        where = f"trainer.logger={name}"
        if name not in PACKAGES:
            problems.append(Problem(where, "verl has no such logger", f"choose from {', '.join(sorted(PACKAGES))}"))
        elif (package := PACKAGES[name]) and find_spec(package) is None:
            what = f"the package {package} is not installed, and verl would stop once all engines have started"
            problems.append(Problem(where, what, f"pip install {package}, or remove it from trainer.logger"))
    return problems
