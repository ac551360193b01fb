"""Apply one distortion (noise, blur, compression or darkening) at one of five levels to a clean image.

Each class has several operators, so a model learns the class and not just one of its appearances. DQ-495K (You et al.
2024), which Q-Insight trains on, has six operators for noise, six for blur, two for compression and four for darkening.
Ours are written from their definitions, with our own strengths.

Strengths are in pixels and in grey values of 0-255, so they are meant for images at the size that the model sees: a
blur of one pixel disappears if a photograph of 4,000 pixels is reduced later. Reduce the image first (`--max-side` of
`omniq data degradations`).
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from omniq_verl.tasks import SEVERITIES

Pixels = np.ndarray
"""``[H, W, 3]``, RGB. Operators take uint8 and return uint8, or floats that still have to be rounded."""
_EDGE = "reflect"
"""Images are continued by reflection beyond their edges, so no frame appears."""


# Noise


def gaussian_noise(image: Pixels, rng: np.random.Generator, std: float) -> Pixels:
    """Normal noise, drawn for each pixel and channel; ``std`` in grey values."""
    return image + np.float32(std) * _normal(rng, image)


def ycbcr_noise(image: Pixels, rng: np.random.Generator, luma: float, chroma: float) -> Pixels:
    """Normal noise in luma and chroma (JPEG's YCbCr), with these standard deviations in grey values."""
    y, cb, cr = np.moveaxis(_normal(rng, image) * np.array([luma, chroma, chroma], np.float32), -1, 0)
    # RGB differences of ITU-R BT.601 in JFIF's full range. A matrix product would differ in its last bits by machine.
    return image + np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)


def speckle_noise(image: Pixels, rng: np.random.Generator, std: float) -> Pixels:
    """Multiplicative noise: each value times ``1 + n``, where n is normal with standard deviation ``std``."""
    return image * (1 + np.float32(std) * _normal(rng, image))


def impulse_noise(image: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    """Salt and pepper: this share of the pixels becomes white or black with equal probability."""
    drawn = rng.random(image.shape[:2])[..., None]
    return np.where(drawn < share / 2, np.uint8(0), np.where(drawn < share, np.uint8(255), image))


def poisson_noise(image: Pixels, rng: np.random.Generator, photons: float) -> Pixels:
    """Shot noise of a sensor that counts ``photons`` photons on average where the image is white."""
    return (rng.poisson(image * (photons / 255)) * (255 / photons)).astype(np.float32)


def correlated_noise(image: Pixels, rng: np.random.Generator, std: float, sigma: float) -> Pixels:
    """Normal noise, smoothed over ``sigma`` pixels and rescaled to standard deviation ``std``: blotches, not grain."""
    noise = ndimage.gaussian_filter(_normal(rng, image), (sigma, sigma, 0), mode="wrap")
    return image + noise * np.float32(std / max(noise.std(), 1e-6))


def _normal(rng: np.random.Generator, image: Pixels) -> Pixels:
    return rng.standard_normal(image.shape, dtype=np.float32)


# Blur


def gaussian_blur(image: Pixels, rng: np.random.Generator, sigma: float) -> Pixels:
    """Gaussian blur with this standard deviation in pixels."""
    return ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode=_EDGE)


def lens_blur(image: Pixels, rng: np.random.Generator, radius: float) -> Pixels:
    """Defocus: the mean over a disk with this radius in pixels. Pixels on its edge are weighted by the part inside."""
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _convolve(image, np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1))


def motion_blur(image: Pixels, rng: np.random.Generator, length: float, angle: float) -> Pixels:
    """Camera motion: the mean along ``length`` pixels in a direction ``angle`` degrees counter-clockwise from level."""
    reach = int(np.ceil(length / 2))
    along = np.linspace(-length / 2, length / 2, 100 * reach + 1)
    bounds = (-reach - 0.5, reach + 0.5)
    turn = np.deg2rad(angle)
    line = np.histogram2d(-np.sin(turn) * along, np.cos(turn) * along, bins=2 * reach + 1, range=(bounds, bounds))[0]
    return _convolve(image, line)


def zoom_blur(image: Pixels, rng: np.random.Generator, factor: float) -> Pixels:
    """Zoom: the mean of the image enlarged by 1 to ``1 + factor`` about its centre.

    This is the only blur with a strength relative to the image: a point at its edge moves by about ``factor / 2`` of a
    side.
    """
    picture, (height, width) = Image.fromarray(image), image.shape[:2]
    steps = int(np.ceil(factor * max(height, width) / 2)) + 1  # a pixel at the edge moves by at most one
    total = np.zeros(image.shape, np.float32)
    for enlarged in np.linspace(1, 1 + factor, steps + 1):
        top, left = height * (1 - 1 / enlarged) / 2, width * (1 - 1 / enlarged) / 2
        box = (left, top, width - left, height - top)
        total += np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box))
    return total / (steps + 1)


def glass_blur(image: Pixels, rng: np.random.Generator, sigma: float, reach: float) -> Pixels:
    """Frosted glass: smooth, replace each pixel by one up to ``reach`` pixels away, and smooth again."""
    return gaussian_blur(jitter_blur(gaussian_blur(image, rng, sigma), rng, reach), rng, sigma)


def jitter_blur(image: Pixels, rng: np.random.Generator, reach: float) -> Pixels:
    """Replace each pixel by one up to ``reach`` pixels away in both directions, drawn uniformly."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    rows += rng.uniform(-reach, reach, rows.shape).astype(np.float32)
    columns += rng.uniform(-reach, reach, columns.shape).astype(np.float32)
    channels = [
        ndimage.map_coordinates(image[..., channel], (rows, columns), np.float32, order=1, mode=_EDGE)
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, -1)


def _convolve(image: Pixels, kernel: np.ndarray) -> Pixels:
    weights = kernel[..., None] / kernel.sum()
    return ndimage.convolve(image.astype(np.float32), weights, mode=_EDGE)


# Compression


def jpeg(image: Pixels, rng: np.random.Generator, quality: int) -> Pixels:
    """JPEG compression with this quality (0-100, libjpeg's scale; colours at half the resolution)."""
    return _coded(image, "JPEG", quality=quality)


def jpeg2000(image: Pixels, rng: np.random.Generator, psnr: float) -> Pixels:
    """Lossy JPEG 2000 compression with this PSNR in decibels.

    PSNR is set instead of the rate because, at a fixed rate, plain images show no loss and small ones do not differ.
    """
    return _coded(image, "JPEG2000", quality_mode="dB", quality_layers=[psnr], irreversible=True)


def webp(image: Pixels, rng: np.random.Generator, quality: int) -> Pixels:
    """Lossy WebP compression with this quality (0-100). Its lowest quality is no worse than JPEG's 6."""
    return _coded(image, "WEBP", quality=quality, method=4)


def _coded(image: Pixels, kind: str, **options: Any) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


# Darkening


def darken_scale(image: Pixels, rng: np.random.Generator, gain: float) -> Pixels:
    """Multiply every value by ``gain``."""
    return _curve(image, _GREYS * gain)


def darken_gamma(image: Pixels, rng: np.random.Generator, gamma: float) -> Pixels:
    """Raise every value, as a fraction of white, to the power ``gamma``; white stays white."""
    return _curve(image, _GREYS**gamma)


def darken_exposure(image: Pixels, rng: np.random.Generator, stops: float) -> Pixels:
    """Reduce the exposure by ``stops``: the linear light of sRGB (IEC 61966-2-1) is halved for each stop."""
    light = np.where(_GREYS <= 0.04045, _GREYS / 12.92, ((_GREYS + 0.055) / 1.055) ** 2.4) / 2**stops
    return _curve(image, np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055))


def darken_shift(image: Pixels, rng: np.random.Generator, shift: float) -> Pixels:
    """Subtract ``shift`` grey values in each channel. Darker values become black, and colours become stronger."""
    return _curve(image, _GREYS - shift / 255)


def darken_value(image: Pixels, rng: np.random.Generator, shift: float) -> Pixels:
    """Subtract ``shift`` grey values from HSV's value, a pixel's largest channel; hue and saturation do not change."""
    value = image.max(axis=2, keepdims=True).astype(np.float32)
    return image * (np.maximum(value - shift, 0) / np.maximum(value, 1))


_GREYS = np.arange(256) / 255


def _curve(image: Pixels, values: np.ndarray) -> Pixels:
    """Replace each grey value by its entry in a table ``[256]``, where 1 is white."""
    return _rounded(255 * values)[image]


def _rounded(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


# The table


LEVELS = tuple(range(1, len(SEVERITIES) + 1))
"""Levels of strength; level 1 is ``SEVERITIES[0]``."""


@dataclass(frozen=True)
class Operator:
    """One way to distort an image."""

    distortion: str
    """The class, one of ``DISTORTIONS``."""
    function: Callable[..., Pixels]
    """Takes the image, a generator and the parameters by name."""
    strengths: Mapping[str, tuple[float, ...]]
    """Values of each parameter at the levels, mildest first; fewer than five if it cannot be catastrophic."""
    drawn: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Parameters that do not affect the strength, drawn uniformly between these bounds."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels from 1 (slight) to usually 5 (catastrophic)."""
        return LEVELS[: min(map(len, self.strengths.values()))]

    def parameters(self, level: int, rng: np.random.Generator) -> dict[str, float]:
        """Return the parameters of a level.

        Raises:
            ValueError: the operator lacks this level.
        """
        if level not in self.levels:
            raise ValueError(f"level must be one of {', '.join(map(str, self.levels))}, got {level!r}")
        fixed = {name: values[level - 1] for name, values in self.strengths.items()}
        return {**fixed, **{name: round(float(rng.uniform(*bounds)), 2) for name, bounds in self.drawn.items()}}


OPERATORS = {
    "noise_gaussian": Operator("noise", gaussian_noise, {"std": (8, 16, 28, 45, 70)}),
    "noise_ycbcr": Operator("noise", ycbcr_noise, {"luma": (5, 9, 15, 24, 38), "chroma": (8, 15, 25, 40, 62)}),
    "noise_speckle": Operator("noise", speckle_noise, {"std": (0.08, 0.15, 0.25, 0.4, 0.65)}),
    "noise_impulse": Operator("noise", impulse_noise, {"share": (0.005, 0.015, 0.04, 0.1, 0.25)}),
    "noise_poisson": Operator("noise", poisson_noise, {"photons": (400, 100, 35, 12, 4)}),
    "noise_correlated": Operator(
        "noise", correlated_noise, {"std": (5, 9, 15, 24, 38), "sigma": (1.2, 1.2, 1.2, 1.2, 1.2)}
    ),
    "blur_gaussian": Operator("blur", gaussian_blur, {"sigma": (0.8, 1.4, 2.2, 3.5, 6)}),
    "blur_lens": Operator("blur", lens_blur, {"radius": (1.2, 2, 3.2, 5, 8)}),
    "blur_motion": Operator("blur", motion_blur, {"length": (4, 7, 12, 20, 32)}, {"angle": (0, 180)}),
    "blur_zoom": Operator("blur", zoom_blur, {"factor": (0.02, 0.04, 0.08, 0.15, 0.3)}),
    "blur_glass": Operator("blur", glass_blur, {"sigma": (0.5, 0.8, 1.1, 1.5, 2), "reach": (0.6, 1.2, 2, 3.3, 5)}),
    "blur_jitter": Operator("blur", jitter_blur, {"reach": (0.6, 1.1, 2, 3.5, 6)}),
    "compression_jpeg": Operator("compression", jpeg, {"quality": (38, 19, 11, 6, 2)}),
    "compression_jpeg2000": Operator("compression", jpeg2000, {"psnr": (33, 29.5, 26, 23, 20)}),
    "compression_webp": Operator("compression", webp, {"quality": (40, 12, 2, 0)}),
    "darken_scale": Operator("darken", darken_scale, {"gain": (0.75, 0.55, 0.4, 0.27, 0.15)}),
    "darken_gamma": Operator("darken", darken_gamma, {"gamma": (1.4, 1.9, 2.6, 3.8, 6)}),
    "darken_exposure": Operator("darken", darken_exposure, {"stops": (0.9, 1.8, 2.7, 3.8, 5.2)}),
    "darken_shift": Operator("darken", darken_shift, {"shift": (25, 48, 74, 102, 135)}),
    "darken_value": Operator("darken", darken_value, {"shift": (25, 48, 74, 102, 135)}),
}
"""We chose the strengths by eye and by SSIM or PSNR so that neighbouring levels differ."""


def degrade(image: Pixels, operator: str, level: int, rng: np.random.Generator) -> tuple[Pixels, dict[str, float]]:
    """Apply one distortion to an image.

    Args:
        image: uint8 ``[H, W, 3]``, RGB; it is not changed.
        operator: a key of ``OPERATORS``.
        level: one of the operator's ``levels``.
        rng: the same state gives the same image.

    Returns:
        uint8 ``[H, W, 3]``, and the value of each parameter.

    Raises:
        ValueError: the operator or level is unknown, or the image has another type or shape.
    """
    if operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, got {operator!r}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    chosen = OPERATORS[operator]
    parameters = chosen.parameters(level, rng)
    return _rounded(chosen.function(image, rng, **parameters)), parameters
