"""Inputs of the preflight's tests: healthy ones, for a test to break."""

import io
import os
import zipfile
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

os.environ.setdefault("OMNIQ_DOCTOR_CACHE", "off")  # tests that are about the store name a folder of their own

RECIPES = Path(__file__).parents[2] / "recipes"


@cache
def _recipe(name: str) -> DictConfig:
    return compose_recipe(name, [], RECIPES)


def composed(name: str, *overrides: str) -> DictConfig:
    """A recipe, with values as on the command line; read once for all tests, as hydra takes a second or two for it."""
    config = deepcopy(_recipe(name))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=override.is_add())
    return config


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(height: int = 24, width: int = 24) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(height, width)).save(buffer, "PNG")
    return buffer.getvalue()


def record(number: int, image: bytes | None = None) -> dict:
    row = Row("koniq", f"koniq/{number}", TECHNICAL.name, "train", 3.2, 60.0, (0.0, 100.0))
    return row.record(number, image or png())


def records(count: int = 4, first: int = 0) -> list[dict]:
    return [record(number) for number in range(first, first + count)]


def written(folder: Path, rows: list[dict], name: str = "train.parquet") -> str:
    write_parquet(rows, folder / name)
    return str(folder / name)


def checkpoint(run: Path, step: int, ranks: int = 1, below: str = "actor") -> Path:
    """A whole checkpoint, as far as the doctor looks at it, and verl's note on it; returns the folder of its files."""
    folder = run / f"global_step_{step}" / below
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("model", "optim", "extra_state"):
        for rank in range(ranks):
            with zipfile.ZipFile(folder / f"{part}_world_size_{ranks}_rank_{rank}.pt", "w") as file:
                file.writestr("data", part)
    (run / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def tiny_model(folder: Path) -> Path:
    save_tiny_model(folder, corpus=list(TECHNICAL.questions), images=[pixels(80, 80, seed) for seed in range(3)])
    return folder
