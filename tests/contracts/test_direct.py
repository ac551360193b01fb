"""Scoring without reasoning by a real vLLM: as by transformers, and the same alone as together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omniq_verl import Scorer
from omniq_verl.tasks import Q_INSIGHT_SCORE, TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

pytestmark = pytest.mark.slow
IMAGES = 4
SCRIPT = """
import json, sys
from generation_builders import png
from omniq_verl import Scorer

images = [png(seed, side=80) for seed in range(int(sys.argv[2]))]
scorer = Scorer(sys.argv[1], mode="direct", dtype="float32", max_model_len=1024, memory=0.1)
found = scorer.score(images, task=["technical", "q_insight_score"])
assert all(score.ok for one in found for score in one.values()), found
alone = [scorer.score(image, task=["technical", "q_insight_score"]) for image in images]
print("FOUND", json.dumps([[[one[task].score, one[task].outside] for task in one] for one in [*found, *alone]]))
"""


def test_vllm_and_transformers_agree_and_company_changes_nothing(tmp_path):
    from generation_builders import png

    folder = tmp_path / "model"
    corpus = [*TECHNICAL.questions, *Q_INSIGHT_SCORE.questions, '<answer>{"rating": 3.52}</answer>']
    save_tiny_model(folder, corpus * 3, [np.zeros((80, 80, 3), dtype=np.uint8)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(IMAGES)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-2000:]
    found = np.array(json.loads(lines[0].removeprefix("FOUND ")))
    scorer = Scorer(folder, engine="hf", mode="direct", dtype="float32")
    plain = scorer.score([png(seed, side=80) for seed in range(IMAGES)], task=["technical", "q_insight_score"])
    expected = np.array([[[one[task].score, one[task].outside] for task in one] for one in plain])
    assert np.abs(found[:IMAGES] - expected).max() < 1e-4
    assert np.abs(found[IMAGES:] - found[:IMAGES]).max() < 1e-5
