"""Check the model folder and read the sizes that other checks need, without loading weights."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from omniq_verl.doctor.paths import home_problem
from omniq_verl.doctor.problem import Problem
from omniq_verl.generation.run_folder import advice
from omniq_verl.generation.weights import check_no_adapter, check_weights, read_stored
from omniq_verl.lfs import BadFile, check_no_pointers


@dataclass(frozen=True)
class ModelFolder:
    """Findings about a model. It has no tensors if its files are not local (a hub id)."""

    problems: list[Problem] = field(default_factory=list)
    tensors: tuple[int, ...] = ()
    """Number of parameters of each tensor."""

    @property
    def parameters(self) -> int:
        """Total number of parameters."""
        return sum(self.tensors)

    @property
    def largest_tensor(self) -> int:
        """Number of parameters of the largest tensor."""
        return max(self.tensors, default=0)


def looks_local(path: str) -> bool:
    """Return whether a model path means a folder instead of a hub id such as ``org/name``."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1 or os.path.isdir(path)


def inspect_model(path: str, key: str = "actor_rollout_ref.model.path", trust_remote_code: bool = False) -> ModelFolder:
    """Check that a local model folder matches its configuration, and count its parameters.

    Args:
        path: the configured path; hub ids are not checked.
        key: the configuration key.
        trust_remote_code: whether to build the model with Python code from its folder.
    """
    if not looks_local(path):
        return ModelFolder()
    folder, where = Path(path), f"{key}={path}"
    if problem := _folder_problem(path, folder, key):
        return ModelFolder([problem])
    try:
        check_no_adapter(folder)
        check_no_pointers(folder)
        check_weights(folder, trust_remote_code)
        tensors = tuple(math.prod(tensor.shape) for tensor in read_stored(folder).values())
    except BadFile as error:
        file = Path(error.where)
        what = error.what if file == folder else f"{file.name}: {error.what}"
        return ModelFolder([Problem(where, what, error.fix)])
    return ModelFolder(tensors=tensors)


def _folder_problem(path: str, folder: Path, key: str) -> Problem | None:
    where = f"{key}={path}"
    if path.startswith("~"):
        return home_problem(key, path)
    if not folder.is_dir():
        return Problem(where, "there is no such folder", f"give the folder of a saved model: {key}=FOLDER")
    if not (folder / "config.json").is_file() and not any(folder.glob("adapter_*")):
        what = "the folder has no config.json, so it is not a Hugging Face model"
        return Problem(where, what, advice(folder))
    if path.endswith("/"):
        return Problem(where, "verl rejects a path that ends with a slash", f"drop the slash: {key}={path.rstrip('/')}")
    return None
