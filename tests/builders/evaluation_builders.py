"""A stand-in for a reward model, where the test is of what stands around it: it rates an image by its brightness."""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from generation_builders import SLOWLY
from PIL import Image

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.tasks import DISTORTIONS, SEVERITIES

RATER, RECORDER = "evaluation_builders:Rater", "evaluation_builders:Recorder"
COMPARER = "evaluation_builders:Chooser"


class Rater:
    """Black is a 1, white a 5; of several answers number i is i hundredths higher.

    Asked for a distortion it says slight noise of dark images, and none of bright ones. ``EngineSpec.model`` scripts
    it: "slow"; "hostile": what cannot be read, of images darker than a quarter; "rejects": likewise, by ValueError;
    "0-5": black is a 0.
    """

    def __init__(self, spec: EngineSpec):
        self.script = spec.model
        self.images = 0

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        if self.script == "slow":
            time.sleep(SLOWLY * len(requests))
        shares = [brightness(request.images[0]) for request in requests]
        if self.script == "rejects" and min(shares, default=1) < 0.25:
            raise ValueError("too dark")
        self.images += len(requests)
        return [
            [Answer(self._text(share, "distortion_class" in str(request.messages), n)) for n in range(sampling.n)]
            for share, request in zip(shares, requests, strict=True)
        ]

    def _text(self, share: float, classes: bool, number: int) -> str:
        if self.script == "hostile" and share < 0.25:
            return "<think>\ud800 | <b>no end"
        low = 0 if self.script == "0-5" else 1
        said = f"{min(low + (5 - low) * share + number / 100, 5):.2f}"
        if classes:
            said = '{"distortion_class": null, "severity": null}'
            if share < 0.5:
                said = '{"distortion_class": "noise", "severity": "slight"}'
        return f"<think>its brightness is {share:.2f}</think><answer>{said}</answer>"


class Recorder:
    """Remembers what it was asked."""

    texts: list[str] = []  # noqa: RUF012  of the only one there is
    seeds: list[int] = []  # noqa: RUF012

    def __init__(self, _spec: EngineSpec):
        Recorder.texts, Recorder.seeds = [], []

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        Recorder.texts += [request.messages[0]["content"] for request in requests]
        Recorder.seeds += [request.seed for request in requests]
        return [[Answer("<answer>3</answer>")] * sampling.n for _ in requests]


class Chooser:
    """Chooses the brighter of the last two images, and the first where they are alike; remembers what it was shown."""

    shown: list[list[bytes]] = []  # noqa: RUF012  of the only one there is

    def __init__(self, _spec: EngineSpec):
        Chooser.shown = []

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        Chooser.shown += [list(request.images) for request in requests]
        sides = [[brightness(image) for image in request.images[-2:]] for request in requests]
        return [[Answer(f"<answer>Image {'B' if b > a else 'A'}</answer>")] * sampling.n for a, b in sides]


def brightness(data: bytes) -> float:
    with Image.open(io.BytesIO(data)) as image:
        return float(np.asarray(image.convert("L")).mean() / 255)


def grey(value: int, side: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def write_scored(
    path: Path, values: Sequence[int], targets: Sequence[float], source: str = "made", split: str = "test"
) -> Path:
    """Grey images of these values with these labels; their details say whether they are dark."""
    rows = [
        Row(source, f"{number}", "technical", split, target, target, (1.0, 5.0), details={"dark": value < 128})
        for number, (value, target) in enumerate(zip(values, targets, strict=True))
    ]
    write_parquet([row.record(int(row.row_id), grey(values[int(row.row_id)])) for row in rows], path)
    return path


def write_distorted(path: Path, values: Sequence[int], source: str = "worn", split: str = "test") -> Path:
    """Grey images, every class and severity in turn, each fifth without."""
    rows = []
    for number, value in enumerate(values):
        distortion = None if number % 5 == 4 else DISTORTIONS[number % 4]
        severity = SEVERITIES[number % 5] if distortion else None
        row = Row(source, f"{number}", "degradation", split, distortion=distortion, severity=severity)
        rows.append(row.record(number, grey(value)))
    write_parquet(rows, path)
    return path
