"""Pipelines of quick commands that stand in for trainings: each notes that it ran, and copies what it reads."""

import io
import sys
from pathlib import Path

from rich.console import Console

from omniq_verl.pipeline.stage import Stage

WRITER = """
import hashlib, pathlib, sys, time
out, seconds, *read = sys.argv[1:]
out, part = pathlib.Path(out), pathlib.Path(out) / "part"
text = "".join(pathlib.Path(one).read_text() for one in read) + out.name
with open(out.parents[1] / "runs.txt", "a") as runs:
    runs.write(out.name + "\\n")
for step in range(3):  # as a training: what was done before a kill is there
    if not (out / f"step{step}").exists():
        time.sleep(float(seconds))
        part.write_text(hashlib.sha256(f"{text}{step}".encode()).hexdigest())
        part.rename(out / f"step{step}")
final = "".join((out / f"step{step}").read_text() for step in range(3))
part.write_text(hashlib.sha256(final.encode()).hexdigest())
part.rename(out / "result")
"""


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def python_stage(name: str, code: str, *words: object, **more: object) -> Stage:
    return Stage(name, "a test", [sys.executable, "-S", "-c", code, *map(str, words)], **more)


def writer(root: Path, name: str, *reads: str, seconds: float = 0.0, **more: object) -> Stage:
    """A stage that reads the results of others and writes its own in three steps; a kill keeps the steps."""
    files = [root / one / "result" for one in reads]
    return python_stage(name, WRITER, root / name, seconds, *files, **more)


def diamond(root: Path, seconds: float = 0.0) -> list[Stage]:
    """One stage, two that read it, and one that reads both; all below ``run/``."""
    return [
        writer(root, "run/a", seconds=seconds),
        writer(root, "run/b", "run/a", seconds=seconds),
        writer(root, "run/c", "run/a", seconds=seconds),
        writer(root, "run/d", "run/b", "run/c", seconds=seconds),
    ]


def runs(root: Path) -> list[str]:
    """The stages that were started, in order."""
    path = root / "runs.txt"
    return path.read_text().split() if path.exists() else []
