"""One model made of two: the vision tower of one checkpoint and the language model of another.

Source: RALI, section 3.3 and table 1. The vision tower is the module ``visual`` with encoder and merger, as in
``trainer.parts``. Everything else is the language model.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from omniq_verl.data.files import replace_text
from omniq_verl.generation.model_folder import check_model_folder, weights_mark
from omniq_verl.generation.weights import INDEX, SINGLE, read_stored, weight_files

VISION = "visual"
RECORD = "swap.json"
"""File that records the two models a folder was made from."""


def vision_name(name: str) -> str | None:
    """Return a tensor's name from the vision tower on, e.g. ``visual.merger.mlp.0.bias``; None if it is outside it.

    Checkpoints use different prefixes: ``visual.`` or ``model.visual.``.
    """
    parts = name.split(".")
    return ".".join(parts[parts.index(VISION) :]) if VISION in parts[:-1] else None


def check_fit(vision: Path, language: Path) -> None:
    """Check that the vision tower of one model fits the language model of the other. Only file headers are read.

    Raises:
        ValueError: a model has no module ``visual``, or the towers differ in tensors or shapes.
        BadWeights: a file is missing or damaged.
    """
    towers = [_tower(folder) for folder in (vision, language)]
    if towers[0] == towers[1]:
        return
    name = min(name for name in towers[0].keys() | towers[1].keys() if towers[0].get(name) != towers[1].get(name))
    shapes = [tower.get(name, "no such tensor") for tower in towers]
    raise ValueError(
        f"the vision tower of {vision} does not fit {language} ({name}: {shapes[0]} there, {shapes[1]} here). Fix: name"
        " two checkpoints of one architecture and size"
    )


def _tower(folder: Path) -> dict[str, tuple[int, ...]]:
    stored = read_stored(folder)
    found = {own: tuple(tensor.shape) for name, tensor in stored.items() if (own := vision_name(name))}
    if not found:
        raise ValueError(
            f"{folder} has no module named {VISION}, so its vision tower is unknown. Fix: give a model such as"
            " Qwen2.5-VL"
        )
    return found


def join_parts(vision: Path, language: Path, out: Path) -> Path:
    """Write a model folder with the vision tower of ``vision`` and everything else from ``language``.

    Only one weights file is in memory at a time. Tensors keep the names and dtypes of ``language``. The folder appears
    only when it is complete and has passed the check that every model must pass before it is opened. An existing folder
    made from the same weights is left unchanged.

    Args:
        vision: model folder with safetensors.
        language: model folder with safetensors.
        out: folder to create.

    Raises:
        ValueError: the towers do not fit, a folder is not safe to open, or ``out`` holds something else.
    """
    check_fit(vision, language)
    record = {"vision": _known(vision), "language": _known(language)}
    if out.exists():
        if _read(out / RECORD) != record:
            raise ValueError(f"{out} holds another model. Fix: delete it, or give another --out")
        return out
    unfinished = out.with_name(f"{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _copy_others(language, unfinished)
    _write_weights(vision, language, unfinished)
    replace_text(unfinished / RECORD, json.dumps(record, indent=2) + "\n")
    check_model_folder(str(unfinished.resolve()))
    os.replace(unfinished, out)
    return out


def _known(folder: Path) -> dict[str, str | None]:
    return {"folder": str(folder), "weights": weights_mark(folder)}


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _copy_others(source: Path, target: Path) -> None:
    """Copy every file that does not hold weights: configuration, tokenizer, processor."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in (".json", ".txt", ".jinja", ".model") and path.name not in (INDEX, RECORD):
            shutil.copyfile(path, target / path.name)


def _write_weights(vision: Path, language: Path, target: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    sources = _row_refs(weight_files(vision))
    files = weight_files(language)
    for path in files:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open has no iterator
        for name, tensor in tensors.items():
            if own := vision_name(name):
                tensors[name] = _tensor(*sources[own]).to(tensor.dtype).contiguous()
        save_file(tensors, target / path.name, metadata={"format": "pt"})
    if [path.name for path in files] != [SINGLE]:
        shutil.copyfile(language / INDEX, target / INDEX)


def _row_refs(files: Iterable[Path]) -> dict[str, tuple[Path, str]]:
    """Map each vision tower tensor's name (from the tower on) to its file and full name."""
    from safetensors import safe_open

    found = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            found |= {own: (path, name) for name in file.keys() if (own := vision_name(name))}  # noqa: SIM118
    return found


def _tensor(path: Path, name: str):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)
