"""Tables in a terminal of 80 columns, the usual width: nothing is cut."""

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

from omniq_verl.evaluation.papers import load_table
from omniq_verl.t2i.cli import _selector_table
from omniq_verl.t2i.compare_selectors import Row

PACKAGE = Path(__file__).parents[2] / "omniq_verl"


@pytest.mark.parametrize("width", [80, 60])
def test_names_of_selectors_stay_different(width):
    tasks = ("technical", "aesthetic", "alignment")
    names = [f"technical+aesthetic+alignment_of_run_{number}" for number in (1, 2)]
    figures = (dict.fromkeys(tasks, 0.5), dict.fromkeys(tasks, 0.1), dict.fromkeys(tasks, 9))
    rows = [Row(name, 0.5, *figures) for name in names]
    console = Console(file=io.StringIO(), width=width)
    console.print(_selector_table(rows, load_table("omniquality_r:7"), 9, 9))
    shown = console.file.getvalue()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width
    first = "".join(line[1 : line.find("  ", 2)].strip() for line in shown.splitlines())
    assert all(name in first for name in names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_column_of_a_table_cuts_its_text(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    columns = [one for one in calls if isinstance(one.func, ast.Attribute) and one.func.attr == "add_column"]
    assert all("overflow" in {keyword.arg for keyword in one.keywords} for one in columns)
