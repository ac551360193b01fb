"""Image files of every kind, made without the code under test; PNG also without Pillow."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""PNG's colour types."""
ORIENTATION = 0x0112


def noise(height: int = 23, width: int = 31, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random bytes ``[H, W, C]``."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """A picture ``[H, W, 3]`` that compresses as photographs do."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin((seed + 3 + colour) * rows) + np.cos((seed + 5 - colour) * columns) for colour in range(3)]
    return (np.stack(waves, -1) * 60 + 127).astype(np.uint8)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """A file of this format."""
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


# PNG


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG of rows that each begin with a filter's number.

    Args:
        width: in pixels.
        height: in pixels.
        depth: bits of a channel.
        colour: PNG's number of the colour type.
        rows: what is compressed.
        before: chunks between the head and the rows.
    """
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def png(samples: np.ndarray, colour: int, *before: bytes) -> bytes:
    """A PNG of samples ``[H, W, C]``, of 8 or 16 bits as their type."""
    height, width = samples.shape[:2]
    wide = samples.astype(samples.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return png_of(width, height, samples.dtype.itemsize * 8, colour, rows, *before)


def packed_png(values: np.ndarray, depth: int, colour: int, *before: bytes) -> bytes:
    """A PNG of values ``[H, W]`` of 1, 2 or 4 bits."""
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :].reshape(len(values), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    return png_of(values.shape[1], values.shape[0], depth, colour, rows, *before)


def palette(colours: Sequence[Sequence[int]]) -> bytes:
    return chunk(b"PLTE", bytes(value for colour in colours for value in colour))


def chunk_kinds(data: bytes) -> list[bytes]:
    kinds, position = [], 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kinds.append(data[position + 4 : position + 8])
        position += 12 + length
    return kinds


# Decompression bombs: small files of giant pictures


def bomb(kind: str, width: int, height: int) -> bytes:
    """A file of few bytes whose picture is ``width`` x ``height`` pixels."""
    if kind == "PNG":
        row = b"\0" + bytes(-(-width // 8))
        return png_of(width, height, 1, GREY, row * height)
    if kind == "RGBA PNG":
        return png_of(width, height, 8, RGB_ALPHA, (b"\0" + bytes(4 * width)) * height)
    if kind == "BMP":  # the head alone says how large it is
        return b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    if kind == "GIF":
        screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80, 0, 0) + bytes(6)
        return screen + struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;"
    if kind == "JPEG":
        small = saved(smooth(), "JPEG")
        ref = small.index(b"\xff\xc0") + 5
        return small[:ref] + struct.pack(">HH", height, width) + small[ref + 4 :]
    if kind == "WEBP":
        # Lossless: 14 bits of each side less one, behind the signature.
        small = bytearray(saved(np.zeros((1, 1, 3), np.uint8), "WEBP", lossless=True))
        ref = small.index(b"VP8L") + 9
        small[ref : ref + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14)
        return bytes(small)
    assert kind == "TIFF"
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, width * height % 2**32)]
    entries = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
