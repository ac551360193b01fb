"""Check that a JPEG or PNG file is complete by its structure, without decoding it."""

import re
import struct
import zlib
from collections.abc import Iterator

_TAG_WORDS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of PNG text chunks that may hold an orientation."""
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
"""JPEG markers: start of scan, and end of image."""
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Next marker within a JPEG's compressed data, skipping stuffed bytes, restarts and padding."""
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
"""PNG chunks that a picture needs; names of optional chunks begin with a lower-case letter."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values per pixel, by PNG colour type."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced PNG: first column and row, and the steps to the next ones."""


class BadImage(ValueError):
    """An image is rejected; the message says why and is written to ``rejects.jsonl``."""


def check_jpeg(data: bytes, pixels: int) -> None:
    """Follow the segments to the end of the picture; cameras append videos, thumbnails and padding to it."""
    if len(data) < pixels / 512:  # even in a picture of one colour, each 8 x 8 block takes a bit
        raise BadImage("it has too few bytes for its pixels (a truncated or manipulated JPEG)")
    position, scans = 2, 0
    while mark := _NEXT_MARKER.search(data, position):
        scans += mark.group() == _SCAN
        # The end marker's two bytes never occur in compressed data, so data that ends with them is complete.
        if scans and (mark.group() == _END or data.endswith(_END)):
            return
        position = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2], "big")
    raise BadImage("it is truncated (a JPEG without its end)")


def check_png(data: bytes) -> bool:
    """Check that all chunks are present and valid, and return whether there are tags that may hold an orientation."""
    kind, pixels, tagged = b"", False, False
    for kind, start in _png_chunks(data):
        if (start == 16) != (kind == b"IHDR"):
            raise BadImage("it is damaged (a PNG whose header is missing or occurs twice)")
        if kind[:1].isupper() and kind not in _CRITICAL:
            raise BadImage(
                f"it is damaged (a PNG with an unknown part, {ascii(kind)[2:-1]}, that readers have to know)"
            )
        if kind == b"acTL" and data[start : start + 4] != b"\0\0\0\1":  # two or more frames are an animation
            raise BadImage("it is damaged (an animated PNG with an impossible number of frames)")
        pixels |= kind == b"IDAT"
        tagged |= kind == b"eXIf" or data.startswith(_TAG_WORDS, start)
    if data[8:12] != b"\0\0\0\r" or any(data[26:28]) or data[28] > 1:
        raise BadImage("it is damaged (a PNG with an unknown compression, filter or interlacing)")
    if kind != b"IEND" or not pixels:
        raise BadImage("it is truncated (a PNG without its end, or without pixels)")
    return tagged


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the kind of each complete chunk up to the end, and the offset of its content."""
    kind, position = b"", 8
    while kind != b"IEND" and position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data):
            raise BadImage("it is truncated (a PNG cut within a chunk)")
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise BadImage(f"it is damaged (checksum of {ascii(kind)[2:-1]})")
        yield kind, position + 8
        position = end


def check_png_pixels(data: bytes) -> None:
    """Check that the compressed pixels fill the stated size and that their stream is complete.

    Pillow would leave missing rows black, and does not verify the stream's checksum.

    Raises:
        BadImage: pixels are missing, or the stream does not end.
        zlib.error: the stream does not decompress, or its checksum is wrong.
    """
    wanted, got, stream = _png_size(data), 0, zlib.decompressobj()
    most = wanted + 2**20  # data after the pixels is not part of the picture, however long it is
    for kind, start in _png_chunks(data):
        part = data[start : start + int.from_bytes(data[start - 8 : start - 4], "big")] if kind == b"IDAT" else b""
        while got < most and not stream.eof and (part or got):
            some = stream.decompress(part, 2**20)
            part, got = stream.unconsumed_tail, got + len(some)
            if not some:
                break
    if got < wanted:
        raise BadImage("it is truncated (a PNG with fewer pixels than its size says)")
    if got < most and not stream.eof:
        raise BadImage("it is truncated (a PNG whose compressed pixels are cut off)")


def _png_size(data: bytes) -> int:
    """Return the number of bytes of all rows, each with its filter byte."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS.get(colour, 0)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-((left - width) // across), -((top - height) // down)) for left, top, across, down in passes]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
