"""Image files: which go through untouched, what becomes of the others, and which are refused."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builders import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    bomb,
    chunk,
    chunk_kinds,
    decoded,
    noise,
    oriented,
    packed_png,
    palette,
    png,
    png_of,
    saved,
    smooth,
)
from PIL import Image

from omniq_verl.data.images import MAX_BYTES, MAX_PIXELS, BadImage, check_image, load_image

unhurried = settings(deadline=None)  # a busy machine is no error
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 20, 30), (0, 0, 0), (255, 255, 255), (1, 2, 3), (200, 100, 50)]
INDICES = np.random.default_rng(7).integers(0, len(COLOURS), (9, 13), dtype=np.uint8)
OF_PALETTE = np.array(COLOURS, np.uint8)[INDICES]
WIDE = np.random.default_rng(8).integers(0, 65536, (40, 50, 4), dtype=np.uint16)
"""16-bit samples; the first row has those where rounding turns."""
WIDE[0, :, 0] = [step * 257 + away for step in (0, 1, 127, 128, 254) for away in range(124, 134)]
SHADES = noise(channels=1, seed=3)
TURNED = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.transpose(1, 0, 2), 2),
    8: lambda pixels: np.rot90(pixels, 1),
}
"""EXIF's orientations, as the standard (CIPA DC-008) describes where the first row and column are to be seen."""
THUMBNAIL = b"Exif\0\0" + saved(smooth(8, 8), "JPEG")


def grey(pixels: np.ndarray) -> np.ndarray:
    """Shades ``[H, W]`` or ``[H, W, 1]`` as RGB."""
    return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.reshape(*colours.shape[:2], 1) / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def by_257(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples / 257).astype(np.uint8)


def cmyk_to_rgb(inks: np.ndarray) -> np.ndarray:
    """What is left of white behind four inks ``[H, W, 4]``, 255 being full."""
    paper = 255.0 - inks[..., 3:]
    return (paper - np.floor(inks[..., :3] * paper / 255 + 0.5)).clip(0).astype(np.uint8)


def spliced(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with further segments, each with its marker, behind its first two bytes."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


# Untouched

JPEG = saved(smooth(), "JPEG", quality=90)
UNTOUCHED = {
    "JPEG": JPEG,
    "progressive JPEG": saved(smooth(), "JPEG", progressive=True),
    "grey JPEG": saved(smooth()[..., 0], "JPEG"),
    "JPEG without subsampling": saved(noise(), "JPEG", quality=100, subsampling=0),
    "JPEG with restarts": saved(smooth(64, 64), "JPEG", restart_marker_blocks=1),
    "JPEG with a colour profile": saved(smooth(), "JPEG", icc_profile=b"profile" * 50),
    "JPEG with a comment": saved(smooth(), "JPEG", comment=b"\xff\xd9 the end \xff\xda"),
    "JPEG that is upright": saved(smooth(), "JPEG", exif=oriented(1)),
    "JPEG of orientation 0": saved(smooth(), "JPEG", exif=oriented(0)),
    "JPEG of orientation 9": saved(smooth(), "JPEG", exif=oriented(9)),
    "JPEG with broken EXIF": spliced(JPEG, segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff")),
    "JPEG with a thumbnail": spliced(JPEG, segment(0xE1, THUMBNAIL)),
    "JPEG with zeros behind it": JPEG + bytes(100),
    "JPEG with a film behind it": JPEG + b"\0\0\0\x18ftypmp42 \xff\xda \xff\xd9 \xff\xda moov",
    "JPEG with fill bytes": spliced(JPEG, b"\xff\xff\xff" + segment(0xFE, b"x")),
    "two JPEGs in one (MPO)": saved(
        Image.fromarray(smooth()), "MPO", save_all=True, append_images=[Image.fromarray(smooth(seed=1))]
    ),
    "PNG": png(noise(), RGB),
    "grey PNG": png(SHADES, GREY),
    "PNG of 4 shades": packed_png(INDICES % 4, 2, GREY),
    "PNG of 16 shades": packed_png(INDICES, 4, GREY),
    "PNG with every filter": saved(smooth(64, 64), "PNG", optimize=True),
    "PNG with a text": png(noise(), RGB, chunk(b"tEXt", b"parameters\0a cat, eXIf")),
    "PNG with a colour profile": png(noise(), RGB, chunk(b"iCCP", b"p\0\0" + zlib.compress(b"profile"))),
    "PNG with a gamma": png(noise(), RGB, chunk(b"gAMA", struct.pack(">I", 45455))),
    "PNG that is upright": png(noise(), RGB, chunk(b"eXIf", oriented(1).tobytes()[6:])),
    "PNG with something behind it": png(noise(), RGB) + b"more",
    "PNG with palette to suggest": png(noise(), RGB, palette(COLOURS)),
}


@pytest.mark.parametrize("decode", [False, True], ids=["", "decoded"])
@pytest.mark.parametrize("name", UNTOUCHED)
def test_plain_jpeg_and_png_go_through_untouched(name, decode):
    data = UNTOUCHED[name]
    assert check_image(data, decode) is data


def test_a_file_is_what_it_holds_not_what_it_is_called(tmp_path):
    path = tmp_path / "picture.gif"
    path.write_bytes(JPEG)
    assert load_image(path) == JPEG


# Converted

EXACT = {
    "BMP": (saved(noise(), "BMP"), noise()),
    "grey BMP": (saved(SHADES[..., 0], "BMP"), grey(SHADES)),
    "TIFF": (saved(noise(), "TIFF"), noise()),
    "TIFF, LZW": (saved(noise(), "TIFF", compression="tiff_lzw"), noise()),
    "TIFF with alpha": (
        saved(noise(channels=4), "TIFF"),
        on_white(noise(channels=4)[..., :3], noise(channels=4)[..., 3]),
    ),
    "TIFF of 16 bits": (saved(WIDE[..., 0], "TIFF"), grey(by_257(WIDE[..., 0]))),
    "WebP, lossless": (saved(noise(), "WEBP", lossless=True), noise()),
    "WebP, lossless, with alpha": (
        saved(noise(channels=4), "WEBP", lossless=True, exact=True),
        on_white(noise(channels=4)[..., :3], noise(channels=4)[..., 3]),
    ),
    "PPM": (b"P6 31 23 255\n" + noise().tobytes(), noise()),
    "PGM of 16 bits": (b"P5 50 40 65535\n" + WIDE[..., 0].astype(">u2").tobytes(), grey(by_257(WIDE[..., 0]))),
    "PNG of 1 bit": (packed_png(INDICES % 2, 1, GREY), grey(INDICES % 2 * 255)),
    "PNG of a palette": (png(INDICES[..., None], PALETTE, palette(COLOURS)), OF_PALETTE),
    "PNG of a palette of 4 bits": (packed_png(INDICES, 4, PALETTE, palette(COLOURS)), OF_PALETTE),
    "PNG of a palette with transparency": (
        png(INDICES[..., None], PALETTE, palette(COLOURS), chunk(b"tRNS", bytes([0, 64, 128, 200]))),
        # Where there are fewer values than colours, the others are opaque.
        on_white(OF_PALETTE, np.array([0, 64, 128, 200, 255, 255, 255, 255])[INDICES]),
    ),
    "PNG with one shade transparent": (
        png(SHADES, GREY, chunk(b"tRNS", struct.pack(">H", SHADES[0, 0, 0]))),
        grey(np.where(SHADES[0, 0, 0] == SHADES, 255, SHADES)),
    ),
    "PNG with one colour transparent": (
        png(noise(), RGB, chunk(b"tRNS", struct.pack(">3H", *noise()[0, 0]))),
        np.where((noise() == noise()[0, 0]).all(-1, keepdims=True), 255, noise()),
    ),
    "PNG of grey with alpha": (
        png(noise(channels=2), GREY_ALPHA),
        on_white(grey(noise(channels=2)[..., 0]), noise(channels=2)[..., 1]),
    ),
    "PNG with alpha": (
        png(noise(channels=4), RGB_ALPHA),
        on_white(noise(channels=4)[..., :3], noise(channels=4)[..., 3]),
    ),
    "PNG of 16 bits": (png(WIDE[..., :1], GREY), grey(by_257(WIDE[..., 0]))),
    "PNG of 16 bits with one shade transparent": (
        png(WIDE[..., :1], GREY, chunk(b"tRNS", struct.pack(">H", WIDE[0, 0, 0]))),
        grey(np.where(WIDE[..., 0] == WIDE[0, 0, 0], 255, by_257(WIDE[..., 0]))),
    ),
    "PNG of 16 bits of colour": (png(WIDE[..., :3], RGB), (WIDE[..., :3] >> 8).astype(np.uint8)),
    "PNG of 16 bits with alpha": (png(WIDE, RGB_ALPHA), on_white(WIDE[..., :3] >> 8, WIDE[..., 3] >> 8)),
    "PNG of 16 bits of grey with alpha": (
        png(WIDE[..., :2], GREY_ALPHA),
        on_white(grey(WIDE[..., 0] >> 8), WIDE[..., 1] >> 8),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_other_files_become_a_png_of_exactly_the_pixels_of_the_rule(name):
    data, expected = EXACT[name]
    made = check_image(data)
    np.testing.assert_array_equal(decoded(made), expected)
    assert (made[24], made[25]) == (8, RGB), "bits of a channel, colour type"


def test_a_gif_of_one_frame_becomes_its_pixels():
    image = Image.fromarray(INDICES)
    image.putpalette([value for colour in COLOURS for value in colour])
    np.testing.assert_array_equal(decoded(check_image(saved(image, "GIF"))), OF_PALETTE)
    np.testing.assert_array_equal(
        decoded(check_image(saved(image, "GIF", transparency=2))), np.where(INDICES[..., None] == 2, 255, OF_PALETTE)
    )


@pytest.mark.parametrize("quality", [30, 95])
def test_the_inks_of_a_cmyk_jpeg_become_rgb(quality):
    data = saved(Image.fromarray(noise(32, 40, 4), "CMYK"), "JPEG", quality=quality)
    np.testing.assert_array_equal(decoded(check_image(data)), cmyk_to_rgb(decoded(data).astype(float)))


@pytest.mark.parametrize("number", TURNED)
@pytest.mark.parametrize(
    "kind", ["JPEG", "grey JPEG", "PNG", "PNG with alpha", "palette PNG", "16-bit PNG", "WebP", "TIFF"]
)
def test_a_rotated_picture_is_turned_upright(number, kind):
    exif = oriented(number)
    before = chunk(b"eXIf", exif.tobytes()[6:])
    data = {
        "JPEG": lambda: saved(smooth(), "JPEG", exif=exif),
        "grey JPEG": lambda: saved(smooth()[..., 0], "JPEG", exif=exif),
        "PNG": lambda: png(noise(), RGB, before),
        "PNG with alpha": lambda: png(noise(channels=4), RGB_ALPHA, before),
        "palette PNG": lambda: png(INDICES[..., None], PALETTE, palette(COLOURS), before),
        "16-bit PNG": lambda: png(WIDE[..., :1], GREY, before),
        "WebP": lambda: saved(noise(), "WEBP", lossless=True, exif=exif),
        "TIFF": lambda: saved(noise(), "TIFF", exif=exif),
    }[kind]()
    pixels = {
        "JPEG": lambda: decoded(data),
        "grey JPEG": lambda: grey(decoded(data)),
        "PNG with alpha": lambda: on_white(noise(channels=4)[..., :3], noise(channels=4)[..., 3]),
        "palette PNG": lambda: OF_PALETTE,
        "16-bit PNG": lambda: grey(by_257(WIDE[..., 0])),
    }.get(kind, noise)()
    np.testing.assert_array_equal(decoded(check_image(data)), TURNED[number](pixels))


@pytest.mark.parametrize("text", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"])
def test_a_rotation_may_be_told_by_xmp(text):
    jpeg = saved(smooth(), "JPEG", xmp=f"<x:xmpmeta {text}/>".encode())
    np.testing.assert_array_equal(decoded(check_image(jpeg)), TURNED[6](decoded(jpeg)))
    made = png(noise(), RGB, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode()))
    np.testing.assert_array_equal(decoded(check_image(made)), TURNED[6](noise()))


@pytest.mark.parametrize(
    "data",
    [
        saved(smooth(), "JPEG", exif=oriented(6), icc_profile=b"profile" * 50, comment=b"hello"),
        saved(Image.fromarray(noise(channels=4), "CMYK"), "JPEG", icc_profile=b"profile" * 50),
        saved(noise(), "TIFF", icc_profile=b"profile" * 50),
        EXACT["PNG of a palette with transparency"][0],
        EXACT["PNG with one colour transparent"][0],
    ],
    ids=["rotated", "CMYK", "TIFF", "palette", "one colour"],
)
def test_a_converted_picture_has_no_tags_of_the_old_one(data):
    assert set(chunk_kinds(check_image(data))) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("name", EXACT)
def test_a_converted_picture_goes_through_untouched(name):
    made = check_image(EXACT[name][0])
    assert check_image(made, decode=True) is made


# Refused

FRAMES = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
NO_IDAT = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
REFUSED = [
    (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "it is animated", "GIF"),
    (saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "it is animated", "WebP"),
    (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "it is animated", "APNG"),
    (saved(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "has several pages", "TIFF"),
    (saved(noise(channels=1)[..., 0].astype(np.float32), "TIFF"), "have no agreed range", "floats"),
    (saved(noise(channels=1)[..., 0].astype(np.int32), "TIFF"), "have no agreed range", "whole numbers of 32 bits"),
    (b"Pf\n2 2\n-1\n" + bytes(16), "have no agreed range", "floats of a PFM"),
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
    (JPEG[:2], "cut short in its head", "a JPEG of two bytes"),
    (JPEG[:-200] + bytes(200), "it is truncated", "a JPEG of the right length whose end never came"),
    (spliced(JPEG, segment(0xE1, THUMBNAIL))[:-20], "it is truncated", "a cut JPEG whose thumbnail is whole"),
    (UNTOUCHED["JPEG with a comment"][:-2], "it is truncated", "a cut JPEG whose comment holds an end"),
    (UNTOUCHED["PNG"][:-1], "it is truncated", "a PNG that lacks a byte"),
    (bomb("JPEG", 8000, 8000), "too few bytes for its pixels", "a JPEG that claims to be larger than it is"),
]


@pytest.mark.parametrize(("data", "message", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_what_is_no_whole_picture_is_refused_with_the_reason(data, message, reason):
    with pytest.raises(BadImage, match=message):
        check_image(data)


@pytest.mark.parametrize("name", [name for name in UNTOUCHED if "behind" not in name and "two" not in name])
def test_a_jpeg_or_png_cut_anywhere_is_refused(name):
    data = UNTOUCHED[name]
    for length in {*range(1, len(data), 7), *range(len(data) - 30, len(data))}:
        with pytest.raises(BadImage):
            check_image(data[:length])


@pytest.mark.parametrize("name", [name for name in EXACT if not name.startswith("PNG")])
def test_another_file_cut_anywhere_is_refused_or_lacks_no_pixel(name):
    data, expected = EXACT[name]
    refused = 0
    for length in {*range(1, len(data), max(len(data) // 60, 1)), *range(len(data) - 20, len(data))}:
        try:
            made = check_image(data[:length])
        except BadImage:
            refused += 1
        else:
            np.testing.assert_array_equal(decoded(made), expected)
    assert refused >= 50


@pytest.mark.parametrize("name", ["PNG", "PNG with a text"])
def test_a_flipped_byte_anywhere_in_a_png_is_found(name):
    data = bytearray(UNTOUCHED[name])
    for place in range(len(data)):
        data[place] ^= 0x55
        with pytest.raises(BadImage):
            check_image(bytes(data))
        data[place] ^= 0x55


@unhurried
@given(place=st.integers(0, len(JPEG) - 1), bits=st.integers(1, 255), decode=st.booleans())
def test_a_flipped_byte_in_a_jpeg_is_refused_or_goes_through_and_nothing_else(place, bits, decode):
    data = bytearray(JPEG)
    data[place] ^= bits
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
    rows = zlib.compress(b"\0" * 31 * 10)
    head = struct.pack(">IIBBBBB", 10, 10, 8, RGB, 0, 0, 0)
    broken = rows[:-8] + bytes(8)
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", broken), chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    assert check_image(data) is data
    with pytest.raises(BadImage, match="it does not decode"):
        check_image(data, decode=True)


# Files


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(BadImage, match="the file is empty"):
        load_image(tmp_path / "a.jpg")


def test_a_file_beyond_the_limit_is_refused_without_being_read(tmp_path):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(2**40)  # a hole: it takes no place on the disk
    with pytest.raises(BadImage, match=r"the file has 1,099,511,627,776 bytes, more than 209,715,200"):
        load_image(tmp_path / "a.jpg")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match="the file is empty"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(("name", "message"), [("gone.jpg", "No such file"), ("folder", "Is a directory")])
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadImage, match=f"the file cannot be read .{message}"):
        load_image(tmp_path / name)


# Bombs


def test_the_limits_are_what_their_names_say():
    assert (MAX_BYTES, MAX_PIXELS) == (200 * 2**20, 8192 * 8192)


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
def test_a_small_file_of_a_giant_picture_is_refused_before_it_takes_memory(kind, width, height):
    data = bomb(kind, width, height)
    assert len(data) < 400_000
    result = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True, timeout=300)
    reason, grown = result.stdout.decode().splitlines()
    assert reason == "it has more than 67,108,864 pixels"
    assert int(grown) < 20_000, "KiB; decoded it would be a million and more"


def test_texts_that_unpack_to_gigabytes_are_not_unpacked():
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(2**27), 9))
    assert len(text) < 200_000
    with pytest.raises(BadImage, match=r"does not decode|no known image format"):
        check_image(png(noise(), RGB, text))
