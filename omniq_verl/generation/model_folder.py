"""Which model folders are opened: none that could run code of its own, unless asked for."""

import json
import os
import re
from pathlib import Path

from xxhash import xxh3_128

from omniq_verl.generation.weights import PICKLED, check_no_adapter, check_weights
from omniq_verl.lfs import check_no_pointers

_PIECES = 64
_STEP = re.compile(r"global_step_(\d+)")


class UnsafeModel(ValueError):
    """Opening the model would run code that came with it."""


def expanded(model: str | Path) -> str:
    """The model with a leading ``~`` replaced by the home folder, which transformers and vLLM do not do."""
    return os.path.expanduser(str(model))


def checkpoint_of(model: str) -> str:
    """The model in a training run's folder: of its newest checkpoint, as verl counts; any other model as it is given.

    Args:
        model: ``trainer.default_local_dir`` of a run, a ``global_step_N`` of it, the folder ``actor`` within that, or
            whatever else names a model.
    """
    folder = Path(model)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return model
    steps = {int(match[1]): path for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))}
    if steps:
        newest = folder / "latest_checkpointed_iteration.txt"  # written last: a later folder may be half a checkpoint
        number = newest.read_text().strip() if newest.is_file() else ""
        folder = folder / f"global_step_{number}" if number.isdigit() else steps[max(steps)]
    below = (folder / "actor" / "huggingface", folder / "huggingface")
    return str(next((path for path in below if (path / "config.json").is_file()), model))


def check_model_folder(model: str, allow_pickle: bool = False, trust_remote_code: bool = False) -> None:
    """Check a local folder before anything loads it; names of a hub pass (there, too, only safetensors are loaded).

    Args:
        model: folder, or name at a hub.
        allow_pickle: accept weights that are pickle files, which can run any code when they are loaded.
        trust_remote_code: accept a folder whose ``config.json`` or processor asks for Python code beside it.

    Raises:
        UnsafeModel: it has weights as pickle only, or asks for code of its own.
        BadFile: a file of it is a Git LFS pointer, or the weights are not those that ``config.json`` asks for.
        ValueError: the folder holds no model.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith(("/", ".", "~")):
            raise ValueError(f"{model}: there is no such folder. Fix: give the folder of a saved model")
        return
    check_no_adapter(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{model} has no config.json. Fix: give the folder that holds it (often huggingface/)")
    check_no_pointers(folder)
    if not trust_remote_code and (names := _with_code(folder)):
        raise UnsafeModel(
            f"{model}/{names[0]} asks for Python code of its own (auto_map). Fix: read that code, then allow it with"
            " --trust-remote-code"
        )
    if not allow_pickle and not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        found = f"only {pickled[0]}, a pickle file, which can run any code" if pickled else "no weights"
        raise UnsafeModel(
            f"{model} has no *.safetensors ({found}). Fix: save the model again with safetensors, or, where you know"
            " who made it and the command has it, --allow-pickle"
        )
    check_weights(folder, trust_remote_code)


def weights_mark(folder: Path) -> str | None:
    """Tells weights from others of the same model; None where no safetensors are at hand.

    Of each file its size and 64 pieces of 64 KiB, evenly spaced, so that 16 GB are not read twice. Other weights in
    less than a sixty-fourth of a file may go unseen.
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
        settings = json.loads(path.read_bytes())
    except ValueError:
        return False  # whoever loads it says so
    return isinstance(settings, dict) and "auto_map" in settings
