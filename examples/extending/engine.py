"""A custom engine: here not a model at all, but a measure of sharpness that answers like one.

PYTHONPATH=examples/extending omniq score photos/ --task task:SHARPNESS --engine engine:open_engine --model laplace
PYTHONPATH=examples/extending omniq serve --task task:SHARPNESS --engine engine:open_async --model laplace
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.spec import EngineSpec


class Laplace:
    """Answers each question with the strength of the image's edges, from 0 to 10."""

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """Return ``sampling.n`` answers per request, in request order."""
        return [[Answer(_text(request.images[-1]))] * sampling.n for request in requests]


class AsyncLaplace:
    """The same for ``omniq serve``, which sends one request at a time."""

    async def answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        """Return ``sampling.n`` answers."""
        return Laplace().answer([request], sampling)[0]

    async def check(self) -> None:
        """Raise a RuntimeError if the engine has failed; this one cannot."""


def open_engine(spec: EngineSpec) -> Laplace:
    """Called once per process; ``spec.model`` is the value of ``--model``."""
    return Laplace()


def open_async(spec: EngineSpec) -> AsyncLaplace:
    """Called once per process of ``omniq serve``."""
    return AsyncLaplace()


def _text(image: bytes) -> str:
    with Image.open(io.BytesIO(image)) as opened:
        grey = np.asarray(opened.convert("L"), dtype=float)
    edges = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return f"<think>The edges are {edges:.1f} grey levels high.</think><answer>{min(edges / 10, 10):.2f}</answer>"
