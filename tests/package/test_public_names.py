"""Names that a room gives away: known to tools, imported when used, and functions where a module has the same name."""

import ast
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).parents[2]
ROOMS = [path for path in (REPO / "omniq_verl").rglob("__init__.py") if "export_names" in path.read_text()]


def room_of(path: Path) -> str:
    return ".".join(path.parent.relative_to(REPO).parts)


@pytest.mark.parametrize("path", ROOMS, ids=room_of)
def test_tools_programs_and_stars_see_the_same_names(path):
    tree = ast.parse(path.read_text())
    for_tools = {
        alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    room = import_module(room_of(path))
    assert set(room.__all__) - {"__version__"} == for_tools and for_tools <= set(dir(room))
    for name in for_tools:
        found = getattr(room, name)
        assert not isinstance(found, ModuleType) and found.__name__ == name
        assert found.__module__.startswith(room_of(path))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        room.nonsense  # noqa: B018


@pytest.mark.parametrize("first", ["import omniq_verl.evaluation.correlations", "pass"])
def test_a_function_wins_over_its_module_whatever_is_imported_first(first):
    code = (
        f"{first}\nfrom omniq_verl.evaluation import correlations\n"
        "from omniq_verl.evaluation.correlations import correlations as same\n"
        "from omniq_verl.evaluation import correlations as again\n"
        "assert correlations is same is again and correlations([1, 2, 3], [1, 2, 3])['n'] == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_rooms_imports_nothing_heavy():
    code = f"import sys, {', '.join(map(room_of, ROOMS))}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert not {"numpy", "pandas", "torch", "PIL", "requests", "scipy"} & set(found.stdout.split())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_a_type_checker_knows_what_scores_are():
    command = [sys.executable, "-m", "basedpyright", "--level", "error", "-p", "tests/typing_of_users.json"]
    found = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stdout
