"""Words of the commands that stages run."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omniq_verl.pipeline.stage import Stage

ALONE = {
    # What torchrun would set for a single process. Without its agent there is none to outlive a kill.
    **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
    "DIST_INIT_METHOD": "tcp://127.0.0.1:0",  # any free port
}


def module(*words: str | Sequence[str]) -> list[str]:
    """``python -m``, with this Python, and the words of the command."""
    flat = [part for word in words for part in ([word] if isinstance(word, str) else word)]
    return [sys.executable, "-m", *flat]


def omniq(*words: object) -> list[str]:
    """A command of ``omniq``."""
    return module("omniq_verl.cli", [str(word) for word in words])


def flags(**values: Any) -> list[str]:
    """``--name value`` for each of them, in order."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def settings(values: Mapping[str, Any]) -> list[str]:
    """``key=value`` for each of them, in order."""
    return [f"{key}={value}" for key, value in values.items()]


def listed(paths: Sequence[Path]) -> str:
    """A list of files as Hydra and our own settings read it."""
    return f"[{','.join(map(str, paths))}]"


def recipe_words(folder: Path, name: str, overrides: Mapping[str, Any]) -> list[str]:
    """A recipe with its overrides, as verl's trainers take them."""
    return ["--config-dir", str(folder), "--config-name", name, *settings(overrides)]


def below(folder: str, stages: Sequence[Stage]) -> list[Stage]:
    """The stages with their names below a folder, e.g. ``seed0``; their commands have to name paths there already."""
    return [
        replace(stage, name=f"{folder}/{stage.name}", after=tuple(f"{folder}/{name}" for name in stage.after))
        for stage in stages
    ]
