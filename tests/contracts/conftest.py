"""What ``probe.py`` saw in fresh processes, once for all tests of this folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = Path(__file__).with_name("probe.py")


def probe(subject: str, folder: Path, **environment: str) -> dict:
    """Facts from a process that knows of no platform, plug-in policy or process group of ours."""
    foreign = ("VERL_", "VLLM_", "TORCH_", "DIST_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    command = [sys.executable, str(PROBE), subject, str(folder / "facts.json")]
    result = subprocess.run(
        command, env={**inherited, **environment}, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "facts.json").read_text())


@pytest.fixture(scope="session")
def torch_facts(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return probe("torch", tmp_path_factory.mktemp("torch"), TORCH_DEVICE_BACKEND_AUTOLOAD="0")


@pytest.fixture(scope="session")
def verl_facts(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return probe("verl", tmp_path_factory.mktemp("verl"))


@pytest.fixture
def cpu_build(torch_facts: dict) -> None:
    """For tests of what only CPU builds of torch and vLLM need."""
    if torch_facts["build"]["for_gpu"]:
        pytest.skip("torch was built for a GPU")
