"""A run's settings from a YAML file and KEY=VALUE words."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

Config = TypeVar("Config")


def read_config(kind: type[Config], path: Path | None, overrides: Sequence[str]) -> Config:
    """An object of a dataclass of settings.

    Args:
        kind: the dataclass, with defaults for all its fields.
        path: YAML file; a KEY=VALUE word, where a command line has no file before its words.
        overrides: KEY=VALUE words; of a key that is given twice the last value counts, as on verl's command line.

    Raises:
        ValueError: a key is unknown or a value of the wrong kind; the message names it.
    """
    words = list(overrides)
    if path is not None and "=" in str(path):
        words, path = [str(path), *words], None
    defaults = OmegaConf.structured(kind)
    for part in defaults.values():  # OmegaConf takes frozen dataclasses for settings that nobody may set
        if OmegaConf.is_config(part):
            OmegaConf.set_readonly(part, False)
    try:
        parts = [defaults, *([OmegaConf.load(path)] if path else [])]
        merged = OmegaConf.merge(*parts, OmegaConf.from_dotlist(words))
        _expand_home(merged)
        return OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        hint = f" Fix: write a list, {error.full_key}=[VALUE,...]" if "ListConfig" in str(error) else ""
        raise ValueError(f"{path or 'settings'}: {error}{hint}") from error


def _expand_home(node: DictConfig | ListConfig) -> None:
    """Replace a leading ``~/`` of every path by the home folder."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, (DictConfig, ListConfig)):
            _expand_home(value)
        elif isinstance(value, (str, Path)) and str(value).startswith("~/"):
            node[key] = os.path.expanduser(value)
