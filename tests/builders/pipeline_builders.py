"""Pipelines of quick commands that stand in for trainings: each notes that it ran, and copies what it reads."""

import io
import sys
from pathlib import Path

from rich.console import Console

from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
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


def read_result(folder: Path) -> dict[str, float]:
    """A figure out of a stage's result."""
    return {"PLCC": int((folder / "result").read_text()[:4], 16) / 65536}


def quick_experiment(root: Path, seeds: tuple[int, ...] = (0,), seconds: float = 0.0) -> Experiment:
    """Stands for Q-Insight: a diamond of quick commands for each seed, and one table."""
    rows = (OurRow("joint", "d", (None, "Q-Insight (ours), joint training")), OurRow("score only", "b"))
    stages = [
        writer(
            root, f"seed{seed}/{name}", *(f"seed{seed}/{one}" for one in reads), seconds=seconds, environment={"S": "1"}
        )
        for seed in seeds
        for name, reads in (("a", ""), ("b", "a"), ("c", "a"), ("d", "bc"))
    ]
    tables = (OurTable("q_insight:4", rows, read_result),)
    return Experiment("q_insight", "tiny", seeds, stages, tables, {"q_insight:2": "one data set is too few"})


def runs(root: Path) -> list[str]:
    """The stages that were started, in order."""
    path = root / "runs.txt"
    return path.read_text().split() if path.exists() else []
