"""What ``omniq reproduce`` prints fits terminals of 80 and 120 columns, and breaks no name in two."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from omniq_verl.doctor.gpu_memory import GIB
from omniq_verl.pipeline.cost import Cost
from omniq_verl.pipeline.cost_report import plan_table, short_size
from omniq_verl.pipeline.experiments import TINY, build
from omniq_verl.pipeline.paper.experiments import PAPERS
from omniq_verl.pipeline.status import OUTDATED, StageState, print_status

WIDE = Cost(987.6, 4, 340 * GIB, 0.0, 320 * GIB, 51.2 * GIB, "somewhere")
"""As wide as any that has been seen."""


def printed(what: object, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(what)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(("name", "scale"), [*((name, "tiny") for name in TINY), *((name, "paper") for name in PAPERS)])
def test_a_plan_has_every_stage_whole_below_its_folder(name, scale, width):
    stages = build(name, scale, Path("/somewhere/run"), [0, 12], None, None).stages
    lines = printed(plan_table([(stage, WIDE) for stage in stages], ["another"] * 11 + ["somewhere"]), width)
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["stage", "GPUs", "time", "GPU-h", "disk", "host", "GPU", "source"]
    folder, found = "", []
    for line in lines[1:]:
        first, *cells = line.split()
        if not line.startswith(" ") and not cells:
            folder = first
            continue
        found.append(f"{folder}/{first}" if line.startswith(" ") else first)
        assert cells == ["4", "987.6", "h", "3,950", "340G", "320G", "51.2G", "[12]"]
    assert found == [stage.name for stage in stages]


def test_columns_without_a_figure_are_left_out():
    stages = build("rali", "tiny", Path("/somewhere/run"), [0], None, None).stages
    lines = printed(plan_table([(stage, Cost(0.5, source="x")) for stage in stages], ["x"]), 80)
    assert lines[0].split() == ["stage", "time", "source"] and lines[1].split() == ["data", "30", "min", "[1]"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "-"), (1, "<1M"), (2**20, "1.0M"), (99.94 * GIB, "99.9G"), (339.8 * GIB, "340G"), (2048 * GIB, "2.0T")],
)
def test_sizes_of_the_plan_are_short(count, text):
    assert short_size(count) == text


@pytest.mark.parametrize("width", [80, 120])
def test_the_status_breaks_no_name(width):
    stages = build("omniquality_r", "tiny", Path("/somewhere/run"), [0], None, None).stages
    found = [StageState(one.name, one.title, OUTDATED, why="other settings and data and code") for one in stages]
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_status(found, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.replace("│", " ").split()}
    assert {one.name for one in stages} <= words
