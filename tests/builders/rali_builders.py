"""Small image encoders, and a fitted RALI, for tests of what stands around them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from evaluation_builders import brightness
from image_builders import saved, smooth
from rich.console import Console

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.runner import RunOptions
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.rali.checkpoint import About, RaliModel, save_rali
from omniq_verl.rali.compress import Basis, Projection
from omniq_verl.rali.encoder import open_encoder
from omniq_verl.rali.fit import BasisScorer
from omniq_verl.rali.pairs import PairsConfig, make_pairs
from omniq_verl.tasks import Scale
from omniq_verl.tiny.clip import TinyClipSize, save_tiny_clip

SIZE = TinyClipSize(embedding=16, hidden=32, layers=2, heads=2, mlp=32, patch=8, image_side=32, vocab=280)
TEXTS = [f"{strength} {kind}, {word} quality" for strength in ("slight", "strong") for kind in ("noise", "blur")
         for word in ("bad", "poor", "fair", "good")]  # fmt: skip


def tiny_encoder_folder(folder: Path, kind: str = "clip", seed: int = 0) -> Path:
    save_tiny_clip(folder, TEXTS, seed, SIZE, kind)
    return folder


def tiny_rali(encoder_folder: Path, vectors: int = 6, dimensions: int = 5, seed: int = 0) -> RaliModel:
    """With basis vectors at random, and scores wide enough for images to differ."""
    encoder, rng = open_encoder(str(encoder_folder)), np.random.default_rng(seed)
    matrix = np.linalg.qr(rng.normal(size=(encoder.size, dimensions)))[0]
    basis = Basis(rng.normal(size=(vectors, dimensions)), np.linspace(-10, 16, vectors), np.array([vectors]))
    return RaliModel(encoder, BasisScorer(Projection(np.zeros(encoder.size), matrix, 1.0), basis))


def save_tiny_rali(folder: Path, encoder_folder: Path, scale: Scale = Scale(1.0, 5.0)) -> Path:  # noqa: B008  frozen
    save_rali(folder, tiny_rali(encoder_folder), About("technical", scale, {"encoder": "tiny"}))
    return folder


def picture(seed: int, height: int = 40, width: int = 56, kind: str = "PNG") -> bytes:
    """A file of a smooth picture with some noise, which grows with the seed."""
    rng = np.random.default_rng(seed)
    pixels = smooth(height, width, seed) + rng.normal(0, 3 * (seed % 20), (height, width, 3))
    return saved(np.clip(pixels, 0, 255).astype(np.uint8), kind)


def write_labelled(path: Path, scores: list[float], split: str = "train", source: str = "made", first: int = 0) -> Path:
    """A prepared file of pictures with these labels; ``first`` is the seed of the first picture."""
    rows = [
        Row(source, f"{source}/{number}", "technical", split, score, score, (1.0, 5.0)).record(
            number, picture(first + number)
        )
        for number, score in enumerate(scores)
    ]
    write_parquet(rows, path)
    return path


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Critic:
    """A reasoning model that says what it sees: how bright an image is, in words of its seed.

    ``EngineSpec.model`` "hostile": every third answer cannot be read, has no reasoning, or a score out of range;
    "silent": none can be read.
    """

    def __init__(self, spec: EngineSpec):
        self.script = spec.model

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        return [[Answer(self._text(request, n)) for n in range(sampling.n)] for request in requests]

    def _text(self, request: Request, number: int) -> str:
        score = 1 + 4 * brightness(request.images[0])
        broken = ("no answer", f"<answer>{score:.2f}</answer>", "<think>far off</think><answer>99</answer>")
        if self.script == "silent" or (self.script == "hostile" and number % 3 == 2):
            return broken[0 if self.script == "silent" else request.seed % 3]
        return f"<think>{TEXTS[int(score * 3) % len(TEXTS)]} {number}</think><answer>{score:.2f}</answer>"


CRITIC = "rali_builders:Critic"


def make_tiny_pairs(data: Path, out: Path, seeds: int = 3) -> Path:
    """Pairs of a prepared file, by the critic."""
    config = PairsConfig([data], out, EngineSpec("", CRITIC), Sampling(seeds, 1.0), RunOptions("here"))
    make_pairs(config, Console(quiet=True))
    return out / "pairs.parquet"
