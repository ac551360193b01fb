"""Checks of the model folder, and the sizes other checks need from it. No weight is loaded."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from omniq_verl.doctor.problem import Problem


@dataclass(frozen=True)
class ModelFolder:
    """Findings about a model; there are no tensors if no safetensors file is at hand (a hub id)."""

    problems: list[Problem] = field(default_factory=list)
    tensors: tuple[int, ...] = ()
    """Number of parameters of each tensor."""

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return sum(self.tensors)

    @property
    def largest_tensor(self) -> int:
        """Number of parameters of the largest tensor."""
        return max(self.tensors, default=0)


def looks_local(path: str) -> bool:
    """Whether a model path means a folder and not a hub id such as ``org/name``."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1 or os.path.isdir(path)


def inspect_model(path: str, key: str = "actor_rollout_ref.model.path") -> ModelFolder:
    """Check that a local model folder can be loaded, and count its parameters. Hub ids are not checked."""
    if not looks_local(path):
        return ModelFolder()
    folder = Path(path).expanduser()
    problem = _folder_problem(path, folder, key)
    if problem:
        return ModelFolder([problem])
    try:
        tensors = tuple(tensor_sizes(folder))
    except SafetensorError as error:
        mend = "copy or download the model again, a file of it is broken or not whole"
        return ModelFolder([Problem(f"{key}={path}", f"the weights cannot be read ({error})", mend)])
    return ModelFolder(tensors=tensors)


def _folder_problem(path: str, folder: Path, key: str) -> Problem | None:
    where = f"{key}={path}"
    if not folder.is_dir():
        return Problem(where, "there is no such folder", f"give the folder of a saved model: {key}=FOLDER")
    if not (folder / "config.json").is_file():
        what = "the folder has no config.json, so it is no Hugging Face model"
        return Problem(where, what, "give the folder that holds config.json (of a verl checkpoint: its huggingface/)")
    if missing := missing_weights(folder):
        mend = "copy or download the model again, or give the folder that holds them"
        return Problem(where, f"the folder lacks its weights ({missing})", mend)
    if path.endswith("/"):
        return Problem(where, "verl refuses a path that ends with a slash", f"drop the slash: {key}={path.rstrip('/')}")
    return None


def missing_weights(folder: Path) -> str | None:
    """The first file of weights that should be there and is not."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{index.name} cannot be read: {error!r}"
        return next((name for name in named if not (folder / name).is_file()), None)
    return None if any(any(folder.glob(f"*.{kind}")) for kind in ("safetensors", "bin")) else "model.safetensors"


def tensor_sizes(folder: Path) -> list[int]:
    """Parameters of each tensor in the folder's safetensors files, read from their headers.

    Raises:
        SafetensorError: a file is damaged or shorter than its header says.
    """
    sizes = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            sizes += [math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys()]  # noqa: SIM118
    return sizes
