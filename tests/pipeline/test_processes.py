"""Pipelines that are killed: no process outlives them, and their results are those of an undisturbed run."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_builders import python_stage, quick_experiment, quiet

from omniq_verl.pipeline.process import StageFailed, run_folder_lock, start, stop
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.tables import write_tables


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def is_alive(process: int) -> bool:
    """Whether a process exists and is no zombie, which nobody may collect for us."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_stage_that_writes_nothing_for_too_long_is_stopped(tmp_path):
    child = tmp_path / "child"
    with pytest.raises(StageFailed, match="wrote nothing"):
        run_stages([python_stage("one", SLEEPER.format(path=str(child)), silence=0)], tmp_path / "run", quiet())
    assert '"done": true' not in (tmp_path / "run" / "marks" / "one.json").read_text()
    assert not child.exists() or not is_alive(int(child.read_text()))


def test_a_folder_in_use_is_rejected_and_free_again_afterwards(tmp_path):
    code = (
        "import sys; from pathlib import Path; from omniq_verl.pipeline.process import run_folder_lock\n"
        "with run_folder_lock(Path(sys.argv[1])): pass"
    )

    def try_lock() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)

    with run_folder_lock(tmp_path / "run"):
        rejected = try_lock()
        with pytest.raises(StageFailed, match="in use by another run"), run_folder_lock(tmp_path / "run"):
            pass
    assert rejected.returncode != 0 and "in use by another run" in rejected.stderr
    assert try_lock().returncode == 0


STARTED_RUN = """
import io, signal, sys
from pathlib import Path
from rich.console import Console
from omniq_verl.pipeline.process import run_folder_lock
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import Stage

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
root = Path(sys.argv[1])
with run_folder_lock(root):
    run_stages([Stage("one", "a test", [sys.executable, "-c", sys.argv[2]])], root, Console(file=io.StringIO()))
"""

SLEEPER = "import os, sys, time; print(os.getpid(), file=open({path!r}, 'w'), flush=True); time.sleep(60)"


def start_run(folder: Path, stage_code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", STARTED_RUN, str(folder / "run"), stage_code])


def number_in(path: Path) -> int:
    assert wait_until(lambda: path.exists() and path.read_text().endswith("\n"), 60), "the stage did not start"
    return int(path.read_text())


def test_a_stage_dies_with_a_run_that_is_killed_and_the_folder_is_free(tmp_path):
    run = start_run(tmp_path, SLEEPER.format(path=str(tmp_path / "child")))
    child = number_in(tmp_path / "child")
    assert is_alive(child)
    run.kill()
    run.wait()
    assert wait_until(lambda: not is_alive(child), 5)
    with run_folder_lock(tmp_path / "run"):
        pass


def test_a_stage_is_stopped_when_the_run_is_interrupted(tmp_path):
    run = start_run(tmp_path, SLEEPER.format(path=str(tmp_path / "child")))
    child = number_in(tmp_path / "child")
    run.send_signal(2)
    run.wait(30)
    assert not is_alive(child)


def test_a_worker_runs_its_module_and_dies_with_what_started_it(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import os, sys, time\nassert __name__ == '__main__' and sys.argv[1:] == ['x']\n"
        f"print(os.getpid(), file=open({str(tmp_path / 'child')!r}, 'w'), flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-m", "omniq_verl.pipeline.worker", "sleeper", "x"]
    launcher = f"import subprocess; subprocess.run({words!r})"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", launcher], env={**os.environ, "PYTHONPATH": paths})
    child = number_in(tmp_path / "child")
    assert is_alive(child)
    process.kill()
    process.wait()
    assert wait_until(lambda: not is_alive(child), 5)


KILLED = """
import sys
from pathlib import Path
from pipeline_builders import quick_experiment, quiet
from omniq_verl.pipeline import runner
from omniq_verl.pipeline.process import run_folder_lock
from omniq_verl.pipeline.tables import write_tables

runner._TICK = 0.02
root = Path(sys.argv[1])
with run_folder_lock(root):
    print("ready", flush=True)
    experiment = quick_experiment(root, seconds=0.05)
    runner.run_stages(experiment.stages, root, quiet(), jobs=2, changed="stop")
    write_tables(experiment, root)
"""


def test_a_run_killed_at_ten_random_moments_ends_as_an_undisturbed_one(tmp_path):
    command = [sys.executable, "-c", KILLED]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "builders")}
    moments = random.Random(0)
    run = tmp_path / "killed"
    for _ in range(10):
        process = subprocess.Popen([*command, str(run)], env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.wait()
    assert subprocess.run([*command, str(run)], env=environment, stdout=subprocess.DEVNULL).returncode == 0
    whole = quick_experiment(tmp_path / "whole")
    run_stages(whole.stages, tmp_path / "whole", quiet())
    write_tables(whole, tmp_path / "whole")
    names = ("tables.md", "tables.json", *(f"seed0/{one}/result" for one in "abcd"))
    results = [[(root / name).read_bytes() for name in names] for root in (run, tmp_path / "whole")]
    assert results[0] == results[1]


DEAF_CHILD = """
import os, signal, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    time.sleep(60)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
print(child, file=open(sys.argv[1] + ".part", "w"), flush=True)
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(float(sys.argv[2]))
sys.exit(3)
"""
"""A stage that fails after some seconds, and leaves a process that ignores SIGTERM."""


def test_what_a_stage_left_in_the_background_ends_when_it_fails(tmp_path):
    child = tmp_path / "child"
    with pytest.raises(StageFailed, match="exit code 3"):
        run_stages([python_stage("one", DEAF_CHILD, child, 0)], tmp_path / "run", quiet())
    assert wait_until(lambda: not is_alive(int(child.read_text())), 10)


def test_what_a_stage_left_in_the_background_ends_when_it_is_stopped(tmp_path):
    child = tmp_path / "child"
    process = start(python_stage("one", DEAF_CHILD, child, 60), tmp_path / "run")
    assert wait_until(child.exists, 60)
    stop(process)
    assert wait_until(lambda: not is_alive(int(child.read_text())), 10)
