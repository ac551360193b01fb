"""Try the public entrances on mutated inputs: no hang, no traceback, no wrong status.

    python tests/fuzz/run.py --inputs 100000 --seed 0
    python tests/fuzz/run.py --kinds images bodies --inputs 2000 --seed 7 --out failures
    python tests/fuzz/run.py --replay failures/images-0-123

Each input is made from the seed, its kind and its number, runs in a process of its own kind, and has a limit of time;
a process that hangs or dies is replaced, and the input it was at is a failure. Failures are saved, each in a folder
with the input's files and ``why.txt``. Exit code 1: there is one.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = [str(TESTS / "builders"), str(TESTS), str(TESTS.parent)]
sys.path[:0] = FOLDERS
os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, os.environ.get("PYTHONPATH", "")])
for name, value in {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMNIQ_DOCTOR_CACHE": "off"}.items():
    os.environ.setdefault(name, value)

from fuzz.worker import KINDS, READY, files_of, outcome_of, work  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import Progress, TimeRemainingColumn  # noqa: E402

_START = 180.0
"""Seconds a process may take to import and to make what its inputs share."""
SHARES = {"images": 3, "tables": 2, "prompts": 2, "headers": 1, "bodies": 2}
"""Share of the inputs by kind; headers of checkpoints take the longest."""
_SAVED = 5
"""Failures of one cause that are saved."""


@dataclass
class Summary:
    """What the inputs of one kind came to."""

    kind: str
    outcomes: Counter = field(default_factory=Counter)
    failures: Counter = field(default_factory=Counter)
    """By cause: the last line of the traceback and where it was raised."""
    seconds: float = 0.0


def run_kind(kind: str, seed: int, inputs: int, limit: float, out: Path) -> Iterator[Summary]:
    """Run the inputs of a kind in a process; yields after each.

    Args:
        kind: one of ``KINDS``.
        seed: of all inputs.
        inputs: how many.
        limit: seconds for one input.
        out: folder for failures.
    """
    summary, started, position = Summary(kind), time.monotonic(), 0
    while position < inputs:
        for number, outcome, trace in _process(kind, seed, range(position, inputs), limit):
            if trace:
                _save(summary, seed, number, outcome, trace, out)
            else:
                summary.outcomes[outcome] += 1
            position, summary.seconds = number + 1, time.monotonic() - started
            yield summary


def _process(kind: str, seed: int, numbers: range, limit: float) -> Iterator[tuple[int, str, str]]:
    """Number, outcome and traceback of each input, up to the one that the process hung or died on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with TemporaryDirectory() as folder:
        stack = Path(folder) / "stack.txt"
        child = context.Process(target=work, args=(theirs, kind, seed, numbers, 0.9 * limit, str(stack)), daemon=True)
        child.start()
        theirs.close()
        try:
            if _next(ours, _START) != READY:
                raise RuntimeError(f"{kind}: its process did not start within {_START:g} s; see what it printed")
            yield from _outcomes(ours, len(numbers), limit, stack)
        finally:
            ours.close()
            child.join(3)  # by itself, unless it hangs
            child.kill()
            child.join()


def _outcomes(pipe: Connection, count: int, limit: float, stack: Path) -> Iterator[tuple[int, str, str]]:
    for _ in range(count):
        number = _next(pipe, limit)
        done = _next(pipe, limit)
        if not isinstance(done, tuple):
            why = "HANG" if done is None else "DIED"
            said = f"{why}: no answer within {limit:g} s" if done is None else f"{why}: the process ended"
            yield number, said, f"{stack.read_text()}\n{said}"
            return
        yield done


def _next(pipe: Connection, seconds: float) -> object:
    """What comes next; None: nothing in time; an ``EOFError``: the process has died."""
    try:
        return pipe.recv() if pipe.poll(seconds) else None
    except (EOFError, ConnectionResetError) as error:
        return EOFError(str(error))


def _save(summary: Summary, seed: int, number: int, outcome: str, trace: str, out: Path) -> None:
    refs = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    cause = f"{outcome[:160]} | {refs[-1] if refs else ''}"
    summary.failures[cause] += 1
    if summary.failures[cause] > _SAVED:
        return
    folder = out / f"{summary.kind}-{seed}-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "why.txt").write_text(trace, errors="backslashreplace")
    for name, data in files_of(summary.kind, seed, number).items():
        (folder / name).write_bytes(data)


def replay(folder: Path) -> int:
    """Run a saved failure again, in this process; returns the exit code."""
    kind = folder.name.partition("-")[0]
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "why.txt"}
    with TemporaryDirectory() as scratch:
        outcome, trace = outcome_of(kind, files, Path(scratch))
    print(trace or outcome)
    return bool(trace)


def run(kinds: list[str], inputs: int, seed: int, limit: float, out: Path, console: Console) -> list[Summary]:
    """Run as many inputs, shared by the kinds as in ``SHARES``; returns what they came to."""
    summaries, shares = [], sum(SHARES[kind] for kind in kinds)
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), console=console) as bar:
        for kind in kinds:
            share = round(inputs * SHARES[kind] / shares)
            shown = bar.add_task(kind, total=share)
            summaries.append(Summary(kind))
            for summaries[-1] in run_kind(kind, seed, share, limit, out):
                bar.update(shown, advance=1)
    return summaries


def report(summaries: list[Summary], out: Path, console: Console) -> int:
    """Print how many inputs of each kind came to what, and for how long; returns the number of failures."""
    for one in summaries:
        done, failed = sum(one.outcomes.values()), sum(one.failures.values())
        said = ", ".join(f"{count:,} {outcome}" for outcome, count in one.outcomes.most_common())
        console.print(
            f"{one.kind}: {done + failed:,} inputs in {one.seconds:.0f} s, {failed:,} failures. {said}", highlight=False
        )
        for cause, count in one.failures.most_common(20):
            console.print(f"  {count:,} times {cause}", style="red", markup=False, highlight=False, soft_wrap=True)
    failures = sum(sum(one.failures.values()) for one in summaries)
    total = sum(sum(one.outcomes.values()) for one in summaries) + failures
    where = f"; see {out}" if failures else ""
    console.print(
        f"{total:,} inputs in {sum(one.seconds for one in summaries):.0f} s: {failures:,} failures{where}", markup=False
    )
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--inputs", type=int, default=1000, help="of all kinds together (default: 1000)")
    add("--seed", type=int, default=0, help="of the inputs (default: 0)")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which inputs (default: all)")
    add("--limit", type=float, default=20.0, help="seconds for one input (default: 20)")
    add("--out", type=Path, default=Path("runs/fuzz"), help="folder for failures (default: runs/fuzz)")
    add("--replay", type=Path, help="run a saved failure again, and nothing else")
    args = parser.parse_args()
    if args.replay:
        return replay(args.replay)
    console = Console(stderr=True)
    return bool(report(run(args.kinds, args.inputs, args.seed, args.limit, args.out, console), args.out, console))


if __name__ == "__main__":
    sys.exit(main())
