"""Images are processed, sent and computed once for a group of sixteen answers, and nothing else changes.

One process runs verl's worker and ours through a real TransferQueue and a real engine: ``group_rollouts.py``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doctor_builders import png, record, tiny_model, written

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PROMPTS, ANSWERS = 3, 16
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
DIFFERENT = {"uid", "metrics", "raw_prompt", "prompt"}
"""Fields that differ: names of groups, times, and messages, which are without images in ours."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("rollouts")
    images = [png(40 + 30 * number, 60) for number in range(PROMPTS)]  # of as many sizes
    data = written(folder, [record(number, image) for number, image in enumerate(images)])
    target = folder / "found.json"
    command = [sys.executable, str(HERE / "group_rollouts.py"), str(tiny_model(folder / "model")), data, str(target)]
    environment = {**os.environ, **ALONE, "MASTER_PORT": "0", "DIST_INIT_METHOD": "tcp://127.0.0.1:0"}
    environment |= {"VERL_PLATFORM": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}
    result = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(target.read_text())


def test_an_image_is_processed_once_for_its_group(found):
    assert found["ours"]["processed"] == PROMPTS
    # For the prompt, and twice for each answer.
    assert found["verl"]["processed"] == PROMPTS * (1 + 2 * ANSWERS)


def test_pixels_pass_through_the_queue_once_for_their_group(found):
    assert found["ours"]["pixels"] > 0
    assert found["verl"]["pixels"] == ANSWERS * found["ours"]["pixels"]


def test_encoded_and_decoded_images_do_not_pass_through_the_queue(found):
    assert found["ours"]["images"] == 0
    assert found["verl"]["images"] >= PROMPTS * ANSWERS


def test_an_image_passes_the_vision_tower_once_for_its_group(found):
    assert found["ours"]["patches False"] == ANSWERS * found["ours"]["patches True"]
    assert found["ours"]["patches True"] == found["verl"]["patches True"] > 0


def test_answers_rewards_and_all_other_fields_are_the_same(found):
    assert {"responses", "rm_scores", "extra_fields", "position_ids", "multi_modal_inputs"} <= found["same"].keys()
    assert {name for name, same in found["same"].items() if not same} == DIFFERENT


@pytest.mark.parametrize("way", ["False", "True", "padded"])
def test_log_probabilities_are_the_same_to_the_bit(found, way):
    assert found["ours"][f"log_probs {way}"] == found["verl"][f"log_probs {way}"]


def test_log_probabilities_depend_on_the_pixels(found):
    assert found["ours"]["log_probs True"] != found["log_probs blind"]


def test_shared_and_separate_prompts_have_the_same_log_probabilities(found):
    pairs = zip(found["ours"]["log_probs False"], found["ours"]["log_probs True"], strict=True)
    assert max(np.abs(np.subtract(*pair)).max() for pair in pairs) < 1e-5


def test_rows_without_the_first_of_their_group_find_their_pixels(found):
    """As on another rank, in another micro-batch, or after a filter."""
    assert found["ours"]["log_probs of some"] == found["verl"]["log_probs of some"]


def test_pixels_are_removed_with_the_last_row_of_their_group(found):
    assert found["cleared"] == {"at first": PROMPTS, "one gone": PROMPTS - 1, "all gone": 0}
