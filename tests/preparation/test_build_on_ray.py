"""The same pipeline on Ray Data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from data_builders import MADE, faulty_set, tree

from omniq_verl.preparation.cli import main

pytestmark = pytest.mark.slow

# A cluster of its own, whatever is running on this machine.
SCRIPT = """
import sys
from pathlib import Path

import ray
from data_builders import MADE, main

ray.init(address="local", num_cpus=2, include_dashboard=False)
main(MADE, "doc", sys.argv[1:])
"""


def run_alone(root: Path, out: Path, *options: str) -> None:
    main(MADE, "doc", ["--root", str(root), "--out", str(out), "--workers", "1", *options])


def run_on_ray(root: Path, out: Path, *options: str) -> list[str]:
    folders = [str(Path(__file__).parents[1] / "builders"), str(Path(__file__).parents[2])]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-c", SCRIPT, "--root", str(root), "--out", str(out), "--engine", "ray", *options]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "root"
    faulty_set(folder)
    return folder


@pytest.mark.parametrize("options", [("--shard-rows", "2"), ("--images", "path")], ids=["embedded", "named"])
def test_ray_writes_the_bytes_a_single_process_writes(root, tmp_path, options, capsys):
    out = tmp_path / "out"
    run_alone(root, out, *options)
    expected, printed = tree(out), capsys.readouterr().out.splitlines()
    out.rename(tmp_path / "local")
    assert run_on_ray(root, out, *options)[-1] == printed[-1]
    assert tree(out) == expected


def test_ray_takes_up_what_another_run_left(root, tmp_path):
    out = tmp_path / "out"
    run_alone(root, out, "--shard-rows", "2")
    expected = tree(out)
    kept = (out / "train-00000-of-00009.parquet").stat().st_mtime_ns
    (out / "train-00001-of-00009.parquet").unlink()
    (out / "val-00000-of-00002.parquet").unlink()
    run_on_ray(root, out, "--shard-rows", "2")
    assert tree(out) == expected
    run_on_ray(root, out, "--shard-rows", "2")  # nothing is left to be done
    assert tree(out) == expected
    assert (out / "train-00000-of-00009.parquet").stat().st_mtime_ns == kept


def test_an_error_on_ray_ends_the_run(root, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "converted").write_text("in the way of the folder of that name")
    with pytest.raises(AssertionError, match="File exists"):
        run_on_ray(root, out, "--images", "path")
    assert not (out / "train.parquet").exists() and not (out / "dataset_card.json").exists()
