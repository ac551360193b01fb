"""Two ranks of a real FSDP engine fetch the pixels of their groups from a real TransferQueue, and compute like one.

``pixel_ranks.py`` starts Ray, the queue, one rank, and then two.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from doctor_builders import tiny_model

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
GROUPS = ("group 0", "group 1")
Found = dict[int, list[dict[str, np.ndarray]]]
"""By number of ranks and rank."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``pixel_ranks.py`` leaves."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(HERE / "pixel_ranks.py"), str(tiny_model(folder / "model")), str(folder)]
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "RAY_worker_niceness": "0", "PYTHONPATH": paths}
    result = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    return {ranks: [dict(np.load(folder / f"{ranks}.{rank}.npz")) for rank in range(ranks)] for ranks in (1, 2)}


@pytest.fixture(scope="module")
def stored(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "stored.npz"))


def fetches(values: dict[str, np.ndarray], way: str) -> list[dict[str, np.ndarray]]:
    """What a rank fetched, in order: pixels by group."""
    begin = f"{way}/fetch "
    keys = [key.removeprefix(begin).split("/") for key in values if key.startswith(begin)]
    calls: dict[str, dict[str, np.ndarray]] = {}
    for number, group in keys:
        calls.setdefault(number, {})[group] = values[f"{begin}{number}/{group}"]
    return list(calls.values())


def of_rank(values: dict[str, np.ndarray], way: str, rank: int, ranks: int) -> np.ndarray:
    """The log-probabilities that one of ``ranks`` has to find, from those of all rows."""
    ends = np.cumsum(values[f"{way}/lengths"])[:-1]
    return np.concatenate(np.split(values[f"{way}/log_probs"], ends)[rank::ranks])


@pytest.mark.parametrize("way", ["fetched", "fetched, separate prompts"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rank_fetches_each_of_its_groups_once_for_a_pass_over_its_rows(found: Found, ranks: int, way: str) -> None:
    for values in found[ranks]:
        # One pass for log-probabilities and one for the update. Every rank has rows of both groups.
        assert [sorted(call) for call in fetches(values, way)] == [list(GROUPS)] * 2


def test_a_rank_fetches_the_pixels_that_were_stored(found: Found, stored: dict[str, np.ndarray]) -> None:
    for values in (values for ranks in found.values() for values in ranks):
        for call in fetches(values, "fetched"):
            for group, pixels in call.items():
                np.testing.assert_array_equal(pixels, stored[group])


@pytest.mark.parametrize("ranks", [1, 2])
def test_fetched_pixels_and_those_in_the_rows_give_the_same_to_the_bit(found: Found, ranks: int) -> None:
    for values in found[ranks]:
        assert not fetches(values, "own pixels")
        for name in ("log_probs", "entropy", "gradient"):
            np.testing.assert_array_equal(values[f"fetched/{name}"], values[f"own pixels/{name}"])


@pytest.mark.parametrize("way", ["fetched", "fetched, separate prompts"])
def test_two_ranks_find_what_one_does(found: Found, way: str) -> None:
    (one,) = found[1]
    for rank, values in enumerate(found[2]):
        np.testing.assert_allclose(values[f"{way}/log_probs"], of_rank(one, way, rank, 2), atol=2e-6, rtol=1e-6)
        error = np.linalg.norm(values[f"{way}/gradient"] - one[f"{way}/gradient"])
        assert error < 1e-5 * np.linalg.norm(one[f"{way}/gradient"])


def test_other_pixels_in_the_queue_give_something_else(found: Found) -> None:
    for values in found[2]:
        assert np.abs(values["other pixels/log_probs"] - values["fetched/log_probs"]).max() > 1e-4
