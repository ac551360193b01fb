"""Paths of a configuration."""

import glob
import os
from collections.abc import Iterable, Sequence

from omegaconf import DictConfig, ListConfig, OmegaConf

from omniq_verl.doctor.problem import Problem


def paths_of(value: str | Sequence[str] | None) -> list[str]:
    """Return the paths of a setting that contains one path or several."""
    return [str(path) for path in value] if isinstance(value, (list, ListConfig)) else [str(value)] if value else []


def has_pattern(path: str) -> bool:
    """Return whether ``datasets.load_dataset``, which verl uses for GRPO rows, would interpret characters of a path."""
    return glob.has_magic(path) or "::" in path


def home_problems(config: DictConfig, keys: Iterable[str]) -> list[Problem]:
    """Report paths that begin with ``~``, which verl treats as the name of a folder."""
    named = [(key, path) for key in keys for path in paths_of(OmegaConf.select(config, key)) if path.startswith("~")]
    return [home_problem(key, path) for key, path in named]


def home_problem(key: str, path: str) -> Problem:
    """Return the problem of a path that begins with ``~``."""
    return Problem(f"{key}={path}", "verl does not replace ~ with the home folder", f"write {os.path.expanduser(path)}")
