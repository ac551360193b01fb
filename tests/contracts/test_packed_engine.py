"""Packed sequences on verl's real FSDP engine give what a plain model gives for each row alone, however split."""

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


def case(rows: str, micro: int = 0, tokens: int = 0, **settings: bool) -> dict:
    switches = {"packed": True, "checkpointing": False, "shared": False} | settings
    return {"rows": rows, "micro": micro, "tokens": tokens, **switches}


GROUPS = ("groups of equal length", "groups", "groups of many kinds", "a group of sixteen", "groups without images")
LAYOUTS = ("images of different sizes", "several images", "no image", "some without image", "temperature")
CASES = [
    *(case("mixed lengths", micro) for micro in (0, 1, 3)),
    case("mixed lengths", tokens=200),
    case("mixed lengths", checkpointing=True),
    case("one sequence", 1),
    case("one sequence"),  # on two ranks, each has one row
    *(case("rows of equal length", **how) for how in ({}, {"micro": 1}, {"tokens": 200}, {"packed": False})),
    *(case(rows, micro) for rows in LAYOUTS for micro in (0, 1)),
    case("some without image", 1, checkpointing=True),
    *(case(rows, shared=True) for rows in GROUPS),
    *(case("groups", tokens=tokens, shared=True) for tokens in (130, 260)),  # 130: a group is split
    *(case(rows, 1, shared=True) for rows in ("groups", "groups of many kinds")),
    *(case(rows, shared=True, checkpointing=True) for rows in ("groups", "groups of many kinds")),
    case("mixed lengths", shared=True),
    case("groups"),
    # verl's padded path, by which the packed one was replaced. It fails where a micro-batch has no image.
    *(case(rows, packed=False) for rows in ("mixed lengths", "several images", "some without image")),
]


def environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    world = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    fixed = {"MASTER_ADDR": "127.0.0.1", "VERL_PLATFORM": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}
    return {**os.environ, **fixed, **{key: str(value) for key, value in world.items()}}


def run_ranks(model: Path, folder: Path, ranks: int) -> list[dict[str, np.ndarray]]:
    """By rank: what ``packed_engine.py`` found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = folder / f"ranks{ranks}"
    command = [sys.executable, str(HERE / "packed_engine.py"), str(model), str(target), json.dumps(CASES)]
    processes = [
        subprocess.Popen(command, env=environment(rank, ranks, port), stderr=subprocess.PIPE) for rank in range(ranks)
    ]
    errors = [process.communicate(timeout=600)[1].decode()[-3000:] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(errors)
    return [dict(np.load(target.with_suffix(f".{rank}.npz"))) for rank in range(ranks)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    return {ranks: run_ranks(model, tmp_path_factory.mktemp("found"), ranks) for ranks in (1, 2)}


@pytest.fixture(scope="module")
def references(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Computed in a process of its own, as verl changes the models of the process it is imported into."""
    target = tmp_path_factory.mktemp("reference") / "written_out.npz"
    script = f"""
import sys, numpy as np
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
from packed_rows import CASES, GROUPS, build_rows, written_out
found, model = {{}}, Path({str(model)!r})
for name in [*CASES, *GROUPS]:
    rows = build_rows(model, name)
    log_probs, entropies, found[f"{{name}}/gradient"] = written_out(model, rows)
    for row, (one, other) in enumerate(zip(log_probs, entropies, strict=True)):
        found[f"{{name}}/log_probs/{{row}}"], found[f"{{name}}/entropy/{{row}}"] = one.numpy(), other.numpy()
        start = len(rows[row]["prompts"]) - 1
        answer = slice(start, start + len(rows[row]["responses"]))
        found[f"{{name}}/answer_log_probs/{{row}}"] = one[answer].numpy()
        found[f"{{name}}/answer_entropy/{{row}}"] = other[answer].numpy()
np.savez({str(target)!r}, **found)
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "VERL_PLATFORM": "cpu"}, timeout=300)
    return dict(np.load(target))


def of_rank(references: dict[str, np.ndarray], rows: str, name: str, rank: int, ranks: int) -> np.ndarray:
    count = sum(key.startswith(f"{rows}/{name}/") for key in references)
    return np.concatenate([references[f"{rows}/{name}/{row}"] for row in range(count)[rank::ranks]])


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[json.dumps(case) for case in CASES])
def test_log_probs_entropies_and_gradients_are_those_of_each_row_alone(found, references, number, ranks):
    rows, answers = CASES[number]["rows"], "answer_" if CASES[number]["shared"] else ""
    for rank in range(ranks):
        for name in ("log_probs", "entropy"):
            expected = of_rank(references, rows, f"{answers}{name}", rank, ranks)
            np.testing.assert_allclose(found[ranks][rank][f"{number}/{name}"], expected, atol=2e-6, rtol=1e-6)
    expected = references[f"{rows}/gradient"]
    error = np.linalg.norm(found[ranks][0][f"{number}/gradient"] - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    if CASES[number]["rows"] == "a group of sixteen":  # its prompt is counted once in what is computed
        computed, whole = np.sum([found[ranks][rank][f"{number}/tokens"] for rank in range(ranks)], axis=0)
        answers = sum(1 + each % 7 for each in range(16))
        assert (whole - answers) / (computed - answers) == 16 / ranks
    # The vision tower is part of it, unless there is nothing to see.
    assert np.linalg.norm(expected) > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_remove_padding": False}, "Set use_remove_padding=true"),
        ({"ulysses_sequence_parallel_size": 2}, "has no sequence parallelism"),
    ],
)
def test_settings_without_a_kernel_are_rejected_with_the_fix(model, settings, message):
    script = f"from packed_engine import build_engine; build_engine({str(model)!r}, True, False, **{settings})"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = settings.get("ulysses_sequence_parallel_size", 1)
    command, out = [sys.executable, "-c", script], subprocess.PIPE
    processes = [
        subprocess.Popen(command, cwd=HERE, env=environment(rank, ranks, port), stderr=out) for rank in range(ranks)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert all(process.returncode for process in processes)
    assert all(message in error for error in errors), errors[0][-2000:]
