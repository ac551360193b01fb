"""Paths of a configuration."""

import glob
import os
from collections.abc import Iterable, Sequence

from omegaconf import DictConfig, ListConfig, OmegaConf

from omniq_verl.doctor.problem import Problem


def paths_of(value: str | Sequence[str] | None) -> list[str]:
    """The paths of a setting that holds one path or several."""
    return [str(path) for path in value] if isinstance(value, (list, ListConfig)) else [str(value)] if value else []


def has_pattern(path: str) -> bool:
    """Whether ``datasets.load_dataset``, with which verl reads rows for GRPO, does not take a path as it is."""
    return glob.has_magic(path) or "::" in path


def home_problems(config: DictConfig, keys: Iterable[str]) -> list[Problem]:
    """Report paths that begin with ``~``, which verl takes for the name of a folder."""
    named = [(key, path) for key in keys for path in paths_of(OmegaConf.select(config, key)) if path.startswith("~")]
    return [home_problem(key, path) for key, path in named]


def home_problem(key: str, path: str) -> Problem:
    """The problem of a path that begins with ``~``."""
    return Problem(f"{key}={path}", "verl does not replace ~ with the home folder", f"write {os.path.expanduser(path)}")
