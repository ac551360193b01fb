"""Read a run's settings from a YAML file and KEY=VALUE overrides."""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

Config = TypeVar("Config")


def read_config(kind: type[Config], path: Path | None, overrides: Sequence[str]) -> Config:
    """Build an object of a settings dataclass.

    Args:
        kind: the dataclass, with defaults for all its fields.
        path: the YAML file, or the first override if the command line names no file.
        overrides: KEY=VALUE words; the last value of a repeated key counts, as on verl's command line.

    Raises:
        ValueError: a key is unknown or a value has the wrong type; the message names it.
    """
    words = list(overrides)
    if path is not None and "=" in str(path):
        words, path = [str(path), *words], None
    defaults = OmegaConf.structured(kind)
    for part in defaults.values():  # OmegaConf treats frozen dataclasses as read-only settings
        if OmegaConf.is_config(part):
            OmegaConf.set_readonly(part, False)
    try:
        parts = [defaults, *([OmegaConf.load(path)] if path else [])]
        merged = OmegaConf.merge(*parts, OmegaConf.from_dotlist(words))
        _expand_home(merged)
        return OmegaConf.to_object(merged)  # pyright: ignore[reportReturnType]  an object of the class
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        raise ValueError(f"{path or 'settings'}: there is no key {key!r}. Fix: {_meant(key, kind)}") from error
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        key = getattr(error, "full_key", None)
        hint = f" Fix: write a list, {key}=[VALUE,...]" if key is not None and "ListConfig" in str(error) else ""
        what = str(error) if key is None else f"{key}: {str(error).splitlines()[0]}"
        raise ValueError(f"{path or 'settings'}: {what}{hint}") from error


def default_settings(kind: type[Any]) -> str:
    """All keys of a settings dataclass with their defaults, as a YAML file."""
    return OmegaConf.to_yaml(OmegaConf.structured(kind))


def _meant(key: str, kind: type[Any]) -> str:
    known = list(_keys(OmegaConf.structured(kind)))
    similar = get_close_matches(key, known, 1) or [one for one in known if one.rsplit(".", 1)[-1] == key]
    return f"use {' or '.join(similar)}" if similar else f"use one of {', '.join(known)}"


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        value = None if OmegaConf.is_missing(node, key) else node[key]
        if isinstance(value, DictConfig) and len(value):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _expand_home(node: DictConfig | ListConfig) -> None:
    """Replace a leading ``~/`` of every path with the home folder."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, (DictConfig, ListConfig)):
            _expand_home(value)
        elif isinstance(value, (str, Path)) and str(value).startswith("~/"):
            node[key] = os.path.expanduser(value)
