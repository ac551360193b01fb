"""Modules from outside of this package, written where Python finds them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from omniq_verl.rewards import compute_score
from omniq_verl.tasks import find_task, task_number

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "examples" / "extending"
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.0"
[tool.setuptools]
packages = ["{name}"]
[project.entry-points."omniq_verl.tasks"]
{entries}
"""


def write_modules(folder: Path, modules: Mapping[str, str]) -> Path:
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    return folder


def write_distribution(folder: Path, name: str, entries: Mapping[str, str]) -> Path:
    """An installed distribution as importlib.metadata sees it: no code, entry points alone."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{entry} = {value}" for entry, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[omniq_verl.tasks]", *lines, ""]))
    return folder


def pip_installed(folder: Path, name: str, modules: Mapping[str, Path], entries: Mapping[str, str]) -> Path:
    """A package of these modules, built and installed by pip into a folder."""
    source, target = folder / "source", folder / "site"
    (source / name).mkdir(parents=True)
    (source / name / "__init__.py").touch()
    for module, path in modules.items():
        (source / name / f"{module}.py").write_text(path.read_text())
    lines = "\n".join(f'{entry} = "{value}"' for entry, value in entries.items())
    (source / "pyproject.toml").write_text(PROJECT.format(name=name, entries=lines))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True, timeout=300)
    return target


def reward_and_number(name: str) -> tuple[str, int, float]:
    """What a process makes of a task: its name, its number, and the reward of an answer that is 1 off."""
    rewarded = compute_score("mine", "<answer>9</answer>", '{"score": 8.0}', {"task": name})
    return find_task(name).name, task_number(name), rewarded["score"]


def run(words: list[str], path: Path, cwd: Path, code: int = 0) -> str:
    """The output of Python with one more folder on its path, and this checkout."""
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{REPO}", "COLUMNS": "300", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
