"""Decide which model folders are safe to open: folders with their own code only if the user allows it."""

import json
import os
from pathlib import Path

from xxhash import xxh3_128

from omniq_verl.generation.run_folder import advice
from omniq_verl.generation.weights import PICKLED, check_no_adapter, check_weights
from omniq_verl.lfs import check_no_pointers

_PIECES = 64


class UnsafeModel(ValueError):
    """Opening the model would run code that came with it."""


def expanded(model: str | Path) -> str:
    """The model with a leading ``~`` replaced with the home folder, which transformers and vLLM do not do."""
    return os.path.expanduser(str(model))


def check_model_folder(model: str, allow_pickle: bool = False, trust_remote_code: bool = False) -> None:
    """Check a local folder before anything loads it. Hub names pass (for them, too, only safetensors are loaded).

    Args:
        model: folder, or name on a hub.
        allow_pickle: accept weights in pickle files, which can run any code when they are loaded.
        trust_remote_code: accept a folder whose ``config.json`` or processor refers to Python code.

    Raises:
        UnsafeModel: it has weights only as pickle, or needs its own code.
        BadFile: a file is a Git LFS pointer, or the weights do not match ``config.json``.
        ValueError: the folder has no model.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith(("/", ".", "~")):
            raise ValueError(f"{model}: there is no such folder. Fix: give the folder of a saved model")
        return
    check_no_adapter(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{model} has no config.json. Fix: {advice(folder)}")
    check_no_pointers(folder)
    if not trust_remote_code and (names := _with_code(folder)):
        raise UnsafeModel(
            f"{model}/{names[0]} needs its own Python code (auto_map). Fix: read that code, then allow it with"
            " --trust-remote-code"
        )
    if not allow_pickle and not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        found = f"only {pickled[0]}, a pickle file, which can run any code" if pickled else "no weights"
        raise UnsafeModel(
            f"{model} has no *.safetensors ({found}). Fix: save the model again with safetensors, or, if you trust its"
            " origin and the command has the option, pass --allow-pickle"
        )
    check_weights(folder, trust_remote_code)


def weights_mark(folder: Path) -> str | None:
    """A mark that differs between weights of the same model; None if there are no safetensors files.

    Covers each file's size and 64 evenly spaced pieces of 64 KiB, so that 16 GB need not be read twice. A change to
    less than a sixty-fourth of a file may go unnoticed.
    """
    digest = xxh3_128()
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            for piece in range(_PIECES):
                file.seek(size * piece // _PIECES)
                digest.update(file.read(2**16))
    return digest.hexdigest() if files else None


def _with_code(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.glob("*.json")) if _asks_for_code(path)]


def _asks_for_code(path: Path) -> bool:
    try:
        settings = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError):
        return False  # the code that loads it reports it
    return isinstance(settings, dict) and "auto_map" in settings
