"""A stand-in for a reasoning model, as an engine of ``omniq_verl.generation``: it knows the distortion but errs.

``EngineSpec.model`` is a file written by data_prep/photo_distortions.py. The seed of a request selects the wording. In
one of five answers the quality level is off by one. No trained model is involved.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.tasks import LEVELS, SEVERITIES, TECHNICAL

SLIP = 0.2
SAID = {
    "null": ("no distortion", "clean and sharp", "nothing is wrong with it"),
    "noise": ("noise", "grain all over", "speckled"),
    "blur": ("blur", "out of focus", "soft edges"),
    "compression": ("compression", "blocks and ringing", "jpeg artefacts"),
    "darken": ("darken", "underexposed", "too little light"),
}


class Critic:
    """Answers from the labels in the file."""

    def __init__(self, spec: EngineSpec):
        rows = pq.read_table(spec.model, columns=["extra_info"]).column(0).to_pylist()
        self._rows = {f"{row['task']}/{row['id']}": row for row in rows}

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        return [[self._answer(request, n) for n in range(sampling.n)] for request in requests]

    def _answer(self, request: Request, number: int) -> Answer:
        row, rng = self._rows[request.key], np.random.default_rng([request.seed, number])
        details = json.loads(row["details"])
        index = LEVELS.index(TECHNICAL.score_scale.level(row["score"]))
        if rng.random() < SLIP:
            index = int(np.clip(index + rng.choice([-1, 1]), 0, len(LEVELS) - 1))
        seen = rng.choice(SAID[details["distortion"]])
        if details["level"] >= 0:
            seen = f"{SEVERITIES[details['level']]} {seen}"
        score = TECHNICAL.score_scale.low + 0.8 * (index + 0.5)
        return Answer(f"<think>{seen}, {LEVELS[index]} quality</think><answer>{score:.1f}</answer>")
