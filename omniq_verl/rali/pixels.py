"""Turn images of prepared rows into pixels for an encoder; decodes and resizes in threads."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from xxhash import xxh3_128

from omniq_verl.data.files import atomic_path, file_digest
from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes
from omniq_verl.rali.encoder import ImageEncoder
from omniq_verl.rali.preprocessing import Preprocessing

_AT_ONCE = 128
"""Rows whose image files are held in memory at once."""


def pixels_of(refs: Sequence[RowRef], preprocessing: Preprocessing) -> Iterator[np.ndarray]:
    """Pixels ``[side, side, 3]`` of each row's image, in order.

    Raises:
        ValueError: a row or its image file was removed or changed since it was prepared.
    """
    rows = _rows(refs)
    with ThreadPoolExecutor(min(16, (os.cpu_count() or 1) + 1)) as pool:
        for first in range(0, len(refs), _AT_ONCE):
            some = refs[first : first + _AT_ONCE]
            yield from pool.map(lambda ref, row: _pixels(ref, row, preprocessing), some, islice(rows, len(some)))


def _rows(refs: Sequence[RowRef]) -> Iterator[dict[str, Any]]:
    try:
        yield from RowReader(["images", "extra_info"]).read(refs)
    except (IndexError, ValueError) as error:
        files = ", ".join(sorted({ref.file for ref in refs}))
        raise ValueError(
            f"{files}: rows are missing, so the file has changed. Fix: run omniq rali pairs again"
        ) from error


def _pixels(ref: RowRef, row: dict[str, Any], preprocessing: Preprocessing) -> np.ndarray:
    if row["extra_info"]["id"] != ref.info["id"]:
        raise ValueError(
            f"{ref.file} has changed: {ref.key} is not in its row any more. Fix: run omniq rali pairs again"
        )
    try:
        return preprocessing(image_bytes(row)[0])
    except Exception as error:  # Pillow's decoders raise all kinds of errors
        raise ValueError(f"{ref.key} of {ref.file}: its image cannot be read ({error})") from error


def cached_pixels(refs: Sequence[RowRef], preprocessing: Preprocessing, folder: Path) -> np.ndarray:
    """The same as one array ``[images, side, side, 3]`` in a memory-mapped file of the folder, created if missing.

    The file's name depends on the rows, the data files and the preprocessing. Files of other pixels are deleted. The
    file is uncompressed: 2.4 GB for KonIQ's 7,058 images at 336 pixels.
    """
    path, shape = _cache(refs, preprocessing, folder), (len(refs), preprocessing.side, preprocessing.side, 3)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        remove_pixels(folder)
        with atomic_path(path) as unfinished:
            array = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
            for number, pixels in enumerate(pixels_of(refs, preprocessing)):
                array[number] = pixels
            array.flush()
    return np.load(path, mmap_mode="r")


def remove_pixels(folder: Path) -> None:
    """Delete the files of ``cached_pixels`` in a folder, which are large; also unfinished ones."""
    for path in folder.glob("pixels*.npy*"):
        path.unlink()


def _cache(refs: Sequence[RowRef], preprocessing: Preprocessing, folder: Path) -> Path:
    digest = xxh3_128(repr(preprocessing).encode())
    try:
        files = {file: file_digest(Path(file)) for file in sorted({ref.file for ref in refs})}
    except OSError as error:
        raise ValueError(
            f"{error.filename} cannot be read ({error.strerror}). Fix: run omniq rali pairs again"
        ) from error
    for ref in refs:
        digest.update(f"{ref.key}\t{files[ref.file]}\t{ref.group}\t{ref.number}\n".encode(errors="surrogatepass"))
    return folder / f"pixels-{digest.hexdigest()}.npy"


def embed(encoder: ImageEncoder, images: Iterable[np.ndarray], batch: int = 64) -> np.ndarray:
    """Embeddings ``[images, D]``, float32; computed on the encoder's device.

    Args:
        encoder: maps pixels to embeddings.
        images: from ``pixels_of``.
        batch: images at once.
    """
    device, found, images = next(encoder.parameters()).device, [], iter(images)
    with torch.inference_mode():
        while some := list(islice(images, batch)):
            found.append(encoder(torch.from_numpy(np.stack(some)).to(device)).cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, encoder.size), np.float32)
