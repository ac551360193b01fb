"""Warn about rows that can be measured but make figures doubtful: training rows and repeated images."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from xxhash import xxh3_128
from yaml import YAMLError

from omniq_verl.data.images import BadImage
from omniq_verl.data.row_refs import RowReader, RowRef, image_sources

_TRAIN = ("train", "training")


def training_rows(refs: Sequence[RowRef], learned_from: Iterable[str] = ()) -> list[str]:
    """Warn if rows belong to a training split or to files that the model was trained on.

    Args:
        refs: the rows.
        learned_from: the model's training files, if known.
    """
    files = set(learned_from)
    found = [ref for ref in refs if str(ref.info["split"]).strip().lower() in _TRAIN or ref.file in files]
    if not found:
        return []
    return [
        f"{len(found)} of {len(refs)} rows are training rows (the first is {found[0].key} of {found[0].file}):"
        " figures on rows the model was trained on do not show how it handles new images"
    ]


def trained_on(model: str | Path) -> list[str]:
    """Return the training files of the run that a model comes from, as recorded by its recipe; empty if unknown.

    Args:
        model: folder of the model, ``RUN/global_step_N/...``; the run's settings are in ``RUN/hydra/config.yaml``.
    """
    for folder in Path(model).expanduser().resolve().parents[:3]:
        path = folder / "hydra" / "config.yaml"
        if path.is_file():
            try:
                files = OmegaConf.select(OmegaConf.load(path), "data.train_files")
            except (OmegaConfBaseException, YAMLError, OSError):
                return []
            named = [files] if isinstance(files, str) else list(files or ())
            return [str(Path(file).expanduser().resolve()) for file in named]
    return []


def repeated_images(refs: Sequence[RowRef]) -> list[str]:
    """Warn if several rows of a task show the same image, which then counts once per row.

    Embedded images are compared by their bytes, others by their names.
    """
    first: dict[tuple[str, str], RowRef] = {}
    again: list[tuple[RowRef, RowRef]] = []
    for ref, row in zip(refs, RowReader(["images"]).read(refs), strict=True):
        try:
            sources = image_sources(row)
        except BadImage:  # counted later, with the answers
            continue
        parts = [one if isinstance(one, bytes) else str(one).encode(errors="surrogateescape") for one in sources]
        key = ref.info["task"], xxh3_128(b"".join(xxh3_128(part).digest() for part in parts)).hexdigest()
        if (other := first.setdefault(key, ref)) is not ref:
            again.append((other, ref))
    if not again:
        return []
    return [
        f"{len(again)} of {len(refs)} rows show an image that another row of their task also shows, e.g."
        f" {again[0][1].key} and {again[0][0].key}: such an image counts more than once"
    ]


def warn(text: str, console: Console) -> None:
    """Print a warning on one line."""
    console.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
