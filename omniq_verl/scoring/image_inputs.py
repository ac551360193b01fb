"""Images in any form a caller has them -> the bytes, or pixels, a model is shown, after the image rules of training."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from omniq_verl.data.arrays import ValueRange, image_from, is_numbers
from omniq_verl.data.base64_text import BadBase64, decode_base64, is_data_url
from omniq_verl.data.images import MAX_BYTES, BadImage, check_image, decode_image, read_image
from omniq_verl.data.names import shown_name
from omniq_verl.data.pictures import check_picture, decode_picture

OneImage: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image
"""Types of a single image. An array or a tensor may be one image or a batch, which its type does not tell."""
Images: TypeAlias = list[Any] | tuple[Any, ...] | Iterator[Any]
Tasks: TypeAlias = list[str] | tuple[str, ...]
_TIMEOUT = 30  # seconds without a byte
_ADDRESS = re.compile(r"(https?):", re.IGNORECASE)


def name_of(source: Any, number: int) -> str:
    """How a result names its image: the path or address as ``data.names`` writes it, or its number in the call."""
    return shown_name(source) if has_name(source) else f"image {number}"


def has_name(source: Any) -> bool:
    """Is it a path or an address?"""
    return isinstance(source, os.PathLike) or (isinstance(source, str) and not is_data_url(source))


def is_one(images: Any) -> bool:
    """Is it a single image, and not several?"""
    if is_numbers(images):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def listed(images: Any) -> list[Any]:
    """Several images, from whatever gives them one by one: a list, a generator, a column of a table, a batch.

    Args:
        images: an array or tensor of four axes is a batch, the first axis its images.

    Raises:
        TypeError: it gives none, or not in a certain order; a whole table gives the names of its columns.
    """
    if is_one(images):
        raise TypeError(f"images: one image ({_kind(images)}) where a list of them is expected. Fix: pass [image]")
    several = isinstance(images, Iterable) and not isinstance(images, (Mapping, set, frozenset))
    if not several or hasattr(images, "read") or hasattr(images, "columns") or hasattr(images, "column_names"):
        raise TypeError(
            f"images: one image, or a list of images, is expected, not {_kind(images)}. Fix: of a table pass a column,"
            " such as table['image']; of an open file its path or bytes"
        )
    return list(images)


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def all_or_one(images: Any, batches: Callable[[Sequence[Any]], Iterable[list[Any]]]) -> Any:
    """What is found of each image; of a single image its own, and not a list.

    Args:
        images: a single one, or several.
        batches: called with several; gives what is found of them, some at a time.

    Raises:
        TypeError: it is neither (``listed``).
    """
    one = is_one(images)
    found = [result for batch in batches([images] if one else listed(images)) for result in batch]
    return found[0] if one else found


def prompts_for(prompt: str | Sequence[str] | None, images: int) -> list[str | None]:
    """A prompt, or None, for each of so many images.

    Raises:
        ValueError: they are for another number of images, or one is no text, such as a chat's turns or a table's NaN.
    """
    prompts = [prompt] * images if prompt is None or isinstance(prompt, str) else list(prompt)
    if len(prompts) != images:
        raise ValueError(f"{len(prompts)} prompts for {images} images; give one for all, or one each")
    for number, one in enumerate(prompts):
        if not isinstance(one, str | None):
            raise ValueError(f"prompts[{number}] is {one!r:.60}: no text. Fix: pass the texts of the images")
    return prompts


def load_source(source: Any, allow_urls: bool = False, value_range: ValueRange | None = None) -> bytes:
    """The bytes of one image.

    Args:
        source: path, data URL, bytes of a file, PIL image, or array or tensor (see ``omniq_verl.data.arrays`` for their
            shapes and values); an address (http, https) where ``allow_urls``.
        allow_urls: fetch addresses.
        value_range: the floats that are black and white in an array or tensor; None: 0 and 1 in a tensor.

    Raises:
        BadImage: it is none, or the image rules reject it; whatever is wrong with it, and nothing else.
    """
    found = _found(source, allow_urls, value_range)
    return check_image(found, decode=True) if isinstance(found, bytes) else check_picture(found)


def decode_source(source: Any, allow_urls: bool = False, value_range: ValueRange | None = None) -> Image.Image:
    """As ``load_source``, but the picture, in RGB, that those bytes show; decoded once."""
    found = _found(source, allow_urls, value_range)
    return decode_image(found) if isinstance(found, bytes) else decode_picture(found)


def digest_of(data: bytes, sampled: bool) -> str:
    """What the seeds of an image's answers are made from.

    Sampled answers depend on their seed, so that it comes from the pixels: a JPEG file and its PIL image have different
    bytes. Greedy answers have no use for a seed, and are not worth decoding the image once more.
    """
    digest = hashlib.blake2b(digest_size=16)
    if sampled:
        picture = decode_image(data)
        digest.update(repr(picture.size).encode())
        digest.update(picture.tobytes())
    else:
        digest.update(data)
    return digest.hexdigest()


def _found(source: Any, allow_urls: bool, value_range: ValueRange | None) -> bytes | Image.Image:
    """The bytes of a file, or a PIL image."""
    if isinstance(source, str):
        return _from_text(source, allow_urls)
    if isinstance(source, os.PathLike):
        return read_image(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _within_limits(bytes(source))
    if isinstance(source, Image.Image):
        return source
    if is_numbers(source):
        return image_from(source, value_range)
    raise BadImage(f"neither path, bytes, PIL image, array nor tensor, but {type(source).__name__}")


def _from_text(text: str, allow_urls: bool) -> bytes:
    if is_data_url(text):
        try:
            return _within_limits(decode_base64(text))
        except BadBase64 as error:
            raise BadImage(f"no base64: {error}") from None
    if found := _ADDRESS.match(text):
        if not allow_urls:
            scheme = found[1].lower()
            raise BadImage(f"an address ({scheme}://...); addresses are fetched only where asked for (allow_urls=True)")
        return _fetch(text)
    return read_image(Path(text))


def _within_limits(data: bytes) -> bytes:
    if not data:
        raise BadImage("no bytes")
    if len(data) > MAX_BYTES:
        raise BadImage(f"{len(data):,} bytes, more than {MAX_BYTES:,}")
    return data


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
