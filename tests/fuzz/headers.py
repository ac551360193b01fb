"""Checkpoints' headers: the doctor's and the engines' look at a model folder, before anything is loaded."""

import json
import os
import shutil
import struct
from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

from fuzz.mutation import NUMBERS, VALUES, Files, json_bytes, mutated, mutated_json
from fuzz.rules import check, one_line
from image_builders import smooth

from omniq_verl.doctor.model_checks import inspect_model
from omniq_verl.doctor.model_shape import read_shape
from omniq_verl.generation.model_folder import check_model_folder, weights_mark

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@cache
def model() -> Path:
    """A whole tiny model, made once in a process."""
    from omniq_verl.tiny.model import save_tiny_model

    folder = Path(mkdtemp(prefix="fuzz-headers-"))
    images = [smooth(56, 56, seed) for seed in range(3)]
    save_tiny_model(folder / "model", ["a sharp photo of a cat", "<answer>3.50</answer>"], images)
    return folder / "model"


def make(rng: Random) -> Files:
    kind = rng.choice(("weights", "weights", "config.json", "index", "preprocessor_config.json"))
    if kind == "weights":
        return {_WEIGHTS: _weights(rng, (model() / _WEIGHTS).read_bytes())}
    if kind == "index":
        names = sorted(_header((model() / _WEIGHTS).read_bytes()))
        index = {"metadata": {"total_size": 1000}, "weight_map": dict.fromkeys(names[:20], _WEIGHTS)}
        return {_INDEX: json_bytes(rng, mutated_json(rng, index))}
    path = model() / kind
    settings = json.loads(path.read_bytes()) if path.exists() else {"size": {"shortest_edge": 56}}
    return {kind: json_bytes(rng, mutated_json(rng, settings))}


def _header(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length])


def _weights(rng: Random, data: bytes) -> bytes:
    fate = rng.random()
    if fate < 0.3:
        return mutated(rng, data)
    if fate < 0.4:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 2400000\n"
        return mutated(rng, pointer) if rng.random() < 0.5 else pointer
    (length,) = struct.unpack_from("<Q", data)
    header = _header(data)
    name = rng.choice(sorted(header))
    field = rng.choice(("name", "dtype", "shape", "data_offsets", "any", "lost"))
    if field == "lost" or not isinstance(header[name], dict):
        header.pop(name)
    elif field == "name":
        header[rng.choice(("lora." + name, "", name.upper(), "x" * 10_000))] = header.pop(name)
    elif field == "any":
        header[name] = mutated_json(rng, header[name])
    else:
        numbers = [rng.choice(NUMBERS) for _ in range(rng.randrange(4))]
        header[name] = {**header[name], field: rng.choice((numbers, rng.choice(VALUES), "F64", "I4"))}
    made = json_bytes(rng, header)
    return struct.pack("<Q", len(made) if rng.random() < 0.9 else rng.choice(NUMBERS)) + made + data[8 + length :]


def run(files: Files, folder: Path) -> str:
    """The outcome, once all who look at the folder have named a fault or found none."""
    made = folder / "model"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for path in model().iterdir():
        if path.name not in files:
            os.symlink(path, made / path.name)
    for name, data in files.items():
        (made / name).write_bytes(data)
    found = inspect_model(str(made))
    for problem in found.problems:
        check(bool(str(problem).strip()) and "Traceback" not in str(problem), f"problem {problem}")
    check(bool(found.problems) or all(size >= 0 for size in found.tensors), f"tensors {found.tensors[:3]}")
    weights_mark(made)
    try:
        check_model_folder(str(made))
    except ValueError as error:
        one_line(error)
    if not found.problems:
        read_shape(made, found.parameters)
    return "problem named" if found.problems else "no problem"
