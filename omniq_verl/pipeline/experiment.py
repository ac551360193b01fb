"""What ``omniq reproduce`` runs: stages, and which of them measures which row of which table of a paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omniq_verl.pipeline.stage import Stage

Reader = Callable[[Path], dict[str, float]]
"""Folder of a finished stage -> its figures by column; FileNotFoundError if there are none."""


@dataclass(frozen=True)
class OurRow:
    """One row that is measured here."""

    title: str
    folder: str
    """Stage that measures it, below the folder of its seed."""
    paper: tuple[str | None, str] | None = None
    """Group and method of the paper's row that it reproduces; None: the paper has no such row."""


@dataclass(frozen=True)
class OurTable:
    """One table of a paper, as far as it is measured here; or one that no paper has."""

    paper: str | None
    """As ``evaluation.papers.load_table`` takes it, e.g. ``omniquality_r:4``; None: no paper has it."""
    rows: tuple[OurRow, ...]
    read: Reader
    same_columns: bool = False
    """Whether the columns are the paper's own, so that its numbers can stand beside ours."""
    note: str = ""
    """What a reader has to know about these figures."""
    title: str = ""
    """What a table is called that no paper has."""

    @property
    def name(self) -> str:
        """What the table is called."""
        return self.paper or self.title


@dataclass(frozen=True)
class Experiment:
    """A paper at one scale."""

    name: str
    scale: str
    seeds: tuple[int, ...]
    stages: list[Stage]
    tables: tuple[OurTable, ...]
    not_run: dict[str, str] = field(default_factory=dict)
    """Tables that nothing here measures at this scale, and why."""


def seed_folder(seed: int) -> str:
    """Folder of a seed below the root."""
    return f"seed{seed}"


def once_per_seed(seeds: Sequence[int], stages_of: Callable[[int], list[Stage]]) -> list[Stage]:
    """The stages of all seeds, one seed after the other."""
    return [stage for seed in seeds for stage in stages_of(seed)]
