"""The official release of RALI (ByteDance/Q-Insight, folder RALI) -> a RALI of this package, without its pickles.

The release has ``ckpt.pt`` (a state dict), ``pca.pkl`` (joblib), ``basis.npz`` and ``best/`` (a CLIP). Its scorer,
in src/eval/demo_rali_score.py of bytedance/Q-Insight at e08e378, is

    z = C ((E - mean) / |scale|),  w = softmax(cos(z, prototypes) * logit_scale),  score = w . proto_scores

with E the projected image features of CLIP, not normalised. ``mean`` is no part of the state dict, only of the PCA;
all else of the PCA and the basis is replaced by what the state dict holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPVisionModelWithProjection

from omniq_verl.rali.checkpoint import About, RaliModel, save_rali
from omniq_verl.rali.compress import Basis, Projection
from omniq_verl.rali.encoder import ImageEncoder, open_preprocessing
from omniq_verl.rali.fit import BasisScorer
from omniq_verl.rali.joblib_arrays import read_pca
from omniq_verl.tasks import Scale

_STATE = {"pca_scale": 1, "pca_components": 2, "prototypes": 2, "proto_scores": 1, "logit_scale": 0}
"""Tensors of the scorer, with their number of dimensions."""


class BadRelease(ValueError):
    """A folder that is not the official release."""


@dataclass(frozen=True)
class Release:
    """What the files hold."""

    clip: Mapping[str, torch.Tensor]
    scorer: Mapping[str, np.ndarray]
    mean: np.ndarray


def import_release(folder: Path, out: Path, scale: Scale, task: str = "technical") -> RaliModel:
    """Convert the release and write it to ``out``; see ``files.save_rali``.

    Args:
        folder: with the four files.
        out: made if it is not there.
        scale: of its scores: the release does not say it.
        task: what they are scores of.

    Raises:
        BadRelease: a file is missing, is of another kind, or would run code when it is loaded.
    """
    release = read_release(folder)
    model = RaliModel(_encoder(folder / "best", release), _scorer(release))
    low, high = (float(end) for end in (release.scorer["proto_scores"].min(), release.scorer["proto_scores"].max()))
    if high < scale.low or low > scale.high:
        raise BadRelease(
            f"{folder}: its basis scores run from {low:.3g} to {high:.3g}, outside the scale {scale.low:g}-"
            f"{scale.high:g}. Fix: give their scale"
        )
    source = {"encoder": "official release of RALI", "release": str(folder), "basis_scores": [low, high]}
    save_rali(out, model.eval(), About(task, scale, source))
    return model


def read_scale(text: str) -> Scale:
    """A scale as LOW-HIGH, e.g. ``0-1``.

    Raises:
        BadRelease: it is none.
    """
    try:
        low, high = (float(end) for end in text.split("-"))
        return Scale(low, high)
    except ValueError:
        raise BadRelease(f"{text!r} is not a scale. Fix: write LOW-HIGH, e.g. 1-5") from None


def read_release(folder: Path) -> Release:
    """Read the files as numbers alone.

    Raises:
        BadRelease: see ``import_release``.
    """
    state = _state(folder / "ckpt.pt")
    scorer = {}
    for name, dimensions in _STATE.items():
        found = state.get(f"scorer.{name}")
        if found is None or found.dim() != dimensions or not torch.isfinite(found).all():
            raise BadRelease(f"{folder / 'ckpt.pt'} has no valid scorer.{name}. Fix: download the release again")
        scorer[name] = found.double().numpy()
    mean = np.asarray(read_pca(folder / "pca.pkl").get("mean_", np.zeros(scorer["pca_components"].shape[1])), float)
    if mean.shape != scorer["pca_scale"].shape:
        raise BadRelease(f"{folder / 'pca.pkl'} has the shape {mean.shape}, ckpt.pt {scorer['pca_scale'].shape}")
    clip = {name.removeprefix("clip."): one for name, one in state.items() if name.startswith("clip.")}
    return Release(clip, scorer, mean)


def _state(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadRelease(f"{path} cannot be read ({error.strerror}). Fix: download the release again") from error
    except Exception as error:  # whatever the reader meets in a file that is no state dict
        raise BadRelease(
            f"{path} holds more than tensors, or is broken ({type(error).__name__}), and is not loaded. Fix: take the"
            " file of the official release"
        ) from error
    state = found.get("state_dict") if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise BadRelease(f"{path} has no state_dict of tensors. Fix: take the file of the official release")
    return state


def _encoder(folder: Path, release: Release) -> ImageEncoder:
    preprocessing = open_preprocessing(str(folder))
    config: Any = CLIPConfig.from_pretrained(folder)
    config.vision_config.projection_dim = config.projection_dim
    vision = CLIPVisionModelWithProjection(config.vision_config)
    weights = {name: release.clip[name] for name in vision.state_dict() if name in release.clip}
    if missing := sorted(vision.state_dict().keys() - weights.keys()):
        raise BadRelease(f"{folder.parent / 'ckpt.pt'} has no clip.{missing[0]}. Fix: download the release again")
    vision.load_state_dict(weights)
    return ImageEncoder("clip", vision.float().eval(), preprocessing, normalize=False)


def _scorer(release: Release) -> BasisScorer:
    numbers = release.scorer
    matrix = numbers["pca_components"].T / np.abs(numbers["pca_scale"])[:, None]
    basis = Basis(numbers["prototypes"], numbers["proto_scores"], np.array([len(numbers["prototypes"])]))
    # The least logit_scale that the authors' code divides by.
    temperature = 1.0 / max(float(numbers["logit_scale"]), 1e-6)
    return BasisScorer(Projection(release.mean, matrix, 1.0), basis, temperature)
