"""A stand-in for a language model, where the test is of what stands around it, and rows to ask about."""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.spec import EngineSpec

SLOWLY = 0.03
"""Seconds an answer takes, so that there is something to be killed."""


class Echo:
    """Answers with what it was asked, its seed and the number of its images.

    ``EngineSpec.model`` scripts it: "slow"; "rejects TEXT" or "kills TEXT", in requests that hold the text; "dies
    FOLDER", once, at the third batch; "unloadable FILE", which counts how often that was tried.
    """

    def __init__(self, spec: EngineSpec):
        self.script, _, self.argument = spec.model.partition(" ")
        self.batches = 0
        if self.script == "unloadable":
            with open(self.argument, "a") as tried:
                tried.write("x")
            raise OSError("no such model")

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        self.batches += 1
        if self.script == "slow":
            time.sleep(SLOWLY * len(requests))
        if self.script == "rejects" and any(self.argument in str(request.messages) for request in requests):
            raise ValueError("too long")
        if self.script == "kills" and any(self.argument in str(request.messages) for request in requests):
            raise RuntimeError("dead")
        mark = Path(self.argument) / "died"
        if self.script == "dies" and self.batches == 3 and not mark.exists():
            mark.touch()
            raise RuntimeError("out of memory")
        return [
            [
                Answer(f"{_said(request)} seed {request.seed + n} images {len(request.images)}")
                for n in range(sampling.n)
            ]
            for request in requests
        ]


class Closable(Echo):
    """``Echo`` that writes "open" and "close" into the file ``events`` of the folder that its script ends with."""

    def __init__(self, spec: EngineSpec):
        super().__init__(spec)
        self._note("open")

    def close(self) -> None:
        self._note("close")

    def _note(self, event: str) -> None:
        with open(Path(self.argument) / "events", "a") as events:
            events.write(f"{event}\n")


class Streams(Echo):
    """``Echo`` one by one; "breaks" half way."""

    def stream(self, jobs, sampling: Sampling):
        jobs = list(jobs)
        for number, job in enumerate(jobs):
            if self.script == "breaks" and number == len(jobs) // 2:
                raise RuntimeError("broken")
            yield self.answer(job(), sampling)


class InFours(Echo):
    """``Echo`` that takes four at a time, and fails where it is given more."""

    at_once = 4

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        assert len(requests) <= self.at_once
        return super().answer(requests, sampling)


def _said(request: Request) -> str:
    return " ".join(turn["content"] for turn in request.messages)


def png(value: int = 0, side: int = 16) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_rows(path: Path, scores: Sequence[float], split: str = "train", source: str = "made") -> Path:
    """A prepared file of technical quality, one row for each score from 1 to 5."""
    rows = [
        Row(source, f"{source}/{number}", "technical", split, score, score, (1.0, 5.0)).record(number, png(number))
        for number, score in enumerate(scores)
    ]
    write_parquet(rows, path)
    return path
