"""Find the checkpoint in the folder of a training run, wherever a model is named."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "best_checkpoint.json"
"""Names the weights that validated best; ``omniq_verl.trainer.best_checkpoint`` writes it."""
_LATEST = "latest_checkpointed_iteration.txt"
_STEP = re.compile(r"global_step_(\d+)")
_BELOW = ("actor/huggingface", "huggingface", ".")
"""Where a checkpoint of GRPO, of SFT, and below ``best`` has its model."""
_MODELS = ("*/config.json", "snapshots/*/config.json")
"""Where others keep models: transformers' and TRL's trainers (``checkpoint-500``), and the hub's cache."""


@dataclass(frozen=True)
class Checkpoint:
    """A model, and why it stands for its run."""

    folder: Path
    why: str


def checkpoint_of(model: str) -> str:
    """The folder that ``find_checkpoint`` finds; any other model is returned unchanged."""
    found = find_checkpoint(model)
    return model if found is None else str(found.folder)


def find_checkpoint(model: str | Path) -> Checkpoint | None:
    """The checkpoint of a training run that validated best; without validation the newest one, as verl counts.

    Args:
        model: ``trainer.default_local_dir`` of a run, its folder ``best``, a ``global_step_N`` in either, the folder
            ``actor`` within that, or any other name of a model.

    Returns:
        None if this is a model itself, no local folder, or a folder without a checkpoint.

    Raises:
        ValueError: the run's best checkpoint is gone.
    """
    folder = Path(model)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return None
    record = read_record(folder)
    if "model" in record:
        return Checkpoint(best_of(folder, record), f"the best checkpoint by {record.get('metric')}")
    steps = steps_of(folder)
    found = _model_below(_newest(folder, steps) if steps else folder)
    return None if found is None else Checkpoint(found, "the newest checkpoint" if steps else "the model")


def read_record(run: Path) -> dict[str, Any]:
    """What ``best_checkpoint.json`` holds: ``metric``, ``step``, ``value``, ``model`` (the folder, relative to the run)
    and ``validated`` (the values of all validated steps). Empty where there is none."""
    try:
        found = json.loads((run / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and all(map(_is_sound, found.items())) else {}


def _is_sound(item: tuple[str, Any]) -> bool:
    name, value = item
    kind = {"metric": str, "step": int, "value": (int, float), "validated": dict}.get(name, object)
    return isinstance(value, kind)


def best_of(run: Path, record: dict[str, Any]) -> Path:
    """The folder that a record names.

    Raises:
        ValueError: it holds no model, or lies outside the run.
    """
    folder = run / str(record["model"])
    if (folder / "config.json").is_file() and folder.resolve().is_relative_to(run.resolve()):
        return folder
    raise ValueError(f"{folder}: {RECORD} names it, and it holds no model. Fix: {advice(run)}")


def steps_of(run: Path) -> dict[int, Path]:
    """Folders ``global_step_N`` of a run by their number."""
    return {int(match[1]): path for path in run.iterdir() if (match := _STEP.fullmatch(path.name))}


def advice(folder: Path) -> str:
    """What to name instead of a folder that holds no model."""
    steps = steps_of(folder)
    kept = [*sorted((folder / "best").glob("*")), *(steps[step] for step in sorted(steps, reverse=True))]
    found = [model for one in kept if (model := _model_below(one))]
    if found:
        return f"name a checkpoint, such as {' or '.join(map(str, found[:3]))}"
    if steps:
        return (
            f"its steps ({', '.join(map(str, sorted(steps)))}) have no model in Hugging Face's format; train with"
            " hf_model in save_contents of the checkpoint, or convert one with `python -m verl.model_merger`"
        )
    if found := [path.parent for below in _MODELS for path in sorted(folder.glob(below))]:
        return f"name the folder that holds it, such as {' or '.join(map(str, found[:3]))}"
    return "name the folder that holds config.json"


def _newest(folder: Path, steps: dict[int, Path]) -> Path:
    latest = folder / _LATEST  # written last: later folders may be incomplete
    number = latest.read_bytes().strip() if latest.is_file() else b""
    return folder / f"global_step_{number.decode()}" if number.isdigit() else steps[max(steps)]


def _model_below(folder: Path) -> Path | None:
    return next((folder / below for below in _BELOW if (folder / below / "config.json").is_file()), None)
