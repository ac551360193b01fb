"""Arrays and tensors -> PIL images: exactly, or rejected by name. Nothing is clamped, guessed or left out.

- **Shape**: ``[H, W]``, channels last ``[H, W, C]`` or channels first ``[C, H, W]``, with 1 (grey), 2 (grey and alpha),
  3 (RGB) or 4 (RGB and alpha) channels; before them an axis of length 1 may stand. Which axis has the channels is
  certain, as no image has a side below ``MIN_SIDE``.
- **Bytes** (uint8) are the pixels. **Truth values** are black and white, as in PIL's mode "1".
- **uint16** is what a file of 16 bits is: grey is divided by 257 and rounded, of colours the higher byte counts.
- **Other whole numbers** of colours are 0 to 255. In grey they are rejected, as is PIL's mode "I": whether such an
  image has 8, 16 or 32 bits cannot be known.
- **Floats** of a tensor are in [0, 1], unless the caller states a ``value_range``. A value becomes
  ``round((value - low) / (high - low) * 255)``, halves to even, computed in float32 (float64 for float64). Whatever
  would then lie outside of 0 to 255, and NaN, is rejected. So are floats of a NumPy array without a stated range, as
  both [0, 1] and 0 to 255 are usual there, and floats ``[H, W]`` without channels, as is PIL's mode "F".

A byte divided by 255 and rounded once to float64, float32, float16 or bfloat16 comes back as it was, also as
``byte / 127.5 - 1`` in [-1, 1]. bfloat16 has no room beyond that: near 1 its steps are 0.996 of a byte's step, so that
values between two bytes, and what several operations in bfloat16 have computed, may end on a neighbouring byte.
"""

import math
import sys
from typing import Any

import numpy as np
from PIL import Image

from omniq_verl.data.images import NO_RANGE, BadImage, by_257, check_size

ValueRange = tuple[float, float]
_UNIT: ValueRange = (0.0, 1.0)
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def is_tensor(source: Any) -> bool:
    """Is it a tensor of torch, which is not imported here if nobody else has?"""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def is_numbers(source: Any) -> bool:
    """Is it a tensor, or a NumPy array of numbers (and not of paths)?"""
    return is_tensor(source) or (isinstance(source, np.ndarray) and source.dtype.kind not in "OSUMm")


def check_range(value_range: ValueRange | None) -> ValueRange | None:
    """The two ends of a range of floats; None: none is stated.

    Raises:
        ValueError: they are no two finite numbers, the lower one first.
    """
    if value_range is None:
        return None
    try:
        low, high = map(float, () if isinstance(value_range, str) else value_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range is the two ends of floats, such as (0, 1) or (-1, 1); got {value_range!r}")
    return low, high


def image_from(source: Any, value_range: ValueRange | None = None) -> Image.Image:
    """The image that an array or a tensor holds, by the rules of this module.

    Args:
        source: of one image; tensors may be on any device, and need gradients.
        value_range: the floats that are black and white; None: 0 and 1 in a tensor, and unknown in an array.

    Raises:
        BadImage: it holds no image, or one whose values have no agreed meaning.
        ValueError: no such range.
    """
    ends = check_range(value_range) or (_UNIT if is_tensor(source) else None)
    pixels = _channels_last(_numpy(source) if is_tensor(source) else _unmasked(source))
    check_size(pixels.shape[1], pixels.shape[0])
    grey = pixels.ndim == 2 or pixels.shape[2] == 1
    data = _bytes_of(pixels, grey, ends)
    flat = data.reshape(*data.shape[:2]) if grey else data
    return Image.frombytes("L" if grey else _MODES[data.shape[2]], flat.shape[1::-1], np.ascontiguousarray(flat))


def _numpy(tensor: Any) -> np.ndarray:
    import torch

    if tensor.device.type == "meta":
        raise BadImage("a tensor on the meta device has no values")
    try:
        tensor = tensor.detach().cpu()
        # NumPy has no bfloat16; float32 holds all of its values.
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantized, nested, float8, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadImage(f"a tensor of {tensor.dtype} that is no plain array ({reason})") from None


def _unmasked(array: np.ndarray) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray):
        raise BadImage("an array with a mask. Fix: fill it, by array.filled(...)")
    return np.asarray(array)


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """One image as ``[H, W]`` or ``[H, W, C]``."""
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 4:
        what = f"{pixels.shape[0]} pictures, shape {pixels.shape}, where one is expected"
        raise BadImage(f"{what}. Fix: pass the batch by itself, or its pictures one by one")
    few = [size in _MODES for size in pixels.shape]
    if pixels.ndim == 2 or (pixels.ndim == 3 and few[2] and not few[0]):
        return pixels
    if pixels.ndim == 3 and few[0] and not few[2]:
        return np.moveaxis(pixels, 0, 2)
    raise BadImage(f"an array of shape {pixels.shape}; images are [H, W], [H, W, C] or [C, H, W], C from 1 to 4")


def _bytes_of(pixels: np.ndarray, grey: bool, ends: ValueRange | None) -> np.ndarray:
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind == "b":
        return pixels.astype(np.uint8) * 255
    if kind == "u" and size == 1:
        return pixels
    if kind == "u" and size == 2:
        return by_257(pixels) if grey else (pixels >> 8).astype(np.uint8)
    if kind in "iu" and not grey:
        return _levels(pixels, pixels, "whole numbers are 0 to 255")
    if kind == "f" and size <= 8 and pixels.ndim == 3 and ends:
        return _rounded(pixels, ends)
    if kind in "iuf":
        fix = "uint8 or uint16" if grey else "uint8, such as (x * 255).round().astype(np.uint8) of [0, 1]"
        raise BadImage(f"{NO_RANGE} ({pixels.dtype}, shape {pixels.shape}). Fix: pass {fix}")
    raise BadImage(f"an array of {pixels.dtype}; images are uint8, or floats in [0, 1] with channels")


def _rounded(pixels: np.ndarray, ends: ValueRange) -> np.ndarray:
    if bad := int(pixels.size - np.count_nonzero(np.isfinite(pixels))):
        raise BadImage(f"{bad:,} of {pixels.size:,} values are NaN or infinite")
    low, high = ends
    wide = pixels.astype(np.float64 if pixels.dtype.itemsize == 8 else np.float32)
    fix = "divide 0-255 by 255, or pass (x + 1) / 2 of [-1, 1]"
    if ends != _UNIT:
        fix = "pass the range of the values as value_range"
    return _levels(np.rint((wide - low) * (255 / (high - low))), pixels, f"floats are {low:g} to {high:g}. Fix: {fix}")


def _levels(levels: np.ndarray, pixels: np.ndarray, rule: str) -> np.ndarray:
    """Whole numbers as bytes, of which none is cut off."""
    if levels.min() < 0 or levels.max() > 255:
        raise BadImage(f"{pixels.dtype} values from {pixels.min():g} to {pixels.max():g}; {rule}")
    return levels.astype(np.uint8)
