"""What a model folder or hub repository states about itself: ``config.json``, its card, and our ``omniq.json``."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from omniq_verl.generation.hub import check_hub_name

OURS = "omniq.json"
"""Written by ``omniq publish``."""
_CONFIG, _CARD = "config.json", "README.md"
_LONGEST = 2**20
"""Larger files are ignored (bytes). All three files are normally far smaller."""


@dataclass(frozen=True)
class About:
    """Facts that tell which family a model belongs to."""

    name: str
    """Path, or name on a hub."""
    model_type: str | None = None
    tags: tuple[str, ...] = ()
    """Tags of the card and names of its base models, in lower case."""
    ours: Mapping[str, Any] = field(default_factory=dict)
    """Content of ``omniq.json``."""

    @property
    def marks(self) -> str:
        """All texts that may contain a family's mark, in lower case."""
        return " ".join((own_name(self.name).lower(), *self.tags))


def own_name(model: str) -> str:
    """Return a model's name: the name on a hub, or the last part of a folder's path.

    The user chose the folders above, so they say nothing about the model (``omniq_verl/models/a``,
    ``runs/q_insight/huggingface``). An exception is the cache of a hub, where one of them has the name.

    Args:
        model: folder, or name on a hub or of an endpoint.
    """
    folder = Path(model).expanduser()
    if not (folder.is_absolute() or folder.is_dir()):
        return model
    parts = list(Path(os.path.abspath(folder)).parts)
    if len(parts) > 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return parts[-1]


def about_model(model: str, subfolder: str | None = None) -> About:
    """Read those of the three files that exist.

    Args:
        model: folder, or name on a hub. From a hub, only these files are downloaded.
        subfolder: alternative folder for ``config.json``.

    Raises:
        ValueError: there is no such folder or model, or the hub cannot be reached and its cache lacks the model.
    """
    read = _from_folder
    if not Path(model).expanduser().is_dir():
        check_hub_name(model)  # fails within seconds; otherwise every file would be tried for that long
        read = _from_hub
    config = _json(read(model, _CONFIG)) or (_json(read(model, f"{subfolder}/{_CONFIG}")) if subfolder else {})
    model_type = config.get("model_type")
    return About(
        model,
        model_type if isinstance(model_type, str) else None,
        _tags(read(model, _CARD)),
        _json(read(model, OURS)),
    )


def _from_folder(model: str, name: str) -> bytes:
    path = Path(model).expanduser() / name
    if not path.is_file() or path.stat().st_size > _LONGEST:
        return b""
    return path.read_bytes()


def _from_hub(model: str, name: str) -> bytes:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(model, name))
    except LocalEntryNotFoundError as error:
        if HF_HUB_OFFLINE or os.environ.get("VLLM_USE_MODELSCOPE"):
            return b""  # only the cache, or another hub, may be used
        # Without omniq.json, one of our models would be asked on the wrong scale.
        raise ValueError(
            f"{model}: the hub cannot be reached for {name}. Fix: try again, or set HF_HUB_OFFLINE=1"
        ) from error
    except (EntryNotFoundError, HFValidationError, OSError):
        return b""  # whatever loads the model reports the files that it lacks
    return path.read_bytes() if path.stat().st_size <= _LONGEST else b""


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def card_fields(card: str) -> dict[str, Any]:
    """Return the YAML between the ``---`` lines at the beginning of a card; empty if it is missing or invalid."""
    if not card.startswith("---"):
        return {}
    head, end, _ = card[3:].partition("\n---")
    try:
        found = yaml.safe_load(head) if end else {}
    except Exception:  # PyYAML raises many kinds of errors on values that do not fit their types
        return {}
    return found if isinstance(found, dict) else {}


def _tags(data: bytes) -> tuple[str, ...]:
    fields = card_fields(data.decode("utf-8", "replace"))
    found: list[str] = []
    for key in ("tags", "base_model"):
        value = fields.get(key)
        found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return tuple(one.lower() for one in found)
