"""Fit a RALI model from prepared files and an encoder: embed, compress, fit, save."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from omniq_verl.data.files import replace_text
from omniq_verl.data.row_refs import RowRef, check_learnable, list_rows
from omniq_verl.generation.model_folder import weights_mark
from omniq_verl.generation.provenance import data_record, provenance, record_start, write_provenance
from omniq_verl.rali.checkpoint import DTYPES, About, RaliModel, save_rali
from omniq_verl.rali.compress import Compression, bucketed_kmeans, fit_projection
from omniq_verl.rali.encoder import open_encoder
from omniq_verl.rali.fit import BasisScorer, Fit, fit_basis, trained_parameters
from omniq_verl.rali.pixels import embed, pixels_of
from omniq_verl.tasks import Scale, task_of


@dataclass(frozen=True)
class FitConfig:
    """Data, model and options of a fit."""

    data: Sequence[Path]
    """Parquet files of ``data_prep/``, all of one task and one scale."""
    out: Path
    model: str = "openai/clip-vit-large-patch14-336"
    """Hugging Face folder or name: ``out/model`` of an alignment, or an unaligned CLIP (case 1 of table 4)."""
    compression: Compression = field(default_factory=Compression)
    fit: Fit = field(default_factory=Fit)
    save_dtype: str = "float32"
    """Number type of the encoder's weights in the file; bfloat16 halves its size."""
    batch: int = 64
    """Images embedded at once."""
    device: str | None = None
    """None: a GPU if there is one."""
    limit: int | None = None
    """Use only the first N rows; None: all."""
    allow_pickle: bool = False
    """Load pickled weights, which can run arbitrary code."""

    def __post_init__(self) -> None:
        if self.save_dtype not in DTYPES or self.batch < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"save_dtype must be one of {', '.join(DTYPES)}, batch and limit >= 1; got {self}")


@dataclass(frozen=True)
class Fitted:
    """A fitted basis and its statistics."""

    scorer: BasisScorer
    about: dict[str, Any]
    """``images``, ``explained`` (share of variance that PCA keeps), ``vectors``, ``buckets_with_images``,
    ``trained_parameters``."""
    epochs: list[dict[str, float]]
    """The epochs of ``fit_basis``."""


def fit_files(config: FitConfig, console: Console) -> dict[str, Any]:
    """Fit, write ``rali.safetensors``, ``rali.json`` and ``fit.jsonl`` into ``config.out``; returns ``Fitted.about``.

    ``provenance.json`` records the conditions of the fit and is not part of the model.

    Raises:
        ValueError: no rows, rows that must not be trained on or that mix tasks or scales, an image or a model that
            cannot be opened, or too little data for the dimensions or buckets.
    """
    refs = list_rows(list(config.data))[: config.limit]
    task, scale = task_and_scale(refs)
    encoder = open_encoder(config.model, config.allow_pickle)
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    images = track(pixels_of(refs, encoder.preprocessing), "embedding", len(refs), console=console, transient=True)
    embeddings = embed(encoder.to(device), images, config.batch)
    labels = np.array([ref.info["score"] for ref in refs])
    found = compress_and_fit(embeddings, labels, scale, config.compression, config.fit)
    settings: dict[str, Any] = {"compression": asdict(config.compression), "fit": asdict(config.fit)}
    source = {"encoder": config.model, "data": [str(path) for path in config.data], **found.about, **settings}
    about = About(task, scale, source)
    save_rali(config.out, RaliModel(encoder.cpu(), found.scorer), about, DTYPES[config.save_dtype])
    replace_text(config.out / "fit.jsonl", "".join(json.dumps(line) + "\n" for line in found.epochs))
    data = data_record(refs, config.limit)
    model = {"model": config.model, "weights": weights_mark(Path(config.model).expanduser())}
    write_provenance(config.out, provenance(record_start(config.out), data, model, **settings))
    _print_summary(found, config, console)
    return found.about


def task_and_scale(refs: Sequence[RowRef]) -> tuple[str, Scale]:
    """The task and scale that all rows are labelled for.

    Raises:
        ValueError: no rows, more than one task or scale, or a row that must not be trained on.
    """
    check_learnable(refs)
    kinds = {(ref.info["task"], task_of(ref.info).score_scale): ref.file for ref in refs}
    if len(kinds) > 1:
        named = "; ".join(
            f"{task} on [{scale.low:g}, {scale.high:g}] in {file}" for (task, scale), file in kinds.items()
        )
        raise ValueError(f"a RALI model has one task and one scale, but these rows have {named}")
    return next(iter(kinds))


def compress_and_fit(
    embeddings_LD: np.ndarray, labels_L: np.ndarray, scale: Scale, compression: Compression, fit: Fit
) -> Fitted:
    """Fit a basis to embeddings and labels; deterministic for the same arguments on one machine.

    Raises:
        ValueError: see ``fit_projection`` and ``bucketed_kmeans``.
    """
    projection = fit_projection(embeddings_LD, compression)
    compressed = projection(embeddings_LD.astype(np.float64))
    basis = bucketed_kmeans(compressed, labels_L, scale.low, scale.high, compression)
    scorer = BasisScorer(projection, basis, fit.temperature)
    epochs = list(fit_basis(scorer, embeddings_LD, labels_L, fit))
    about = {
        "images": len(labels_L),
        "explained": projection.explained,
        "vectors": len(basis.scores_K),
        "buckets_with_images": int((basis.clusters_N > 0).sum()),
        "trained_parameters": sum(one.numel() for one in trained_parameters(scorer, fit)) if fit.epochs else 0,
    }
    return Fitted(scorer, about, epochs)


def _print_summary(found: Fitted, config: FitConfig, console: Console) -> None:
    about, ends = found.about, torch.aminmax(found.scorer.scores_K.detach())
    if about["vectors"] < config.compression.vectors:
        console.print(f"{about['vectors']} basis vectors, because there are no more distinct images", markup=False)
    console.print(
        f"{about['images']:,} images, {about['explained']:.1%} of their variance kept, {about['vectors']} basis vectors"
        f" in {about['buckets_with_images']} buckets with images",
        markup=False,
    )
    console.print(f"basis scores: {ends.min:.2f} to {ends.max:.2f}", markup=False)
    if found.epochs:
        first, last = found.epochs[0], found.epochs[-1]
        console.print(
            f"squared error: {first['loss']:.4f} in the first epoch, {last['loss']:.4f} in the last", markup=False
        )
    console.print(f"RALI: {config.out}", markup=False, soft_wrap=True)
