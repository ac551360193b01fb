"""Image files that are rejected: cut, damaged, animated, giant, tiny, or no images at all."""

import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builders import GREY, RGB, bomb, chunk, decoded, noise, png, png_of, saved, smooth
from image_kind_builders import EXACT, JPEG, THUMBNAIL, UNTOUCHED, segment, spliced
from PIL import Image

from omniq_verl.data.images import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_RATIO,
    MIN_SIDE,
    BadImage,
    check_image,
    decode_image,
    load_image,
)

unhurried = settings(deadline=None)  # a busy machine is no error


# Rejected

FRAMES = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
NO_IDAT = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
REJECTED = [
    (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "it is animated", "GIF"),
    (saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "it is animated", "WebP"),
    (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "it is animated", "APNG"),
    (saved(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "has several pages", "TIFF"),
    (saved(noise(channels=1)[..., 0].astype(np.float32), "TIFF"), "have no agreed range", "floats"),
    (saved(noise(channels=1)[..., 0].astype(np.int32), "TIFF"), "have no agreed range", "whole numbers of 32 bits"),
    (saved(noise(channels=1)[..., 0].astype(np.uint16), "TIFF"), "16-bit values up to", "bytes in 16-bit grey"),
    (b"Pf\n16 16\n-1\n" + bytes(1024), "have no agreed range", "floats of a PFM"),
    (b"not an image at all\n", "no known image format", "a text file"),
    (b"<html><body>404 Not Found</body></html>", "no known image format", "an error page"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no known image format", "a drawing"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "no known image format", "a program in PostScript"),
    (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x07PIL.", "no known image format", "a pickle"),
    (bytes(10_000), "no known image format", "zeros"),
    (saved(smooth(), "JPEG2000"), "no known image format", "a format nobody asked for"),
    (NO_IDAT, "it is truncated", "a PNG without pixels"),
    (JPEG[: JPEG.index(b"\xff\xda")], "it is truncated", "a JPEG without pixels"),
    (JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", "it is truncated", "a JPEG without pixels that ends"),
    (JPEG[:100], "Truncated File Read", "a JPEG cut in its head"),
    (JPEG[:2], "truncated in its header", "a JPEG of two bytes"),
    (JPEG[:-200] + bytes(200), "it is truncated", "a JPEG of the right length whose end never came"),
    (spliced(JPEG, segment(0xE1, THUMBNAIL))[:-20], "it is truncated", "a cut JPEG whose thumbnail is whole"),
    (UNTOUCHED["JPEG with a comment"][:-2], "it is truncated", "a cut JPEG whose comment holds an end"),
    (UNTOUCHED["PNG"][:-1], "it is truncated", "a PNG that lacks a byte"),
    (bomb("JPEG", 8000, 8000), "too few bytes for its pixels", "a JPEG that claims to be larger than it is"),
]


@pytest.mark.parametrize(("data", "message", "reason"), REJECTED, ids=[reason for _, _, reason in REJECTED])
def test_what_is_no_whole_picture_is_rejected_with_the_reason(data, message, reason):
    with pytest.raises(BadImage, match=message):
        check_image(data)


@pytest.mark.parametrize("name", [name for name in UNTOUCHED if "behind" not in name and "two" not in name])
def test_a_jpeg_or_png_cut_anywhere_is_rejected(name):
    data = UNTOUCHED[name]
    for length in {*range(1, len(data), 7), *range(len(data) - 30, len(data))}:
        with pytest.raises(BadImage):
            check_image(data[:length])


@pytest.mark.parametrize("name", [name for name in EXACT if not name.startswith("PNG")])
def test_another_file_cut_anywhere_is_rejected_or_lacks_no_pixel(name):
    data, expected = EXACT[name]
    rejected = 0
    for length in {*range(1, len(data), max(len(data) // 60, 1)), *range(len(data) - 20, len(data))}:
        try:
            made = check_image(data[:length])
        except BadImage:
            rejected += 1
        else:
            np.testing.assert_array_equal(decoded(made), expected)
    assert rejected >= 50


@pytest.mark.parametrize("name", ["PNG", "PNG with a text"])
def test_a_flipped_byte_anywhere_in_a_png_is_found(name):
    data = bytearray(UNTOUCHED[name])
    for ref in range(len(data)):
        data[ref] ^= 0x55
        with pytest.raises(BadImage):
            check_image(bytes(data))
        data[ref] ^= 0x55


@unhurried
@given(ref=st.integers(0, len(JPEG) - 1), bits=st.integers(1, 255), decode=st.booleans())
def test_a_flipped_byte_in_a_jpeg_is_rejected_or_goes_through_and_nothing_else(ref, bits, decode):
    data = bytearray(JPEG)
    data[ref] ^= bits
    try:
        made = check_image(bytes(data), decode)
    except BadImage:
        return
    assert made == data or made.startswith(b"\x89PNG")


@unhurried
@given(
    head=st.sampled_from(
        [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"GIF89a", b"P6 "]
    ),
    rest=st.binary(max_size=200),
)
def test_no_bytes_make_another_error(head, rest):
    with pytest.raises(BadImage):
        check_image(head + rest)


def test_damage_that_only_decoding_finds_is_found_with_decode():
    rows = zlib.compress(b"\0" * 37 * 12)
    head = struct.pack(">IIBBBBB", 12, 12, 8, RGB, 0, 0, 0)
    broken = rows[:-8] + bytes(8)
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", broken), chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    assert check_image(data) is data
    for rule in (partial(check_image, decode=True), decode_image):
        with pytest.raises(BadImage, match="it does not decode"):
            rule(data)


# Decoded


def rejection(rule: Callable[[bytes], object], data: bytes) -> str | None:
    """The reason; None: it is taken."""
    try:
        rule(data)
    except BadImage as error:
        return str(error)
    return None


def refusals(data: bytes) -> list[str | None]:
    """The reasons that ``check_image`` and ``decode_image`` give, without the address of an object."""
    reasons = [rejection(rule, data) for rule in (partial(check_image, decode=True), decode_image)]
    return [reason and re.sub(r"0x[0-9a-f]+", "0x", reason) for reason in reasons]


@pytest.mark.parametrize(("data", "message", "reason"), REJECTED, ids=[reason for _, _, reason in REJECTED])
def test_what_is_rejected_is_rejected_with_the_same_reason_where_it_is_decoded(data, message, reason):
    said, also = refusals(data)
    assert message in said and said == also


@unhurried
@given(ref=st.integers(0, len(JPEG) - 1), bits=st.integers(1, 255))
def test_a_jpeg_with_a_flipped_byte_is_decoded_or_rejected_with_the_same_reason(ref, bits):
    data = bytearray(JPEG)
    data[ref] ^= bits
    said, also = refusals(bytes(data))
    assert said == also


@pytest.mark.parametrize("name", EXACT)
def test_a_cut_file_is_decoded_or_rejected_with_the_same_reason(name):
    data = EXACT[name][0]
    found = [refusals(data[:length]) for length in range(0, len(data), max(len(data) // 20, 1))]
    assert all(said == also for said, also in found) and any(said for said, _ in found)


# Files


def test_an_empty_file_is_rejected(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(BadImage, match="the file is empty"):
        load_image(tmp_path / "a.jpg")


def test_a_file_beyond_the_limit_is_rejected_without_being_read(tmp_path):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(2**40)  # a hole: it takes no place on the disk
    with pytest.raises(BadImage, match=r"the file has 1,099,511,627,776 bytes, more than 209,715,200"):
        load_image(tmp_path / "a.jpg")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match="the file is empty"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(("name", "message"), [("gone.jpg", "No such file"), ("folder", "Is a directory")])
def test_a_file_that_cannot_be_read_is_rejected_with_the_reason(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadImage, match=f"the file cannot be read .{message}"):
        load_image(tmp_path / name)


# Sides


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 10), (10, 500), (500, 10)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_picture_of_a_few_pixels_is_rejected(width, height, kind):
    with pytest.raises(BadImage, match=f"it has {width} x {height} pixels, a side of fewer than 11"):
        check_image(saved(smooth(height, width), kind))


STRIPS = [(2201, 11), (11, 2201), (4001, 20)]
SOUND = [(11, 11), (11, 12), (2200, 11), (11, 2200), (20, 4000)]


@pytest.mark.parametrize(("width", "height"), STRIPS)
def test_a_long_and_narrow_picture_is_rejected(width, height):
    with pytest.raises(BadImage, match=f"it has {width} x {height} pixels, a side more than 200 times the other"):
        check_image(saved(smooth(height, width), "PNG"))


@pytest.mark.parametrize(("width", "height"), SOUND)
def test_the_smallest_and_the_longest_picture_there_may_be_is_taken(width, height):
    data = saved(smooth(height, width), "PNG")
    assert check_image(data) is data


@pytest.mark.slow  # to import transformers takes as long as all other tests of images
def test_strips_are_what_the_models_processor_raises_on():
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    for width, height in STRIPS:
        with pytest.raises(ValueError, match="aspect ratio"):
            smart_resize(height, width)
    assert all(min(smart_resize(height, width)) > 0 for width, height in SOUND)


# Bombs


def test_the_limits_are_what_their_names_say():
    assert (MAX_BYTES, MAX_PIXELS, MIN_SIDE, MAX_RATIO) == (200 * 2**20, 8192 * 8192, 11, 200)


@pytest.mark.parametrize("width", [8192, 8193])
def test_a_picture_of_exactly_the_limit_is_taken(width):
    data = png_of(width, 8192, 8, GREY, (b"\0" + bytes(width)) * 8192)
    if width == 8192:
        assert check_image(data) is data
    else:
        with pytest.raises(BadImage, match="more than 67,108,864 pixels"):
            check_image(data)


BOMBS = [
    *[(kind, 30_000, 30_000) for kind in ("PNG", "BMP", "GIF", "JPEG", "TIFF")],
    ("RGBA PNG", 9_000, 9_000),
    ("WEBP", 16_384, 16_384),
]
PEAK = """
import resource, sys
from omniq_verl.data.images import BadImage, check_image
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    check_image(data, decode=True)
except BadImage as bad:
    print(bad)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("kind", "width", "height"), BOMBS)
def test_a_small_file_of_a_giant_picture_is_rejected_before_it_takes_memory(kind, width, height):
    data = bomb(kind, width, height)
    assert len(data) < 400_000
    result = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True, timeout=300)
    reason, grown = result.stdout.decode().splitlines()
    assert reason == "it has more than 67,108,864 pixels"
    assert int(grown) < 20_000, "KiB; decoded it would be a million and more"


@pytest.mark.parametrize(("kind", "width", "height"), BOMBS)
def test_a_giant_picture_is_not_decoded(kind, width, height):
    assert refusals(bomb(kind, width, height)) == ["it has more than 67,108,864 pixels"] * 2


def test_texts_that_unpack_to_gigabytes_are_not_unpacked():
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(2**27), 9))
    assert len(text) < 200_000
    with pytest.raises(BadImage, match=r"does not decode|no known image format"):
        check_image(png(noise(), RGB, text))
