"""Convert an image file to the bytes that go into a row.

These are the image rules:

- A JPEG or PNG that every reader decodes to the same 8-bit picture is left unchanged: RGB or grey, not rotated by EXIF,
  without transparency. If a JPEG contains several pictures (MPO, as phones write them), the first one counts.
- Everything else (BMP, TIFF, WebP, PPM, a GIF of one frame; CMYK, 16 bit, palette, alpha, EXIF rotation) is decoded,
  turned upright, converted to 8-bit RGB and written losslessly as PNG without any tags. 16-bit grey is divided by 257
  and rounded; 16-bit colours, or grey with alpha, use the higher byte, as Pillow reads them. Alpha is composited on
  white (as Qwen's own loader does); CMYK becomes RGB as Pillow converts it.
- A file is rejected with a reason if it is empty, truncated, animated, outside the size limits, too long and narrow, or
  not an image, or if its pixels have no agreed range (floats, 32-bit integers, bytes in 16-bit grey).

``pictures.py`` applies the same rules to PIL images, ``arrays.py`` to arrays and tensors, and ``base64_text.py`` to
base64 and data URLs. An image therefore gives the same result in every form.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from omniq_verl.data.file_checks import BadImage, check_jpeg, check_png, check_png_pixels
from omniq_verl.data.quiet import quiet

MAX_BYTES = 200 * 2**20
MAX_PIXELS = 2**26
"""67 million, as in the largest phone photographs. A conversion needs eight to sixteen bytes of memory per pixel."""
MIN_SIDE = 11
"""In pixels. AVA has broken files with a side of one; Qwen2-VL's `smart_resize` would enlarge, not reject, them."""
MAX_RATIO = 200
"""Longer side divided by the shorter. Above it, Qwen2-VL's `smart_resize` raises an error in the middle of training."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""Accepted formats, by Pillow's names; MPO counts as JPEG."""
UNKNOWN = "no known image format, or truncated in its header"
ANIMATED = "it is animated, or has several pages"
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
"""TIFF tag for the meaning of grey values, and its value for "0 is white". Pillow obeys it only up to 8 bits."""
_WIDE_GREY = ("PNG", "PPM")
"""Formats for which Pillow may store 16-bit grey in 32 bits, scaled to the full 16-bit range."""


def load_image(path: Path, decode: bool = False) -> bytes:
    """Return the bytes of an image by the rules of this module.

    Args:
        path: the image file.
        decode: also decode every pixel of files that are left unchanged. Without it, only their structure is checked
            (PNG: all checksums; JPEG: that it ends), at a fiftieth of the cost.

    Raises:
        BadImage: the file is rejected.
    """
    return check_image(read_image(path), decode)


def data_url(data: bytes) -> str:
    """A data URL of a prepared image (JPEG or PNG), for HTML pages and chat APIs."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def read_image(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        BadImage: the file is empty, too large or cannot be read.
    """
    try:
        size = path.stat().st_size
        if 0 < size <= MAX_BYTES:
            return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BadImage(f"the file cannot be read ({getattr(error, 'strerror', None) or error})") from None
    raise BadImage(f"the file has {size:,} bytes, more than {MAX_BYTES:,}" if size else "the file is empty")


def check_image(data: bytes, decode: bool = False) -> bytes:
    """Like ``load_image``, but for a file's bytes. Returns the same object if they are left unchanged."""
    with _opened(data) as image:
        if not _goes_through(image, data):
            return _as_png(_whole(image, data))
        if decode:
            _whole(image, data).load()
        return data


def decode_image(data: bytes) -> Image.Image:
    """Return the RGB picture in the bytes of ``check_image``, decoded only once and without writing a PNG.

    Raises:
        BadImage: the file is rejected, as by ``check_image(data, decode=True)``.
    """
    with _opened(data) as image:
        if not _goes_through(image, data):
            return _upright(_whole(image, data))
        _whole(image, data).load()
        return _to_rgb(image)


def read_otherwise(data: bytes) -> str | None:
    """Say why a reader without these rules, such as verl's, would show a different picture; None if it would not.

    Such a reader composites RGBA on white and converts anything else that Pillow returns to RGB. The result is None for
    files that the rules reject.
    """
    try:
        with _opened(data) as image:
            if _goes_through(image, data):
                return None
            turned, mode = turn_of(image) is not None, image.mode
            picture = _upright(image)
        with _opened(data) as image:
            plain = _on_white(image) if image.mode == "RGBA" else image.convert("RGB")
    except BadImage:
        return None
    if picture.size == plain.size and picture.tobytes() == plain.tobytes():
        return None
    return "it has an EXIF orientation" if turned else f"its mode is {mode}, or it has transparency"


def check_pixels(data: bytes, most: int) -> None:
    """Reject an image by the size in its header, before it is decoded. The rules check for other faults.

    Raises:
        BadImage: the image has more than ``most`` pixels.
    """
    try:
        with _opened(data) as image:
            pixels = image.width * image.height
    except BadImage:
        return
    if pixels > most:
        raise BadImage(f"it has more than {most:,} pixels")


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open an image. Any error from Pillow or from the rules becomes a ``BadImage``."""
    with named_errors(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn any exception of Pillow on a broken or hostile image into a one-line ``BadImage``."""
    try:
        with quiet():
            yield
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(UNKNOWN) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImage(_TOO_LARGE) from None
    except Exception as error:  # Pillow's decoders raise errors of every kind on broken data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"it does not decode ({reason})") from None


_TOO_LARGE = f"it has more than {MAX_PIXELS:,} pixels"


def _goes_through(image: Image.Image, data: bytes) -> bool:
    """Check a file's size and structure, and return whether it is left unchanged."""
    check_size(*image.size)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise BadImage(ANIMATED)
    tagged = True
    if image.format == "PNG":
        tagged = check_png(data)
    elif image.format in ("JPEG", "MPO"):
        check_jpeg(data, image.width * image.height)
    # Call turn_of() only if tags exist: Pillow decodes a whole PNG to look for tags after the picture.
    return _is_plain(image, data) and not (tagged and turn_of(image) is not None)


def _whole(image: Image.Image, data: bytes) -> Image.Image:
    """Return the image after checking that Pillow would not fill in missing pixels."""
    if image.format == "PNG":
        check_png_pixels(data)
    return image


def check_size(width: int, height: int) -> None:
    """Check an image's size in pixels.

    Raises:
        BadImage: the image is too large, too small, or too long and narrow.
    """
    if width * height > MAX_PIXELS:
        raise BadImage(_TOO_LARGE)
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"it has {width} x {height} pixels, a side of fewer than {MIN_SIDE}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BadImage(f"it has {width} x {height} pixels, a side more than {MAX_RATIO} times the other")


def _is_plain(image: Image.Image, data: bytes) -> bool:
    if image.mode not in ("RGB", "L") or "transparency" in image.info:
        return False
    return image.format in ("JPEG", "MPO") or (image.format == "PNG" and data[24] <= 8)  # bits per channel


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that turns an image upright by its EXIF (or XMP) orientation; None if it is upright."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))  # 1: upright
    except Exception:  # Pillow raises errors of every kind on broken tags, which are then ignored
        return None


def _as_png(image: Image.Image) -> bytes:
    return encode_png(_upright(image))


def encode_png(rgb: Image.Image, level: int = 6) -> bytes:
    """Encode an RGB picture as a PNG without any tags.

    Args:
        rgb: its ``info`` is cleared: the old colour profile and transparency do not fit the new pixels.
        level: the compression level, 1 to 9.
    """
    rgb.info = {}
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    rgb = _to_rgb(image)
    turn = turn_of(image)  # None if load() has already turned the picture, as it does for TIFF
    return rgb if turn is None else rgb.transpose(turn)


def upright_copy(image: Image.Image) -> Image.Image:
    """Return an opened image's picture, upright and in RGB, by the rules of this module. The image is not changed."""
    rgb = _upright(image)
    return image.copy() if rgb is image else rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format not in _WIDE_GREY):
        raise BadImage(NO_RANGE)
    if image.mode.startswith("I"):
        return Image.fromarray(_shades(image)).convert("RGB")
    if image.has_transparency_data:
        return _on_white(_with_alpha(image))
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(with_alpha: Image.Image) -> Image.Image:
    on_white = Image.new("RGB", with_alpha.size, "white")
    on_white.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return on_white


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        return image
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


NO_RANGE = "its pixels, floats or whole numbers of 32 bits, have no agreed range"


def _shades(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        pixels = 65535 - pixels
    if "transparency" in image.info:
        pixels = np.where(pixels == image.info["transparency"], 65535, pixels)
    return by_257(pixels)


def check_wide(pixels: np.ndarray) -> np.ndarray:
    """Return the same 16-bit pixels after checking that they are not bytes in a wider type.

    Raises:
        BadImage: all are below 256, and not all are 0.
    """
    if 0 < (highest := pixels.max()) < 256:
        raise BadImage(f"it has 16-bit values up to {highest}, and white is 65535. Fix: give them as 8 bits")
    return pixels


def by_257(pixels: np.ndarray) -> np.ndarray:
    """Convert 16-bit grey ``[H, W]`` to 8 bits: the value divided by 257, rounded."""
    wide = check_wide(pixels).astype(np.uint32)
    wide += 128
    wide //= 257
    return wide.astype(np.uint8)
