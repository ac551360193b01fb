"""Requests that go together through a real Ray to our servers: ``batched_requests.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("batched_requests.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("requests") / "found.json"
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), str(target)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(target.read_text())


def test_answers_are_those_that_verl_s_client_gets(found):
    assert found["ours"] == found["verl"]
    assert [one["token_ids"] for one in found["ours"]] == [[1, 2, seed, 77] for seed in range(16)]


def test_a_group_s_image_is_sent_to_each_server_once(found):
    assert found["images"] == [1, 1]


def test_a_request_that_fails_keeps_its_reason_and_the_others_their_answers(found):
    first, failed, *others = found["one fails"]
    assert failed == "Unreadable: the prompt is too long (3)"
    assert [one["token_ids"][2] for one in (first, *others)] == [3, 5, 7]
    assert found["status"] == {"servers": {"server 0": 0, "server 1": 0}, "total_inflight": 0, "active_servers": 2}


def test_a_server_that_dies_fails_its_own_requests_and_none_hangs(found):
    failed = [number for number, one in enumerate(found["one server dies"]) if isinstance(one, str)]
    assert failed == [2]  # the others were answered before
    assert "died" in found["one server dies"][2]
