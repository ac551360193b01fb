"""A fitted RALI on the disk: ``rali.safetensors`` (weights) and ``rali.json`` (settings); nothing is pickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

import omniq_verl
from omniq_verl.data.files import atomic_path, replace_text
from omniq_verl.lfs import check_no_pointer
from omniq_verl.rali.compress import Basis, Projection
from omniq_verl.rali.encoder import VISION, ImageEncoder, check_vision_config, plain_config
from omniq_verl.rali.fit import BasisScorer
from omniq_verl.rali.preprocessing import Preprocessing
from omniq_verl.tasks import Scale, find_task

WEIGHTS, CONFIG = "rali.safetensors", "rali.json"
FORMAT, VERSION = "omniq_rali", 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Of an encoder, by name."""
_ENCODER, _BASIS = "encoder.", "basis."
_LONGEST = 2**20
"""Bytes of a configuration; one has a few thousand."""


class BadRaliFile(ValueError):
    """A folder that holds no RALI, or one that does not fit together."""


class RaliModel(nn.Module):
    """Pixels ``[B, side, side, 3]`` of uint8 -> scores ``[B]``."""

    def __init__(self, encoder: ImageEncoder, basis: BasisScorer):
        super().__init__()
        self.encoder, self.basis = encoder, basis

    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        return self.basis(self.encoder(pixels_BHWC))


@dataclass(frozen=True)
class About:
    """What a RALI was fitted for."""

    task: str
    scale: Scale
    """Of the labels."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from: encoder, data, settings."""

    def __post_init__(self) -> None:
        find_task(self.task)


def save_rali(folder: Path, model: RaliModel, about: About, dtype: torch.dtype = torch.float32) -> None:
    """Write both files; each is there as a whole or not at all, the weights first.

    Args:
        folder: made if it is not there; what was in it is replaced.
        model: encoder and basis.
        about: what it was fitted for.
        dtype: of the encoder's weights in the file; the basis is float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)  # it would name other weights until it is replaced
    tensors = {f"{_ENCODER}{name}": values.to(dtype) for name, values in model.encoder.vision.state_dict().items()}
    tensors |= {f"{_BASIS}{name}": values for name, values in model.basis.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as unfinished:
        save_file({name: values.detach().cpu().contiguous() for name, values in tensors.items()}, unfinished)
    replace_text(folder / CONFIG, json.dumps(_config(model, about), indent=2) + "\n")


def _config(model: RaliModel, about: About) -> dict[str, Any]:
    vectors, size = model.basis.vectors_KM.shape
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "task": about.task,
        "scale": asdict(about.scale),
        "encoder": {"kind": model.encoder.kind, "config": plain_config(model.encoder)},
        "preprocessing": asdict(model.encoder.preprocessing),
        "basis": {"vectors": vectors, "dimensions": size, "temperature": model.basis.temperature},
        "source": dict(about.source),
    }


def load_rali(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[RaliModel, About]:
    """Read both files.

    Args:
        folder: of ``save_rali``.
        dtype: of the encoder; the basis is float32.

    Raises:
        BadFile: one of them is a Git LFS pointer.
        BadRaliFile: one of them is missing, cut short or of another version; a tensor is missing, unknown, of another
            shape than the configuration says, or holds a number that is not finite.
    """
    folder = folder.expanduser()
    for name in (CONFIG, WEIGHTS):
        check_no_pointer(folder / name)
    config = _read_config(folder / CONFIG)
    try:
        about = About(config["task"], Scale(**config["scale"]), dict(config["source"]))
        preprocessing = Preprocessing(**{**config["preprocessing"], **_triples(config["preprocessing"])})
        vision_config = check_vision_config(config["encoder"]["kind"], config["encoder"]["config"], preprocessing)
        model = _empty(config, preprocessing, vision_config)
        return _fill(model, _read_weights(folder / WEIGHTS, model), vision_config, dtype).eval(), about
    except BadRaliFile:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadRaliFile(f"{folder / CONFIG} is not sound ({type(error).__name__}: {error})") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LONGEST:
            raise BadRaliFile(f"{path} has more than {_LONGEST:,} bytes; it is no configuration of a RALI")
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise BadRaliFile(
            f"{path} cannot be read ({error.strerror}). Fix: give a folder of `omniq rali fit`"
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadRaliFile):
            raise
        raise BadRaliFile(f"{path} is not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BadRaliFile(f"{path} is no configuration of a RALI (its format is not {FORMAT!r})")
    if config.get("version") != VERSION:
        raise BadRaliFile(f"{path} has version {config.get('version')!r}; this package reads {VERSION}")
    return config


def _triples(settings: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(map(float, settings[name])) for name in ("mean", "std")}


def _empty(config: Mapping[str, Any], preprocessing: Preprocessing, vision_config: Any) -> RaliModel:
    """The model without weights, whatever sizes are claimed."""
    kind, sizes = config["encoder"]["kind"], config["basis"]
    vectors, dimensions = int(sizes["vectors"]), int(sizes["dimensions"])
    with torch.device("meta"):
        vision = VISION[kind][1](vision_config)
    encoder = ImageEncoder(kind, vision, preprocessing)
    # Views of one number: they take no memory, and are replaced.
    zeros = {
        shape: np.broadcast_to(np.float32(0), shape) for shape in ((encoder.size, dimensions), (vectors, dimensions))
    }
    with torch.device("meta"):
        projection = Projection(np.broadcast_to(0.0, encoder.size), zeros[encoder.size, dimensions], 1.0)
        basis = Basis(zeros[vectors, dimensions], np.broadcast_to(0.0, vectors), np.array([vectors]))
        return RaliModel(encoder, BasisScorer(projection, basis, float(sizes["temperature"])))


def _read_weights(path: Path, model: RaliModel) -> dict[str, torch.Tensor]:
    expected = {f"{_ENCODER}{name}": one.shape for name, one in model.encoder.vision.state_dict().items()}
    expected |= {f"{_BASIS}{name}": one.shape for name, one in model.basis.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if different := sorted(name for name in expected.keys() | found if expected.get(name) != found.get(name)):
                name = different[0]
                raise BadRaliFile(
                    f"{path}: {len(different)} tensors do not fit {CONFIG}, e.g. {name}: {_shape(found.get(name))}"
                    f" there, {_shape(expected.get(name))} expected"
                )
            tensors = {name: file.get_tensor(name) for name in found}
    except (OSError, SafetensorError) as error:
        raise BadRaliFile(f"{path} cannot be read ({error})") from error
    for name, values in tensors.items():
        if not values.is_floating_point() or not torch.isfinite(values).all():
            raise BadRaliFile(f"{path}: {name} holds what is no finite number")
    return tensors


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(list(shape))


def _fill(model: RaliModel, tensors: Mapping[str, torch.Tensor], vision_config: Any, dtype: torch.dtype) -> RaliModel:
    kind = model.encoder.kind
    weights = {name.removeprefix(_ENCODER): one.to(dtype) for name, one in tensors.items() if name.startswith(_ENCODER)}
    vision = VISION[kind][1].from_pretrained(
        None, config=vision_config, state_dict=weights, dtype=dtype, attn_implementation="sdpa"
    )
    basis = {name.removeprefix(_BASIS): one.float() for name, one in tensors.items() if name.startswith(_BASIS)}
    model.basis.load_state_dict(basis, assign=True)
    return RaliModel(ImageEncoder(kind, vision, model.encoder.preprocessing), model.basis)


def weights_digest(folder: Path) -> str:
    """A short name of what both files hold."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (CONFIG, WEIGHTS):
        with open(folder / name, "rb") as file:
            while part := file.read(2**24):
                digest.update(part)
    return digest.hexdigest()
