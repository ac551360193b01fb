"""Images in any form a caller has them -> the bytes, or pixels, a model is shown, after the image rules of training."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from omniq_verl.data.images import MAX_BYTES, BadImage, check_image, decode_image, read_image
from omniq_verl.data.names import shown_name

_TIMEOUT = 30  # seconds without a byte


def name_of(source: Any, number: int) -> str:
    """How a result names its image: the path or address as ``data.names`` writes it, or its place in the call."""
    return shown_name(source) if isinstance(source, (str, Path)) else f"image {number}"


def is_one(images: Any) -> bool:
    """Is it a single image, and not several?"""
    return isinstance(images, (str, Path, bytes, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim <= 3)


def all_or_one(images: Any, batches: Callable[[Sequence[Any]], Iterable[list[Any]]]) -> Any:
    """What is found of each image; of a single image its own, and not a list.

    Args:
        images: a single one, or several.
        batches: called with several; gives what is found of them, some at a time.
    """
    one = is_one(images)
    found = [result for batch in batches([images] if one else list(images)) for result in batch]
    return found[0] if one else found


def prompts_for(prompt: str | Sequence[str] | None, images: int) -> list[str | None]:
    """A prompt, or None, for each of so many images.

    Raises:
        ValueError: they are for another number of images.
    """
    prompts = [prompt] * images if prompt is None or isinstance(prompt, str) else list(prompt)
    if len(prompts) != images:
        raise ValueError(f"{len(prompts)} prompts for {images} images; give one for all, or one each")
    return prompts


def load_source(source: Any, allow_urls: bool = False) -> bytes:
    """The bytes of one image.

    Args:
        source: path, bytes of a file, PIL image, or array ``[H, W]``, ``[H, W, 3]``, ``[H, W, 4]`` of uint8; an address
            (http, https) where ``allow_urls``.
        allow_urls: fetch addresses.

    Raises:
        BadImage: it is none, or one the image rules refuse; whatever is wrong with it, and nothing else.
    """
    return check_image(_bytes_of(source, allow_urls), decode=True)


def decode_source(source: Any, allow_urls: bool = False) -> Image.Image:
    """As ``load_source``, but the picture, in RGB, that those bytes show; decoded once."""
    return decode_image(_bytes_of(source, allow_urls))


def _bytes_of(source: Any, allow_urls: bool) -> bytes:
    if isinstance(source, str) and (scheme := urlsplit(source).scheme.lower()) in ("http", "https"):
        if not allow_urls:
            raise BadImage(f"an address ({scheme}://...); addresses are fetched only where asked for (allow_urls=True)")
        return _fetch(source)
    if isinstance(source, (str, Path)):
        return read_image(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _within_limits(bytes(source))
    if isinstance(source, Image.Image):
        return _within_limits(_png(source))
    if isinstance(source, np.ndarray):
        return _within_limits(_png(_from_array(source)))
    raise BadImage(f"neither path, bytes, PIL image nor array, but {type(source).__name__}")


def _within_limits(data: bytes) -> bytes:
    if not data:
        raise BadImage("no bytes")
    if len(data) > MAX_BYTES:
        raise BadImage(f"{len(data):,} bytes, more than {MAX_BYTES:,}")
    return data


def _from_array(pixels: np.ndarray) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise BadImage(
            f"an array of {pixels.dtype} and shape {shape}; images are uint8, [H, W], [H, W, 3] or [H, W, 4]"
        )
    return Image.fromarray(pixels)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, "PNG", compress_level=1)  # it is read back at once
    except Exception as error:  # modes that PNG does not have, files that were closed
        raise BadImage(f"a PIL image that cannot be read ({error})") from None
    return buffer.getvalue()


def _fetch(address: str) -> bytes:
    import requests

    try:
        # It speaks http and https only, so that no redirect leads to a file.
        with requests.get(address, timeout=_TIMEOUT, stream=True) as answer:
            answer.raise_for_status()
            data = answer.raw.read(MAX_BYTES + 1, decode_content=True)
    except (requests.RequestException, OSError, ValueError) as error:
        raise BadImage(f"it cannot be fetched ({error})") from None
    return _within_limits(data)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and all files of the folders, in the order of their names.

    Files and folders in a folder whose names begin with a dot are left out.

    Raises:
        ValueError: there is no such file or folder, or no file in a folder.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        inside = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file.relative_to(path))]
        if path.is_dir() and not inside:
            raise ValueError(f"{path}: no files in it")
        found += inside if path.is_dir() else [path]
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
