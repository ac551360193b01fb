"""How far a pipeline is: each stage done, begun, out of date or still to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from omniq_verl.pipeline.marks import Mark, differences, marks_of, read_mark
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.summary import print_cells

DONE, BEGUN, OUTDATED, TO_DO = "done", "begun", "out of date", "to do"


@dataclass(frozen=True)
class StageState:
    """Where one stage stands."""

    name: str
    title: str
    state: str
    """``DONE``, ``BEGUN``, ``OUTDATED`` or ``TO_DO``."""
    seconds: float = 0.0
    """What its last start took, if it is done."""
    why: str = ""
    """What has changed since, if it is out of date."""


def stage_states(stages: Sequence[Stage], root: Path, need: Mapping[str, Sequence[str]]) -> list[StageState]:
    """Where every stage stands, in their order; nothing is written."""
    today = marks_of(stages, need)
    return [_state_of(stage, read_mark(root, stage.name), today[stage.name]) for stage in stages]


def _state_of(stage: Stage, mark: Mark | None, today: Mark) -> StageState:
    if mark is None:
        return StageState(stage.name, stage.title, TO_DO)
    if different := differences(mark, today):
        return StageState(stage.name, stage.title, OUTDATED, why=f"other {' and '.join(different)}")
    if not mark.done:
        return StageState(stage.name, stage.title, BEGUN)
    return StageState(stage.name, stage.title, DONE, mark.seconds)


def print_status(found: Sequence[StageState], console: Console) -> None:
    """A table of all stages, and how many are done."""
    lines = [[one.name, one.title, _state(one)] for one in found]
    print_cells("stages", ["stage", "what", "state"], lines, console, numbers=False)
    done = sum(one.state == DONE for one in found)
    console.print(f"{done} of {len(found)} stages are done")


def _state(one: StageState) -> str:
    if one.state == DONE:
        return f"{DONE}, {duration(one.seconds)}"
    return f"{one.state} ({one.why})" if one.why else one.state


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is short."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
