"""A data set written by processes of its own: by any number of workers, killed at any moment, in bounded memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from data_builders import SHARDED, faulty_set, tree, write_labels
from image_builders import saved

SCRIPT = Path(__file__).parents[1] / "builders" / "data_builders.py"


def command(root: Path, out: Path, workers: int) -> list[str]:
    options = ["--root", str(root), "--out", str(out), "--workers", str(workers), *SHARDED]
    return [sys.executable, str(SCRIPT), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}


def run_script(root: Path, out: Path, workers: int = 1) -> str:
    result = subprocess.run(
        command(root, out, workers), env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    faulty_set(tmp_path / "root", 30)
    trees, lines = [], []
    for workers in (1, 2, 4):
        out = tmp_path / f"out{workers}"
        lines.append(run_script(tmp_path / "root", out, workers).splitlines()[-1])
        trees.append(tree(out))
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) > 30
    assert lines[0] == lines[1] == lines[2]


def kill_midway(root: Path, out: Path, workers: int, seconds: float) -> bool:
    """Start the script and kill it so long after it begins to write; returns whether it was still at it."""
    process = subprocess.Popen(
        command(root, out, workers), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (out / ".shards").exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(seconds)
    found = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(found, timeout=20)
    assert not alive, "workers outlive a killed program"
    return killed


def seconds_of_writing(root: Path, out: Path, workers: int) -> float:
    process = subprocess.Popen(command(root, out, workers), env=environment(), stdout=subprocess.DEVNULL)
    while not (out / ".shards").exists():
        time.sleep(0.002)
    started = time.perf_counter()
    assert process.wait() == 0
    return time.perf_counter() - started


@pytest.mark.slow
def test_a_run_that_was_killed_is_taken_up_where_it_was(tmp_path):
    faulty_set(tmp_path / "root")
    run_script(tmp_path / "root", tmp_path / "undisturbed")
    out = tmp_path / "killed"
    assert kill_midway(tmp_path / "root", out, 1, 0.0)
    assert tree(out) != tree(tmp_path / "undisturbed")
    run_script(tmp_path / "root", out)
    assert tree(out) == tree(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path, workers):
    faulty_set(tmp_path / "root", 90)
    length = seconds_of_writing(tmp_path / "root", tmp_path / "undisturbed", workers)
    expected = tree(tmp_path / "undisturbed")
    killed, unfinished = 0, 0
    for moment in np.random.default_rng(workers).uniform(0, length, 5):  # ten in all
        out = tmp_path / "killed"
        killed += kill_midway(tmp_path / "root", out, workers, moment)
        unfinished += tree(out) != expected
        run_script(tmp_path / "root", out, workers)
        assert tree(out) == expected
        out.rename(tmp_path / f"done at {moment}")
    # The machine may be busier at one time than at another, but not so much that nothing was disturbed.
    assert killed >= 2 and unfinished >= 2


@pytest.mark.slow
def test_killed_again_and_again_it_still_comes_to_an_end(tmp_path):
    faulty_set(tmp_path / "root", 90)
    length = seconds_of_writing(tmp_path / "root", tmp_path / "undisturbed", 2)
    for moment in np.random.default_rng(0).uniform(0, length / 3, 4):
        kill_midway(tmp_path / "root", tmp_path / "killed", 2, moment)
    run_script(tmp_path / "root", tmp_path / "killed", 2)
    assert tree(tmp_path / "killed") == tree(tmp_path / "undisturbed")


# VmHWM and not ru_maxrss: that one starts at the parent's, this test process's own, and goes over exec.
PEAK = """
import sys
from pathlib import Path
from data_builders import prepare_made
prepare_made(Path(sys.argv[1]), Path(sys.argv[2]), "--shard-rows", "1000")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (420, 420, 3), dtype=np.uint8)
    data = saved(pixels, "PNG")
    assert 500_000 < len(data) < 600_000
    peaks = []
    for count in (150, 900):
        root = tmp_path / f"root{count}"
        (root / "images").mkdir(parents=True)
        (root / "images" / "0.png").write_bytes(data)
        for number in range(1, count):
            os.link(root / "images" / "0.png", root / "images" / f"{number}.png")
        write_labels(root, [(f"{number}.png", "train", "50") for number in range(count)])
        paths = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parents[2])])
        result = subprocess.run(
            [sys.executable, "-c", PEAK, str(root), str(tmp_path / f"out{count}")],
            **{"env": {**os.environ, "PYTHONPATH": paths}, "capture_output": True, "text": True, "check": True},
        )
        peaks.append(int(result.stdout.splitlines()[-1]) / 1024)
    # MiB; the images that were added are 400.
    assert peaks[1] < 600 and peaks[1] - peaks[0] < 30
