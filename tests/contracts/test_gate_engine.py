"""The entropy gate on verl's real FSDP engine: equation 1, however the mini-batch is split."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doctor_builders import tiny_model

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
GATE = {"gate_rho": 0.3}
ONE_SPLIT = [{"gate": GATE, "rows": 8, "micro": micro} for micro in (0, 1, 4)]
SETTINGS = [
    {"gate": {}, "rows": 8, "micro": 0},
    {"gate": {**GATE, "gate_scope": "sequence"}, "rows": 8, "micro": 0},
    {"gate": {**GATE, "gate_denominator": "gated"}, "rows": 8, "micro": 0},
    # After a first update the current policy's entropies are computed anew; here it did not step, so they are known.
    {"gate": {**GATE, "gate_entropy": "current"}, "rows": 8, "micro": 0, "updates": 1},
]
ODD = [{"gate": GATE, "rows": 6, "micro": micro} for micro in (0, 1, 3)]  # three groups of two are left
PADDED = [{"gate": GATE, "rows": 7, "padding": 1, "micro": micro} for micro in (0, 1)]
CASES = [*ONE_SPLIT, *SETTINGS, *ODD, *PADDED]


def run_ranks(model: Path, folder: Path, ranks: int) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = folder / f"ranks{ranks}.npz"
    command = [sys.executable, str(HERE / "gate_engine.py"), str(model), str(target), json.dumps(CASES)]
    world = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    world |= {"MASTER_PORT": str(port), "VERL_PLATFORM": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}
    processes = [
        subprocess.Popen(
            command, env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(ranks)
    ]
    errors = [process.communicate(timeout=600)[1].decode()[-3000:] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(errors)
    vectors = np.load(target)
    return [vectors[str(n)] for n in range(len(CASES))], json.loads(target.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    folder = tmp_path_factory.mktemp("gradients")
    return {ranks: run_ranks(model, folder, ranks) for ranks in (1, 2)}


@pytest.fixture(scope="module")
def references(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Computed in a process of its own, as verl changes the models of the process it is imported into."""
    target = tmp_path_factory.mktemp("reference") / "gradients.npz"
    script = (
        f"import sys, json, numpy as np; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path; "
        "from gate_rows import *; "
        f"model, cases = Path({str(model)!r}), json.loads({json.dumps(CASES)!r}); "
        "rows = {n: own_entropy(model, plain_rows(model, n)) for n in {case['rows'] for case in cases}}; "
        "vectors = [reference_gradient(model, rows[case['rows']], case['gate']) for case in cases]; "
        f"np.savez({str(target)!r}, *vectors)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "VERL_PLATFORM": "cpu"}, timeout=300)
    vectors = np.load(target)
    return [vectors[f"arr_{number}"] for number in range(len(CASES))]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[json.dumps(case) for case in CASES])
def test_the_gradient_is_that_of_equation_1(found, references, number, ranks):
    gradients, _ = found[ranks]
    assert relative(gradients[number], references[number]) < 1e-5


def test_the_gate_changes_the_gradient(references):
    # Otherwise the comparisons above would show nothing.
    gated, whole, by_sequence, by_gated = references[0], *references[3:6]
    assert min(relative(gated, other) for other in (whole, by_sequence, by_gated)) > 0.1


@pytest.mark.parametrize("ranks", [1, 2])
def test_threshold_and_share_are_those_of_the_whole_mini_batch(found, ranks):
    _, reported = found[ranks]
    first = reported[0]
    assert all(metrics == pytest.approx(first, rel=1e-6) for metrics in reported[: len(ONE_SPLIT)])
    assert reported[0] == pytest.approx(found[1][1][0], rel=1e-6)
    tokens = sum(3 + 2 * number for number in range(8))
    assert first["gate/tokens_kept"] == np.ceil(0.3 * tokens)
    assert first["gate/share"] == pytest.approx(first["gate/tokens_kept"] / tokens)
