"""Which model folders are opened: none that could run code of its own, unless asked for."""

import json
from pathlib import Path

from xxhash import xxh3_128

_PIECES = 64
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class UnsafeModel(ValueError):
    """Opening the model would run code that came with it."""


def check_model_folder(model: str, allow_pickle: bool = False, trust_remote_code: bool = False) -> None:
    """Look at a local folder before anything loads it; names of a hub pass (there, too, only safetensors are loaded).

    Args:
        model: folder, or name at a hub.
        allow_pickle: accept weights that are pickle files, which can run any code when they are loaded.
        trust_remote_code: accept a folder whose ``config.json`` or processor asks for Python code beside it.

    Raises:
        UnsafeModel: it has weights as pickle only, or asks for code of its own.
        ValueError: the folder holds no model.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith(("/", ".", "~")):
            raise ValueError(f"{model}: there is no such folder. Mend: give the folder of a saved model")
        return
    if not (folder / "config.json").is_file():
        raise ValueError(f"{model} has no config.json. Mend: give the folder that holds it (often huggingface/)")
    if not trust_remote_code and (names := _with_code(folder)):
        raise UnsafeModel(
            f"{model}/{names[0]} asks for Python code of its own (auto_map). Mend: read that code, then allow it with"
            " --trust-remote-code"
        )
    if not allow_pickle and not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        found = f"only {pickled[0]}, a pickle file, which can run any code" if pickled else "no weights"
        raise UnsafeModel(
            f"{model} has no *.safetensors ({found}). Mend: save the model again with safetensors, or, where you know"
            " who made it and the command has it, --allow-pickle"
        )


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
