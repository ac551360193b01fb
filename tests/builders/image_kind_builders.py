"""Files of every kind the rule of images knows: those it leaves alone, and those it converts, with their pixels."""

import struct
import zlib

import numpy as np
from image_builders import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    chunk,
    noise,
    oriented,
    packed_png,
    palette,
    png,
    saved,
    smooth,
)
from PIL import Image

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 20, 30), (0, 0, 0), (255, 255, 255), (1, 2, 3), (200, 100, 50)]
INDICES = np.random.default_rng(7).integers(0, len(COLOURS), (19, 13), dtype=np.uint8)
OF_PALETTE = np.array(COLOURS, np.uint8)[INDICES]
WIDE = np.random.default_rng(8).integers(0, 65536, (40, 50, 4), dtype=np.uint16)
"""16-bit samples; the first row has those where rounding turns."""
WIDE[0, :, 0] = [step * 257 + away for step in (0, 1, 127, 128, 254) for away in range(124, 134)]
SHADES = noise(channels=1, seed=3)
THUMBNAIL = b"Exif\0\0" + saved(smooth(8, 8), "JPEG")


def grey(pixels: np.ndarray) -> np.ndarray:
    """Shades ``[H, W]`` or ``[H, W, 1]`` as RGB."""
    return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def of_palette() -> Image.Image:
    """The picture ``OF_PALETTE`` as numbers of colours."""
    image = Image.fromarray(INDICES)
    image.putpalette([value for colour in COLOURS for value in colour])
    return image


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


EXACT = {
    "BMP": (saved(noise(), "BMP"), noise()),
    "grey BMP": (saved(SHADES[..., 0], "BMP"), grey(SHADES)),
    "TIFF": (saved(noise(), "TIFF"), noise()),
    "TIFF, LZW": (saved(noise(), "TIFF", compression="tiff_lzw"), noise()),
    "TIFF of inks (CMYK)": (
        saved(Image.fromarray(noise(channels=4), "CMYK"), "TIFF"),
        cmyk_to_rgb(noise(channels=4).astype(float)),
    ),
    "TIFF of a palette": (saved(of_palette(), "TIFF"), OF_PALETTE),
    "BMP of a palette": (saved(of_palette(), "BMP"), OF_PALETTE),
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
