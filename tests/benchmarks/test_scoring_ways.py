"""The scoring benchmark's ways without reasoning: they count no image that has no score."""

import subprocess
import sys
from pathlib import Path

import pytest
from adapter_builders import Brightness
from generation_builders import png
from gpu_step_builders import benchmark_module

SCRIPT = Path(__file__).parents[2] / "benchmarks/scoring.py"


scoring = benchmark_module("scoring")


def test_every_image_is_scored_and_has_its_tokens():
    scorer = Brightness()
    found = scoring.timed(scoring.scores_of(scorer, 1), [[png(9)], [png(5), png(7)], [png(1), png(3)]])
    assert [images for images, *_ in scorer.calls] == [1, 2, 2]
    assert found["tokens"] == 1.0 and found["images_per_second"] > 0


def test_an_image_without_a_score_stops_the_measurement():
    with pytest.raises(SystemExit, match="1 images have no score; the first: "):
        scoring.scores_of(Brightness(), 0)([png(5), b"no image"])


def test_rali_is_not_measured_without_a_model():
    command = [sys.executable, str(SCRIPT), "--run", "none", "--ways", "Scorer", "RaliScorer"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "RaliScorer needs a model. Fix: add --rali FOLDER" in done.stderr
