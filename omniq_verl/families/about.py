"""What a model folder or a repository at a hub says of itself: ``config.json``, its card, and our ``omniq.json``."""

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
"""Bytes of a file that are read; all three are far shorter."""


@dataclass(frozen=True)
class About:
    """Facts that tell which family a model belongs to."""

    name: str
    """Path or name at a hub."""
    model_type: str | None = None
    tags: tuple[str, ...] = ()
    """Tags of the card in lower case, with the names of its base models."""
    ours: Mapping[str, Any] = field(default_factory=dict)
    """What ``omniq.json`` holds."""

    @property
    def marks(self) -> str:
        """All texts a family's mark may be in, in small letters."""
        return " ".join((own_name(self.name).lower(), *self.tags))


def own_name(model: str) -> str:
    """What a model is called: the name at a hub, or the last part of a folder's path.

    The folders above are the user's and say nothing (``omniq_verl/models/a``, ``runs/q_insight/huggingface``), except
    in the cache of a hub, where one of them has the name.

    Args:
        model: folder, or name at a hub or of an endpoint.
    """
    folder = Path(model).expanduser()
    if not (folder.is_absolute() or folder.is_dir()):
        return model
    parts = list(Path(os.path.abspath(folder)).parts)
    if len(parts) > 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return parts[-1]


def about_model(model: str, subfolder: str | None = None) -> About:
    """Read the three files, as far as they are there.

    Args:
        model: folder, or name at a hub; of the latter only these files are downloaded.
        subfolder: where ``config.json`` may lie instead.

    Raises:
        ValueError: there is no such folder or model, or the hub cannot be reached and its cache lacks the model.
    """
    read = _from_folder
    if not Path(model).expanduser().is_dir():
        check_hub_name(model)  # within seconds; each file would be tried for as long again
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
            return b""  # what the cache, or another hub, has is all there is
        # Without omniq.json a model of ours would be asked on another scale.
        raise ValueError(
            f"{model}: the hub cannot be reached for {name}. Fix: try again, or set HF_HUB_OFFLINE=1"
        ) from error
    except (EntryNotFoundError, HFValidationError, OSError):
        return b""  # what a model needs and lacks is found out, and said, by whatever loads it
    return path.read_bytes() if path.stat().st_size <= _LONGEST else b""


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def card_fields(card: str) -> dict[str, Any]:
    """The YAML between the lines ``---`` at the beginning of a card; empty where there is none that can be read."""
    if not card.startswith("---"):
        return {}
    head, end, _ = card[3:].partition("\n---")
    try:
        found = yaml.safe_load(head) if end else {}
    except Exception:  # PyYAML raises errors of every kind on values that its types do not allow
        return {}
    return found if isinstance(found, dict) else {}


def _tags(data: bytes) -> tuple[str, ...]:
    fields = card_fields(data.decode("utf-8", "replace"))
    found: list[str] = []
    for key in ("tags", "base_model"):
        value = fields.get(key)
        found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return tuple(one.lower() for one in found)
