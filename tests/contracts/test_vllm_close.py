"""Engines of vLLM one after the other in one process, as commands with two models need them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys, weakref
from generation_builders import png
from omniq_verl import Scorer

images, answers, freed = [png(seed, side=80) for seed in range(4)], [], []
for _ in range(2):
    with Scorer(sys.argv[1], memory=0.1, max_tokens=12, dtype="float32", max_model_len=192) as scorer:
        answers.append([one.answer for one in scorer.score(images)])
        worker = scorer.engine._engine._engine._engine.engine_core.engine_core.model_executor.driver_worker.worker
        model, cache = weakref.ref(worker.get_model()), weakref.ref(worker.model_runner.kv_caches[0])
        del worker
    freed.append(model() is None and cache() is None)
print(json.dumps({"answers": answers, "freed": freed}))
"""


def test_a_closed_engine_frees_its_model_and_another_one_can_be_opened(tmp_path):
    save_tiny_model(tmp_path / "model", list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    builders = str(Path(__file__).parents[1] / "builders")
    path = os.pathsep.join([builders, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "model")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["freed"] == [True, True]
    assert found["answers"][0] == found["answers"][1] and len(set(found["answers"][0])) > 1
