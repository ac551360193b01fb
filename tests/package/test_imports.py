"""Who may import what, and how long it takes."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PACKAGE = REPO / "omniq_verl"
FILES = sorted(PACKAGE.rglob("*.py"))
FRAMEWORKS = ("verl", "vllm", "ray", "torch", "transformers")
PURE = (
    "omniq_verl",
    "omniq_verl.object_reference",
    "omniq_verl.import_hooks",
    "omniq_verl.tasks",
    "omniq_verl.rewards",
    "omniq_verl.data.parquet",
    "omniq_verl.data.rows",
    "omniq_verl.evaluation.correlations",
    "omniq_verl.filters",
    "omniq_verl.metric_log",
    "omniq_verl.trainer.mini_batches",
    "omniq_verl.trainer.validation",
    "omniq_verl.pipeline.stage",
    "omniq_verl.pipeline.tiny_stages",
    "omniq_verl.plugin",
)
"""Modules that must work where no framework is installed."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[str]:
    """The full name of every module and object a file imports, at its top or inside of a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def run_python(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def test_importing_the_package_takes_less_than_a_tenth_of_a_second():
    def seconds() -> float:
        report = run_python("import omniq_verl", "-X", "importtime").stderr
        lines = re.findall(r"import time:\s*\d+ \|\s*(\d+) \| (\S+)", report)  # own, with what it imports, name
        return int({name: cumulative for cumulative, name in lines}["omniq_verl"]) / 1e6

    assert min(seconds() for _ in range(3)) < 0.1


def test_the_pure_modules_work_without_any_framework():
    code = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FRAMEWORKS!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
for name in {PURE!r}:
    importlib.import_module(name)
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.rewards import compute_score
assert correlations([1, 2, 3], [1, 2, 3])["n"] == 3
assert compute_score("", "<answer>3</answer>", '{{"score": 3}}', {{"task": "technical"}})["score"] == 1
print("done")
"""
    result = run_python(code)
    assert result.stdout == "done\n", result.stderr


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_verl_is_imported_only_where_files_say_so(path):
    allowed = path.parent.name in ("trainer", "cpu") or path.stem.endswith(("_verl", "_hydra"))
    uses = [name for name in imports(path) if is_of(name, "verl")]
    assert allowed or not uses, f"{name_of(path)} imports {uses}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nobody_imports_the_plugin_or_the_command_line(path):
    forbidden = ("omniq_verl.plugin", "omniq_verl.cli")
    assert not [name for name in imports(path) if any(is_of(name, module) for module in forbidden)]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name in ("tasks", "rewards", "data", "preparation")], ids=name_of
)
def test_tasks_rewards_and_data_import_only_one_another_and_preparation_only_these(path):
    allowed = {"tasks", "rewards", "data", "object_reference", "lfs", "__version__"}
    if path.parent.name == "preparation":
        allowed |= {"preparation", "console"}
    assert {name.split(".")[1] for name in imports(path) if name.startswith("omniq_verl.")} <= allowed


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_pyplot_which_would_choose_the_back_end_of_a_notebook(path):
    assert not [name for name in imports(path) if is_of(name, "matplotlib.pyplot")]


def test_the_data_scripts_need_no_framework():
    for path in sorted((REPO / "data_prep").glob("*.py")):
        assert not [name for name in imports(path) if name.split(".")[0] in FRAMEWORKS], path
