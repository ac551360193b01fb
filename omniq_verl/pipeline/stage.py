"""Stages of a pipeline, and which of them needs which. Nothing here runs anything."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

SILENCE = 900
"""Seconds a stage may write nothing into its log. A vLLM worker that dies while it receives weights leaves verl's
trainer waiting forever (``bucketed_weight_transfer.py:164``)."""


@dataclass(frozen=True)
class Work:
    """How much a stage has to do: what its cost is estimated from. It does not change what the stage does."""

    images: int = 0
    """Rows it reads or trains on, all epochs together."""
    answers: int = 0
    """Answers that a model writes."""
    tokens: int = 0
    """Tokens of an answer, on average: an assumption."""
    model: str = ""
    """Base model of the one that it trains or asks, whose name tells the size; empty: unknown, or another kind."""


@dataclass(frozen=True)
class Stage:
    """One command, which may be killed and started again.

    It writes into the folder of its name below the pipeline's root. What it reads there is found in its command.
    """

    name: str
    """Folder below the root, e.g. ``seed0/sft``."""
    title: str
    command: list[str]
    steps: int = 0
    """Steps to count in its metrics; 0 if there is nothing to count."""
    environment: dict[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    """Stages it needs that its command does not name by their folders."""
    reads: tuple[Path, ...] = ()
    """Files and folders outside of the root: a change of their contents makes the stage run again."""
    gpus: int = 0
    """GPUs it takes; 0: it runs on CPUs."""
    silence: int = SILENCE
    """Seconds without a line in its log after which it counts as hung."""
    work: Work = Work()


class MissingData(ValueError):
    """A data set that is trained on is not there."""


class PlanError(ValueError):
    """A list of stages that cannot be run; the message names the stage."""


def needs(stages: Sequence[Stage], root: Path) -> dict[str, tuple[str, ...]]:
    """Which stages each stage reads from, by name, in the order of the list.

    Raises:
        PlanError: two stages share a folder, one reads what no earlier stage writes, or a stage's folder would replace
            data from outside.
    """
    _check_names([stage.name for stage in stages])
    _check_outside(stages, root)
    found: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        wanted = set(stage.after)
        for path in paths_below(stage, root):
            owner = _owner(path, [*found, stage.name])
            if owner is None and any(name.startswith(f"{path}/") for name in found):
                continue  # a folder of several stages: ``after`` names those that are meant
            if owner is None:
                raise PlanError(f"stage {stage.name} reads {root / path}, which no earlier stage writes")
            wanted.add(owner)
        if unknown := sorted(wanted - found.keys() - {stage.name}):
            raise PlanError(f"stage {stage.name} needs {unknown[0]}, which is not an earlier stage")
        found[stage.name] = tuple(name for name in found if name in wanted)
    return found


def _check_outside(stages: Sequence[Stage], root: Path) -> None:
    """No stage may write where data from outside lie: a folder is emptied before its stage runs again."""
    folders = {stage.name: (root / stage.name).resolve() for stage in stages}
    for path in dict.fromkeys(path for stage in stages for path in stage.reads):
        real = path.resolve()
        for name, folder in folders.items():
            if real.is_relative_to(folder) or folder.is_relative_to(real):
                raise PlanError(
                    f"stage {name} would write into {folder}, and the run reads {path}, which is not its own. Fix: name"
                    " another --out"
                )


def paths_below(stage: Stage, root: Path) -> list[PurePosixPath]:
    """The paths below the root that a stage's command and environment name, relative to the root."""
    name = re.compile(re.escape(str(root)) + r"/([^\s,\[\]'\"=:]+)")
    words = [*stage.command, *stage.environment.values()]
    return [PurePosixPath(path) for word in words for path in name.findall(word)]


def chosen(stages: Sequence[Stage], wanted: Sequence[str], need: Mapping[str, Collection[str]]) -> list[Stage]:
    """The stages that are asked for and all that they need, in the order of the list.

    Args:
        stages: of a pipeline.
        wanted: names as a shell matches them (``seed0/sft``, ``*/sft*``), or last parts of names (``sft``).
        need: of ``needs``.

    Raises:
        PlanError: a name matches no stage.
    """
    names = [stage.name for stage in stages]
    todo = []
    for pattern in wanted:
        if not (mine := [name for name in names if matches(name, pattern)]):
            raise PlanError(f"--only {pattern} matches no stage. Fix: use one of {', '.join(names)}")
        todo += mine
    taken: set[str] = set()
    while todo:
        name = todo.pop()
        todo += [other for other in need[name] if other not in taken]
        taken.add(name)
    return [stage for stage in stages if stage.name in taken]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names the stage, one of its last parts, or a folder above it."""
    pattern = pattern.rstrip("/")
    parts = PurePosixPath(name).parts
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    return any(fnmatchcase(tail, pattern) for tail in tails) or fnmatchcase(name, f"{pattern}/*")


def _owner(path: PurePosixPath, names: Collection[str]) -> str | None:
    above = {str(parent) for parent in (path, *path.parents)}
    return next((name for name in names if name in above), None)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or parts[0] in ("logs", "marks"):
            raise PlanError(f"{name!r} is not a valid name of a stage's folder")
        if names.count(name) > 1:
            raise PlanError(f"there are two stages {name}")
        if inside := [other for other in names if other.startswith(f"{name}/")]:
            raise PlanError(f"stage {inside[0]} lies in the folder of stage {name}")
