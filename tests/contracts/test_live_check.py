"""The live check on real engines: none of its findings on a healthy run, each planted fault found. Minutes.

One run does it all: its trainer checks itself once for each fault (see ``planted_faults.py``) and then trains two steps
on data with poisoned rows.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts import planted_faults
from poison_builders import POISONS, poisoned
from rich.console import Console

from omniq_verl.live.findings import FAILED, FILE_NAME, LiveReport
from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.tiny_stages import Settings, build_stages

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
STEPS = 2
EXPECTED = {
    "dropped images": "its own image is what the rollout engine sees",
    "swapped images": "its own image is what the rollout engine sees",
    "placeholder sampled": "special tokens",
    "wrong chat template": "prompts",
    "reward on another scale": "rewards",
    "vision tower not updated": "vision update",
    "stale image cache": "vision update",
    "dummy-loaded weights": "log-probabilities",
}
"""The finding that names each fault."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a short cold start, checked with every fault, on poisoned data."""
    root = tmp_path_factory.mktemp("live")
    crops = {"sft": 96, "train": 36, "val": 8, "test": 8}
    stages = build_stages(Settings(REPO, root, sft_steps=60, sft_save_every=60, crops=crops))
    run_stages(stages[:3], root, Console(quiet=True))
    table = pq.read_table(root / "data" / "train.parquet")
    rows = table.to_pylist()
    mixed = [*rows, *(poisoned(rows[0], kind) for kind in POISONS)]
    pq.write_table(pa.Table.from_pylist(mixed, schema=table.schema), root / "poisoned.parquet")
    overrides = {
        "actor_rollout_ref.model.path": root / "sft" / "global_step_60" / "huggingface",
        "data.train_files": root / "poisoned.parquet",
        "data.val_files": root / "data" / "val.parquet",
        "data.train_batch_size": 12,
        "data.max_rejected_share": 0.3,
        "trainer.default_local_dir": root / "run",
        "trainer.total_training_steps": STEPS,
        "trainer.save_freq": -1,
    }
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(REPO / "recipes")]
    command += ["--config-name", "quickstart/grpo", *(f"{key}={value}" for key, value in overrides.items())]
    planted = {"VERL_USE_EXTERNAL_MODULES": "planted_faults", "PLANTED": str(root / "planted")}
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "VERL_PLATFORM": "cpu", **planted, "PYTHONPATH": paths}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    (root / "run" / "output.txt").write_text(result.stdout + result.stderr)
    return root / "run"


def found(run: Path, fault: str) -> dict[str, str]:
    return {one.name: one.status for one in LiveReport.load(run / fault / FILE_NAME).findings}


def test_a_healthy_run_has_no_finding(run: Path) -> None:
    report = LiveReport.load(run / planted_faults.HEALTHY / FILE_NAME)
    assert len(report.findings) == 12
    assert {one.name: str(one) for one in report.findings if one.status != "ok"} == {}
    assert 0 < report.seconds < 300  # 5 to 20 on a machine with nothing else; here another test runs as well


@pytest.mark.parametrize("fault", planted_faults.FAULTS)
def test_a_planted_fault_is_found(run: Path, fault: str) -> None:
    assert found(run, fault)[EXPECTED[fault]] == FAILED


@pytest.mark.parametrize("fault", ["wrong chat template", "reward on another scale", "vision tower not updated"])
def test_a_fault_of_one_kind_fails_that_finding_alone(run: Path, fault: str) -> None:
    assert [name for name, status in found(run, fault).items() if status == FAILED] == [EXPECTED[fault]]


def test_a_failed_finding_says_what_it_means_and_how_to_fix_it(run: Path) -> None:
    for fault in planted_faults.FAULTS:
        for one in LiveReport.load(run / fault / FILE_NAME).failed:
            assert one.meaning
            assert f"Fix: {one.fix}" in str(one)


def test_poisoned_rows_are_left_out_counted_and_named(run: Path) -> None:
    metrics = read_metrics(run)
    steps = [metrics[step] for step in range(1, STEPS + 1)]
    assert [step["data/rows_rejected"] for step in steps] == [len(POISONS)] * STEPS
    assert [step["data/rows_failed"] for step in steps] == [0] * STEPS
    assert all(step["training/rollout_actor_probs_pearson_corr"] > 0.999 for step in steps)
    lines = [json.loads(line) for line in (run / "rejected_rows.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [f"poison/{kind}" for kind in POISONS]
    assert all(line["reasons"] for line in lines)
    output = (run / "output.txt").read_text()
    assert all(f"poison/{kind}" in output for kind in POISONS)
    assert f"training leaves out these {len(POISONS)} rows" in output


def doctor(run: Path, *options: str) -> subprocess.CompletedProcess:
    root = run.parent
    overrides = {
        "actor_rollout_ref.model.path": root / "sft" / "global_step_60" / "huggingface",
        "data.train_files": root / "data" / "train.parquet",
        "data.val_files": root / "data" / "val.parquet",
        "trainer.default_local_dir": root / "doctor",
    }
    words = ["quickstart/grpo", *(f"{key}={value}" for key, value in overrides.items()), "--live", *options]
    command = [sys.executable, "-m", "omniq_verl.cli", "doctor", *words]
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    return subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, timeout=900, check=False)


def test_the_command_prints_every_finding_on_two_ranks_and_trains_nothing(run: Path) -> None:
    result = doctor(run, "trainer.n_gpus_per_node=2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "vision update: ok" in result.stdout
    assert "no fault found" in result.stdout
    names = {path.name for path in (run.parent / "doctor").iterdir()}
    assert {FILE_NAME, "live_check.log"} <= names
    assert not any(name.startswith("global_step") for name in names)


def test_a_live_check_that_takes_too_long_is_ended_with_all_its_processes(run: Path) -> None:
    result = doctor(run, "--live-timeout", "5")
    assert result.returncode == 1
    assert "it took more than 5 s" in result.stderr
    deadline = time.monotonic() + 60  # Ray's own processes notice the death of their driver
    while left := subprocess.run(["pgrep", "-f", f"{run.parent}/doctor"], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, left
        time.sleep(1)
