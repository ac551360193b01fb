"""One image has one result: path, bytes, PIL image, array, tensor, base64 and data URL show a model the same pixels."""

import base64
import io
import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_builders import GREY, RGB, chunk, decoded, noise, oriented, png, png_of, saved, smooth
from image_kind_builders import EXACT, UNTOUCHED, WIDE, of_palette
from PIL import Image, ImageOps

from omniq_verl.data.images import BadImage
from omniq_verl.doctor.rows import Fault, image_size
from omniq_verl.scoring.image_inputs import decode_source, load_source

Ways = Iterator[tuple[str, Any]]
FRAMES = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def changed(image: Image.Image, change: Callable[[Image.Image], Any]) -> Image.Image:
    change(image)
    return image


def files_of(data: bytes, folder: Path) -> Ways:
    """The file, however it is handed over."""
    path = folder / "image.bin"
    path.write_bytes(data)
    yield "path", path
    yield "text of a path", str(path)
    yield "bytearray", bytearray(data)
    yield "memoryview", memoryview(data)
    text = base64.b64encode(data).decode()
    yield "data URL", f"data:image/png;base64,{text}"
    yield "data URL in capitals, of another type", f"DATA:text/plain;charset=utf-8;BASE64,{text}"
    yield "data URL in lines", "data:;base64," + base64.encodebytes(data).decode()


def pictures_of(data: bytes, folder: Path) -> Ways:
    """PIL images of the file, in every state."""
    path = folder / "gone.bin"
    path.write_bytes(data)
    yield "opened", Image.open(path)
    yield "opened, the file gone", changed(Image.open(path), lambda _: os.unlink(path))
    yield "opened from memory", opened(data)
    yield "its tags were looked at", changed(opened(data), Image.Image.getexif)
    yield "verified against another", changed(opened(data), lambda image: image == opened(data))
    yield "loaded", changed(opened(data), lambda image: image.load())
    yield "sought to where it stands", changed(opened(data), lambda image: image.seek(0))
    yield "pickled", pickle.loads(pickle.dumps(opened(data)))
    yield "copied", opened(data).copy()
    yield "turned upright by the caller", ImageOps.exif_transpose(opened(data))
    yield (
        "turned upright by the caller, in place",
        changed(opened(data), lambda image: ImageOps.exif_transpose(image, in_place=True)),
    )
    yield "cropped to all of it", opened(data).crop((0, 0, *opened(data).size))


def found(source: Any) -> np.ndarray | str:
    """The pixels by both entrances, or why there are none."""
    reasons, pixels = [], []
    for read in (decode_source, lambda one: Image.open(io.BytesIO(load_source(one))).convert("RGB")):
        try:
            pixels.append(np.asarray(read(source)))
        except BadImage as error:
            reasons.append(str(error))
    assert not (pixels and reasons), "both entrances take an image, or neither"
    if reasons:
        assert reasons[0] == reasons[1] and "\n" not in reasons[0]
        return reasons[0]
    np.testing.assert_array_equal(*pixels)
    return pixels[0]


def alike(data: bytes, folder: Path, without: tuple[str, ...] = ()) -> np.ndarray | str:
    """What is found of a file, which has to be the same by every way in."""
    expected = found(data)
    ways = [*files_of(data, folder), *pictures_of(data, folder)]
    if not isinstance(expected, str):
        chw = torch.from_numpy(expected.copy()).permute(2, 0, 1)
        ways += [("array", expected), ("array, channels first", np.moveaxis(expected, 2, 0)), ("tensor", chw)]
        ways += [("tensor of a batch of one", chw[None]), ("tensor of floats", (chw / 255).requires_grad_())]
    for way, source in ways:
        if way in without:
            continue
        got = found(source)
        if isinstance(expected, str) or isinstance(got, str):
            assert isinstance(expected, str) and isinstance(got, str) and got == expected, (way, got)
        else:
            np.testing.assert_array_equal(got, expected, err_msg=way)
    return expected


@pytest.mark.parametrize("kind", EXACT)
def test_converted_files(kind, tmp_path):
    data, pixels = EXACT[kind]
    # A copy of mode "I" does not know any more that it came from 16 bits, and is rejected; see below.
    without = (
        ("copied", "cropped to all of it", "pickled", "turned upright by the caller") if "PGM of 16" in kind else ()
    )
    np.testing.assert_array_equal(alike(data, tmp_path, without), pixels)


@pytest.mark.parametrize("kind", UNTOUCHED)
def test_files_that_go_through_untouched(kind, tmp_path):
    assert not isinstance(alike(UNTOUCHED[kind], tmp_path), str)


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", "CMYK JPEG", "PNG, XMP", "palette PNG"])
def test_orientations(kind, number, tmp_path):
    source, options = Image.fromarray(smooth(20, 32)), {"exif": oriented(number)}
    if kind == "CMYK JPEG":
        source = source.convert("CMYK")
    if kind == "palette PNG":
        source = source.quantize(16)
    if kind == "WEBP":
        options["lossless"] = True
    if kind == "TIFF" and number in range(1, 9):  # libtiff writes no others
        options["compression"] = "tiff_lzw"
    if kind == "MPO":
        options |= {"save_all": True, "append_images": [Image.fromarray(smooth(20, 32, 1))]}
    data = saved(source, kind.split()[-1] if " " in kind and "," not in kind else kind.split(",")[0], **options)
    if kind == "PNG, XMP":
        data = png(smooth(20, 32), RGB, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % number))
    pixels = alike(data, tmp_path)
    assert pixels.shape[:2] == ((32, 20) if 5 <= number <= 8 else (20, 32))


def test_an_orientation_is_of_copies_and_conversions_too_and_of_nothing_that_was_turned():
    data = saved(smooth(20, 32), "JPEG", exif=oriented(6))
    upright = found(data)
    for image in (opened(data).convert("RGB"), opened(data).convert("RGB").copy(), opened(data).convert("RGBA")):
        np.testing.assert_array_equal(found(image), upright)
    for image in (ImageOps.exif_transpose(opened(data)).convert("RGB"), ImageOps.exif_transpose(opened(data)).copy()):
        np.testing.assert_array_equal(found(image), upright)
    assert found(opened(data).resize((64, 40))).shape == (64, 40, 3)
    taken = opened(data)
    del taken.getexif()[0x0112]
    np.testing.assert_array_equal(found(taken), decoded(data), err_msg="the caller has taken the orientation away")
    given = Image.fromarray(smooth(20, 32))
    given.getexif()[0x0112] = 6
    assert found(given).shape == (32, 20, 3)


@pytest.mark.parametrize("mode", MODES)
def test_modes_in_memory_are_left_as_they_are_and_as_their_files(mode, tmp_path):
    image = Image.merge("RGBA", [Image.fromarray(channel) for channel in np.moveaxis(noise(channels=4), 2, 0)])
    image = image.convert("LA").convert(mode) if mode in ("La", "PA") else image
    image = (
        image if image.mode == mode else (image.convert("RGB") if mode in ("LAB", "HSV", "P") else image).convert(mode)
    )
    before = image.mode, image.tobytes(), dict(image.info)
    pixels = found(image)
    assert pixels.shape == (23, 31, 3) and before == (image.mode, image.tobytes(), dict(image.info))
    for kind in ("PNG", "TIFF", "JPEG"):
        try:
            data = saved(image, kind)
        except (OSError, KeyError, ValueError):
            continue
        got = alike(data, tmp_path)
        if kind != "JPEG" and mode not in ("LAB", "PA"):  # which are saved as something else
            np.testing.assert_array_equal(got, pixels, err_msg=kind)


@pytest.mark.parametrize("kind", ["I;16", "I;16L", "I;16B"])
def test_sixteen_bits_of_grey(kind):
    wide = np.ascontiguousarray(WIDE[..., 0])
    image = Image.frombytes(kind, (50, 40), wide.astype(">u2" if kind.endswith("B") else "<u2").tobytes())
    expected = found(png(WIDE[..., :1], GREY))
    for source in (image, wide, wide.astype(">u2"), wide[None], wide[..., None], torch.from_numpy(wide)):
        np.testing.assert_array_equal(found(source), expected)


def test_sixteen_bits_of_colour_are_as_in_their_files():
    for channels, colour in ((3, 2), (4, 6), (2, 4)):
        expected = found(png(WIDE[..., :channels], colour))
        np.testing.assert_array_equal(found(np.ascontiguousarray(WIDE[..., :channels])), expected)


def test_pixels_without_an_agreed_range_are_rejected_by_every_way_for_one_reason(tmp_path):
    for values, mode in ((np.ones((16, 20), np.float32), "F"), (np.ones((16, 20), np.int32), "I")):
        image = Image.fromarray(values)
        assert image.mode == mode
        reasons = {alike(saved(image, "TIFF"), tmp_path), found(image)}
        assert len(reasons) == 1 and "no agreed range" in reasons.pop()
        for array in (values, torch.from_numpy(values), values.astype(np.float64), values.astype(np.int64)):
            assert "no agreed range" in found(array)
    data, _ = EXACT["PGM of 16 bits"]
    assert "no agreed range" in found(opened(data).copy())


ANIMATED = {
    "GIF": {},
    "WEBP": {"lossless": True},
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("kind", ANIMATED)
def test_animations_and_pages_are_rejected_whole_and_a_single_one_of_them_is_an_image(kind, tmp_path):
    data = saved(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], **ANIMATED[kind])
    still = ("copied", "cropped to all of it", "turned upright by the caller", "pickled")
    assert "animated" in alike(data, tmp_path, still)
    for frame in (1, 2, 0):
        image = changed(opened(data), lambda image, frame=frame: image.seek(frame))
        assert "animated" in found(image)
        image.load()
        assert "animated" in found(image)
        taken = image.convert("RGB")
        np.testing.assert_array_equal(found(image.copy()), found(np.asarray(taken)))


def test_of_several_jpegs_in_one_the_first_counts_and_another_has_to_be_taken_out():
    data = UNTOUCHED["two JPEGs in one (MPO)"]
    second = changed(opened(data), lambda image: image.seek(1))
    assert "not the first picture" in found(second)
    np.testing.assert_array_equal(found(second.copy()), np.asarray(second))
    np.testing.assert_array_equal(found(changed(second, lambda image: image.seek(0))), found(data))


def test_a_reduced_picture_is_what_the_caller_made_it():
    drafted = changed(opened(saved(smooth(240, 320), "JPEG")), lambda image: image.draft("L", (80, 60)))
    assert found(drafted).shape == (60, 80, 3)
    small = changed(opened(saved(smooth(240, 320), "JPEG")), lambda image: image.thumbnail((80, 80)))
    assert found(small).shape == (60, 80, 3)


def png_with_head(*methods: int) -> bytes:
    """A PNG whose head names these methods of compression, filter and interlacing."""
    whole = png(noise(), RGB)
    return whole[:8] + chunk(b"IHDR", whole[16:26] + bytes(methods)) + whole[33:]


def png_of_stream(stream: bytes) -> bytes:
    """A PNG of 31 x 23 pixels with this compressed stream."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 31, 23, 8, RGB, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


ROWS = b"".join(b"\0" + row.tobytes() for row in noise())
BROKEN = {
    "cut JPEG": UNTOUCHED["JPEG"][:-40],
    "cut PNG": UNTOUCHED["PNG"][:-40],
    "PNG without its end": UNTOUCHED["PNG"][:-12],
    "JPEG without its end": UNTOUCHED["JPEG"][:-2],
    "PNG with rows missing": png_of(31, 46, 8, RGB, ROWS),
    "PNG with half a row missing": png_of(31, 23, 8, RGB, ROWS[:-40]),
    "PNG with two sizes": png(noise(), RGB, chunk(b"IHDR", struct.pack(">IIBBBBB", 31, 40, 8, RGB, 0, 0, 0))),
    "PNG of an unknown compression": png_with_head(1, 0, 0),
    "PNG of an unknown interlacing": png_with_head(0, 0, 2),
    "PNG with a part that is unknown": png(noise(), RGB, chunk(b"QLTE", bytes(24))),
    "PNG whose pixels have no end": png_of_stream(zlib.compress(ROWS)[:-4]),
    "PNG whose pixels have a wrong checksum": png_of_stream(zlib.compress(ROWS)[:-4] + b"abcd"),
    "PNG of no frames": png(noise(), RGB, chunk(b"acTL", bytes(8))),
    "PNG with a chunk of an odd name": png(noise(), RGB)[:-8] + b"\nEND" + png(noise(), RGB)[-4:],
    "too small": saved(smooth(10, 40), "PNG"),
    "too long": saved(smooth(11, 3000), "PNG"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_the_rules_reject_as_a_file_they_reject_as_the_unread_image_of_it(kind):
    expected = found(BROKEN[kind])
    assert isinstance(expected, str) and found(opened(BROKEN[kind])) == expected


@pytest.mark.parametrize("size", [(23, 31), (11, 12), (64, 13)])
def test_interlaced_pngs_are_whole_with_fewer_bytes_in_a_row(size):
    pixels = noise(*size)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [pixels[top::down, left::across] for left, top, across, down in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, RGB, 0, 0, 1))
    for data, whole in ((rows, True), (rows[:-1], False)):
        file = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
        if whole:
            np.testing.assert_array_equal(found(file), pixels)
        else:
            assert "fewer pixels" in found(file)


@pytest.mark.parametrize("more", [ROWS, bytes(3 * 2**20)])
def test_what_lies_behind_a_pngs_pixels_is_no_part_of_it(more):
    np.testing.assert_array_equal(found(png_of_stream(zlib.compress(ROWS + more))), noise())
    np.testing.assert_array_equal(found(png_of_stream(zlib.compress(ROWS) + more)), noise())


def test_images_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(saved(smooth(), "PNG"))
    with Image.open(path) as image:
        pass
    assert "closed before it was read" in found(image)
    with Image.open(path) as image:
        image.load()
    np.testing.assert_array_equal(found(image), smooth())
    assert "fewer than 11" in found(Image.new("RGB", (0, 0)))
    assert "more than 67,108,864 pixels" in found(Image.new("1", (10_000, 7_000)))
    icon = saved(Image.fromarray(smooth(32, 32)), "ICO")
    assert found(icon) == found(opened(icon)) == found(changed(opened(icon), lambda image: image.load()))


def test_transparency_that_pil_keeps_aside_is_laid_on_white():
    image = of_palette()
    image.info["transparency"] = 0
    plain, pixels = found(of_palette()), found(image)
    where = np.asarray(of_palette()) == 0
    assert (pixels[where] == 255).all() and (pixels[~where] == plain[~where]).all()
    image.info["transparency"] = "nonsense"
    assert isinstance(found(image), str)
    with_alpha = of_palette()
    with_alpha.putpalette(bytes([9, 9, 9, 0]) * 256, "RGBA")
    assert (found(with_alpha) == 255).all()


def test_one_unread_image_may_stand_in_a_list_many_times(tmp_path):
    data = saved(noise(300, 400), "PNG")
    expected = found(data)
    for _ in range(5):
        image = opened(data)
        with ThreadPoolExecutor(8) as pool:
            for picture in pool.map(decode_source, [image] * 32):
                np.testing.assert_array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (saved(smooth(), "JPEG", exif=oriented(6)), "EXIF orientation"),
        (saved(smooth(), "PNG", exif=oriented(3)), "EXIF orientation"),
        (EXACT["PNG of 16 bits"][0], "mode"),
        (EXACT["PNG of a palette with transparency"][0], "transparency"),
        (EXACT["PNG of grey with alpha"][0], "transparency"),
        (EXACT["PNG with alpha"][0], None),
        (EXACT["BMP"][0], None),
        (EXACT["TIFF of inks (CMYK)"][0], None),
        (saved(noise(), "TIFF", exif=oriented(6)), None),
        *((data, None) for data in UNTOUCHED.values()),
    ],
)
def test_the_doctor_names_rows_that_verl_shows_otherwise_than_scoring(data, why):
    try:
        assert image_size({"bytes": data}) and why is None
    except Fault as fault:
        assert why is not None and "a different picture than scoring" in fault.what and why in fault.what


def test_threads_that_read_images_leave_the_filters_of_warnings_as_they_were():
    before, odd = list(warnings.filters), UNTOUCHED["JPEG with broken EXIF"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_source, [odd, opened(odd), saved(noise(), "TIFF")] * 100))
    assert warnings.filters == before
