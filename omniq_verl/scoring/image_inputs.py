"""Convert images of any type to the bytes or pixels that a model sees, using the image rules of training."""

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
"""Types of a single image. An array or a tensor can be one image or a batch; its type does not tell which."""
Images: TypeAlias = list[Any] | tuple[Any, ...] | Iterator[Any]
Tasks: TypeAlias = list[str] | tuple[str, ...]
_TIMEOUT = 30  # seconds to wait for the next byte
_ADDRESS = re.compile(r"(https?):", re.IGNORECASE)


def name_of(source: Any, number: int) -> str:
    """Return the name of an image in results: its path or URL as ``data.names`` writes it, or its index in the call."""
    return shown_name(source) if has_name(source) else f"image {number}"


def has_name(source: Any) -> bool:
    """True for a path or a URL."""
    return isinstance(source, os.PathLike) or (isinstance(source, str) and not is_data_url(source))


def is_one(images: Any) -> bool:
    """True for a single image, False for several."""
    if is_numbers(images):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def stored_image(source: Any) -> Any:
    """Return the content or the path of an image that a Hugging Face table stores as ``{"bytes": ..., "path": ...}``.

    ``datasets.Image(decode=False)`` and ``pandas.read_parquet`` give such objects; anything else is returned unchanged.
    """
    known = isinstance(source, Mapping) and bool({"bytes", "path"} & source.keys())
    return (source.get("bytes") or source.get("path")) if known else source


def listed(images: Any) -> list[Any]:
    """List the images of any ordered iterable: a list, a generator, a table column, a batch.

    Args:
        images: the iterable. A four-dimensional array or tensor is a batch; its first axis runs over the images.

    Raises:
        TypeError: ``images`` is not iterable or has no fixed order, or it is a whole table, which would yield its
            column names.
    """
    if is_one(images):
        raise TypeError(f"expected a list of images, got one image ({_kind(images)}). Fix: pass [image]")
    several = isinstance(images, Iterable) and not isinstance(images, (Mapping, set, frozenset))
    if not several or hasattr(images, "read") or hasattr(images, "columns") or hasattr(images, "column_names"):
        raise TypeError(
            f"expected one image or a list of images, got {_kind(images)}. Fix: for a table pass a column, such as"
            " table['image']; for an open file pass its path or bytes"
        )
    return list(images)


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def all_or_one(images: Any, batches: Callable[[Sequence[Any]], Iterable[list[Any]]]) -> Any:
    """Return the results of ``batches`` for all images as a list, or for a single image only its result.

    Args:
        images: a single image or several.
        batches: called with a list of images; yields their results in batches.

    Raises:
        TypeError: ``images`` is neither a single image nor several (see ``listed``).
    """
    one = is_one(images)
    found = [result for batch in batches([images] if one else listed(images)) for result in batch]
    return found[0] if one else found


def prompts_for(prompt: str | Sequence[str] | None, images: int) -> list[str | None]:
    """Return a prompt, or None, for each of ``images`` images.

    Raises:
        ValueError: the number of prompts differs from the number of images, or a prompt is not a string but, for
            example, a chat or NaN.
    """
    prompts: list[str | None] = [prompt] * images if prompt is None or isinstance(prompt, str) else list(prompt)
    if len(prompts) != images:
        raise ValueError(f"{len(prompts)} prompts for {images} images; give one for all, or one per image")
    for number, one in enumerate(prompts):
        if not isinstance(one, str | None):
            raise ValueError(f"prompts[{number}] is {one!r:.60}, not a string. Fix: pass the texts of the images")
    return prompts


def load_source(source: Any, allow_urls: bool = False, value_range: ValueRange | None = None) -> bytes:
    """Load one image as bytes.

    Args:
        source: path, data URL, file content as bytes, PIL image, or array or tensor (shapes and values: see
            ``omniq_verl.data.arrays``); with ``allow_urls`` also an http or https URL.
        allow_urls: fetch URLs.
        value_range: the values of black and white in an array or tensor of floats; None: 0 and 1 in a tensor.

    Raises:
        BadImage: the source is not an image or is rejected; no other exception is raised for a bad source.
    """
    found = _found(source, allow_urls, value_range)
    return check_image(found, decode=True) if isinstance(found, bytes) else check_picture(found)


def decode_source(source: Any, allow_urls: bool = False, value_range: ValueRange | None = None) -> Image.Image:
    """Like ``load_source``, but returns the decoded RGB image; decodes only once."""
    found = _found(source, allow_urls, value_range)
    return decode_image(found) if isinstance(found, bytes) else decode_picture(found)


def digest_of(data: bytes, sampled: bool) -> str:
    """Return the digest from which the seeds of an image's answers are derived.

    For sampled answers it is computed from the pixels, so a JPEG file and its PIL image get the same seed although
    their bytes differ. Greedy answers ignore the seed, so the image is not decoded for them.
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
    """Return the bytes of a file, or a PIL image."""
    source = stored_image(source)
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
    raise BadImage(f"not a path, bytes, PIL image, array or tensor, but {type(source).__name__}")


def _from_text(text: str, allow_urls: bool) -> bytes:
    if is_data_url(text):
        try:
            return _within_limits(decode_base64(text))
        except BadBase64 as error:
            raise BadImage(f"not base64: {error}") from None
    if found := _ADDRESS.match(text):
        if not allow_urls:
            scheme = found[1].lower()
            raise BadImage(f"a URL ({scheme}://...); URLs are only fetched with allow_urls=True")
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
    from urllib3.exceptions import HTTPError

    try:
        # requests supports only http and https, so no redirect can lead to a local file.
        with requests.get(address, timeout=_TIMEOUT, stream=True) as answer:
            answer.raise_for_status()
            data = answer.raw.read(MAX_BYTES + 1, decode_content=True)
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:  # HTTPError: while the body is read
        raise BadImage(f"it cannot be fetched ({error})") from None
    return _within_limits(data)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """List the given files and all files in the given folders, sorted by name within a folder.

    Links to folders are followed, each folder once. A broken link is listed, so that its image is reported as missing.
    Hidden files and folders (whose names begin with a dot) inside a folder are skipped.

    Raises:
        ValueError: a file or folder does not exist or cannot be read, or a folder contains no files.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        inside = sorted(_files_below(path)) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path}: the folder contains no files")
        found += inside
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    top = Path(os.path.realpath(folder))
    folders, links, seen = [folder], [], set()
    while folders or links:  # links last, so that files in the folder itself keep their own name
        here = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(here)) in seen or (here != folder and top.is_relative_to(real)):
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(f"{here}: the folder cannot be read ({error.strerror})") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif entry.is_file() or entry.is_symlink():
                yield Path(entry.path)
