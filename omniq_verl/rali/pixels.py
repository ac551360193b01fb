"""Images of prepared rows -> pixels for an encoder: decoded and resized once, by threads."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omniq_verl.data.files import atomic_path
from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes
from omniq_verl.rali.encoder import ImageEncoder
from omniq_verl.rali.preprocessing import Preprocessing

_AT_ONCE = 128
"""Rows whose image files are held in memory."""


def pixels_of(refs: Sequence[RowRef], preprocessing: Preprocessing) -> Iterator[np.ndarray]:
    """Pixels ``[side, side, 3]`` of each row's image, in their order.

    Raises:
        ValueError: a row, or the file of its image, has gone or changed since it was prepared.
    """
    rows = _rows(refs)
    with ThreadPoolExecutor(min(16, (os.cpu_count() or 1) + 1)) as pool:
        for first in range(0, len(refs), _AT_ONCE):
            some = refs[first : first + _AT_ONCE]
            yield from pool.map(lambda pair: _pixels(*pair, preprocessing), zip(some, islice(rows, len(some))))  # noqa: B905


def _rows(refs: Sequence[RowRef]) -> Iterator[dict[str, Any]]:
    try:
        yield from RowReader(["images", "extra_info"]).read(refs)
    except (IndexError, ValueError) as error:
        files = ", ".join(sorted({ref.file for ref in refs}))
        raise ValueError(f"{files}: not what it was, as rows are missing. Fix: make pairs again") from error


def _pixels(ref: RowRef, row: dict[str, Any], preprocessing: Preprocessing) -> np.ndarray:
    if row["extra_info"]["id"] != ref.info["id"]:
        raise ValueError(f"{ref.file} is not what it was: {ref.key} is no longer in its row. Fix: make pairs again")
    try:
        return preprocessing(image_bytes(row)[0])
    except Exception as error:  # Pillow's decoders raise errors of every kind
        raise ValueError(f"{ref.key} of {ref.file}: its image cannot be read ({error})") from error


def cached_pixels(refs: Sequence[RowRef], preprocessing: Preprocessing, path: Path) -> np.ndarray:
    """The same as one array ``[images, side, side, 3]`` on the disk, made where it is not there.

    It is as large as it says: 2.4 GB for KonIQ's 7,058 images at 336 pixels.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (len(refs), preprocessing.side, preprocessing.side, 3)
        with atomic_path(path) as unfinished:
            array = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
            for number, pixels in enumerate(pixels_of(refs, preprocessing)):
                array[number] = pixels
            array.flush()
    return np.load(path, mmap_mode="r")


def embed(encoder: ImageEncoder, images: Iterator[np.ndarray], batch: int = 64) -> np.ndarray:
    """Embeddings ``[images, D]``, float32, on the device the encoder is on.

    Args:
        encoder: pixels in, embeddings out.
        images: of ``pixels_of``.
        batch: images at a time.
    """
    device, found, images = next(encoder.parameters()).device, [], iter(images)
    with torch.inference_mode():
        while some := list(islice(images, batch)):
            found.append(encoder(torch.from_numpy(np.stack(some)).to(device)).cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, encoder.size), np.float32)
