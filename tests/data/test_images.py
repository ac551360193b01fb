"""Image files: which go through untouched, and what becomes of the others."""

import numpy as np
import pytest
from image_builders import (
    GREY,
    PALETTE,
    RGB,
    RGB_ALPHA,
    chunk,
    chunk_kinds,
    decoded,
    noise,
    oriented,
    palette,
    png,
    saved,
    smooth,
)
from image_kind_builders import (
    COLOURS,
    EXACT,
    INDICES,
    JPEG,
    OF_PALETTE,
    UNTOUCHED,
    WIDE,
    by_257,
    cmyk_to_rgb,
    grey,
    of_palette,
    on_white,
)
from PIL import Image

from omniq_verl.data.images import check_image, decode_image, load_image

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


# Untouched


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


@pytest.mark.parametrize("name", EXACT)
def test_other_files_become_a_png_of_exactly_the_pixels_of_the_rule(name):
    data, expected = EXACT[name]
    made = check_image(data)
    np.testing.assert_array_equal(decoded(made), expected)
    assert (made[24], made[25]) == (8, RGB), "bits of a channel, colour type"


def test_a_gif_of_one_frame_becomes_its_pixels():
    np.testing.assert_array_equal(decoded(check_image(saved(of_palette(), "GIF"))), OF_PALETTE)
    np.testing.assert_array_equal(
        decoded(check_image(saved(of_palette(), "GIF", transparency=2))),
        np.where(INDICES[..., None] == 2, 255, OF_PALETTE),
    )


def test_a_tiff_of_sixteen_bits_may_say_that_zero_is_white():
    data = saved(Image.fromarray(np.ascontiguousarray(65535 - WIDE[..., 0])), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(decoded(check_image(data)), grey(by_257(WIDE[..., 0])))
    np.testing.assert_array_equal(decode_image(data), grey(by_257(WIDE[..., 0])))


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


# Decoded


@pytest.mark.parametrize("name", [*UNTOUCHED, *EXACT])
def test_a_decoded_picture_has_the_pixels_a_reader_finds_in_the_row(name):
    data = UNTOUCHED[name] if name in UNTOUCHED else EXACT[name][0]
    expected = decoded(check_image(data, decode=True))
    found = decode_image(data)
    assert found.mode == "RGB"
    np.testing.assert_array_equal(found, grey(expected) if expected.ndim == 2 else expected)


@pytest.mark.parametrize("number", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_a_decoded_picture_is_turned_upright(number, kind):
    data = saved(smooth(), kind, exif=oriented(number))
    np.testing.assert_array_equal(decode_image(data), decoded(check_image(data)))
    as_stored = np.asarray(decode_image(saved(smooth(), kind)))
    np.testing.assert_array_equal(decode_image(data), TURNED[number](as_stored))
