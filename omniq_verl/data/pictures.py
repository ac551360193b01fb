"""Convert PIL images to the bytes or the picture that the image rules give for the same image as a file.

- If Pillow has opened an image but not yet read it, the bytes of its file are used.
- Otherwise its pixels are used, with palette, transparency and orientation: if ``getexif()`` gives an EXIF
  orientation, the picture is turned upright, as ``PIL.ImageOps.exif_transpose`` does. A copy, a conversion or a crop
  of a photograph still has its orientation; the result of ``exif_transpose`` has none and is not turned again.
"""

import io
from threading import Lock
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile

from omniq_verl.data.images import (
    ANIMATED,
    FORMATS,
    MAX_BYTES,
    UNKNOWN,
    BadImage,
    check_image,
    check_size,
    decode_image,
    encode_png,
    named_errors,
    turn_of,
    upright_copy,
)

_LOCKS = tuple(Lock() for _ in range(64))
"""Locks for reading: Pillow cannot read one image in two threads, and a list may contain the same image twice."""


def check_picture(image: Image.Image) -> bytes:
    """Return the bytes of a PIL image, as ``check_image`` returns them for its file. The image is not changed.

    Raises:
        BadImage: the image rules reject the image, its file was closed too early, or it is not the first picture of its
            file.
    """
    found = _read(image)
    return check_image(found, decode=True) if isinstance(found, bytes) else encode_png(found, 1)  # decoded again soon


def decode_picture(image: Image.Image) -> Image.Image:
    """Like ``check_picture``, but returns the picture itself in RGB."""
    found = _read(image)
    return decode_image(found) if isinstance(found, bytes) else found


def _read(image: Image.Image) -> bytes | Image.Image:
    """Return the file of an image that has not been read yet; otherwise its picture, upright and in RGB."""
    with _LOCKS[_owner(image) // 64 % len(_LOCKS)], named_errors():
        check_size(*image.size)
        data = _unread_file(image)
        return _picture(image) if data is None else data


def _owner(image: Image.Image) -> int:
    """Return the id of what two threads must not use at once: the open file, which two images may share."""
    return id(getattr(image, "fp", None) or image)


def _unread_file(image: Image.Image) -> bytes | None:
    """Return the file content of an image that has not been read, sought, drafted or changed; None if there is none."""
    if not isinstance(image, ImageFile):
        return None
    file = getattr(image, "fp", None)
    if file is None or getattr(file, "closed", False):
        if not image.tile:
            return None
        raise BadImage("its file was closed before it was read. Fix: call load() while the file is open")
    data = _whole(file)
    with Image.open(io.BytesIO(data), formats=FORMATS) as fresh:
        return data if _alike(image, fresh) else None


def _whole(file: Any) -> bytes:
    position = file.tell()
    try:
        file.seek(0)  # Pillow begins there, too
        data = file.read(MAX_BYTES + 1)
    finally:
        file.seek(position)
    if len(data) > MAX_BYTES:
        raise BadImage(f"the file has more than {MAX_BYTES:,} bytes")
    return data


def _alike(image: ImageFile, fresh: Image.Image) -> bool:
    """Whether an image is unchanged since it was opened."""
    same = all(getattr(image, name) == getattr(fresh, name) for name in ("format", "mode", "size", "tile", "info"))
    if not same or _frame(image):
        return False
    # turn_of() makes Pillow read a PNG to look for tags after the pixels; the image would then count as read.
    return (image.format == "PNG" and "exif" not in image.info) or turn_of(image) == turn_of(fresh)


def _picture(image: Image.Image) -> Image.Image:
    if image.format not in (None, "MPO", *FORMATS):
        raise BadImage(UNKNOWN)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise BadImage(ANIMATED)
    if _frame(image):
        raise BadImage("it is not the first picture of its file. Fix: pass image.copy()")
    return upright_copy(image)


def _frame(image: Image.Image) -> int:
    """Return the index of the picture within its file, from 0. An unpickled image has no file and gives 0."""
    try:
        return image.tell()
    except AttributeError:
        return 0
