"""The fuzzing command: some hundred inputs of each kind, and what it does with faults that are planted."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from fuzz.rules import Wrong, one_line
from fuzz.worker import KINDS, files_of, outcome_of

COMMAND = Path(__file__).parents[1] / "fuzz" / "run.py"
INPUTS = {"images": 300, "tables": 400, "prompts": 800, "headers": 120, "bodies": 400}
PLANTED = """
import os, time
def make(rng):
    return {"input": rng.randbytes(3)}
def run(files, folder):
    number = files["input"][0] % 8
    if number == 0:
        raise KeyError("task")
    if number == 1:
        raise SystemExit(3)
    if number == 2 and HANGS:
        while True:
            time.sleep(1)
    if number == 3:
        os.abort()
    return "fine"
"""


@pytest.mark.filterwarnings("ignore")  # of odd tags and boundaries
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_inputs_are_accepted_or_rejected_by_name(kind, tmp_path):
    failures, outcomes = [], set()
    for number in range(INPUTS[kind]):
        with TemporaryDirectory(dir=tmp_path) as folder:
            outcome, trace = outcome_of(kind, files_of(kind, 0, number), Path(folder))
        outcomes.add(outcome)
        if trace:
            failures.append(f"{kind} {number}: {trace[-1500:]}")
    assert not failures, "\n".join(failures[:3])
    assert len(outcomes) > 1, "inputs are accepted and rejected, else they try nothing"


def test_an_input_is_made_from_seed_kind_and_number_alone():
    for kind in KINDS:
        assert files_of(kind, 3, 7) == files_of(kind, 3, 7)
        assert any(files_of(kind, 3, number) != files_of(kind, 4, number) for number in range(5))


def planted(tmp_path: Path, hangs: bool) -> list[tuple[int, str, str]]:
    """Number and outcome of 24 inputs of a kind that fails in every way."""
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / "planted.py").write_text(f"HANGS = {hangs}\n{PLANTED}")
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(COMMAND.parent)!r}]
import run
from pathlib import Path
if __name__ == "__main__":
    for summary in run.run_kind("planted", 0, 24, 2.0, Path({str(tmp_path / "out")!r})):
        pass
    print(sum(summary.outcomes.values()), sum(summary.failures.values()))
    print(*sorted(summary.failures), sep=chr(10))
"""
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    found = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.mark.slow
def test_hangs_deaths_and_errors_are_counted_saved_and_replayed(tmp_path):
    numbers = [Random(f"0/planted/{number}").randbytes(3)[0] % 8 for number in range(24)]
    bad = [number for number, kind in enumerate(numbers) if kind < 4]
    assert {0, 1, 2, 3} <= set(numbers)
    counts, *causes = planted(tmp_path, hangs=True)
    assert counts == f"{24 - len(bad)} {len(bad)}"
    assert [cause.split(":")[0] for cause in causes] == ["DIED", "HANG", "KeyError", "SystemExit"]
    saved = sorted((tmp_path / "out").iterdir())
    assert {int(folder.name.rsplit("-", 1)[1]) for folder in saved} <= set(bad) and len(saved) >= 4
    assert all((folder / "input").read_bytes() and (folder / "why.txt").read_text() for folder in saved)


@pytest.mark.slow
def test_the_command_runs_kinds_and_says_how_many_for_how_long(tmp_path):
    words = [sys.executable, COMMAND, "--inputs", "60", "--kinds", "images", "bodies", "--out", tmp_path / "out"]
    found = subprocess.run(words, capture_output=True, text=True)
    said = " ".join(found.stderr.split())
    assert found.returncode == 0, found.stderr
    assert "images: 36 inputs in" in said and "60 inputs in" in said and "0 failures" in said


def test_a_rejection_is_a_reason():
    assert one_line(ValueError("no image")) == "no image"
    for wrong in (ValueError(), ValueError(" \n"), ValueError("Traceback (most recent call last)")):
        with pytest.raises(Wrong):
            one_line(wrong)
