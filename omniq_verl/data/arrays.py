"""Convert arrays and tensors to PIL images exactly, or reject them with a reason. Values are never clamped.

- **Shape**: ``[H, W]``, channels last ``[H, W, C]`` or channels first ``[C, H, W]``, with 1 (grey), 2 (grey and alpha),
  3 (RGB) or 4 (RGB and alpha) channels, optionally with a leading axis of length 1. The channel axis is unambiguous
  because no image has a side below ``MIN_SIDE``.
- **uint8** values are the pixels. **Booleans** are black and white, as in PIL's mode "1".
- **uint16** is treated like a 16-bit file: grey is divided by 257 and rounded; colours use the higher byte. Values that
  are all below 256 would look black; they are rejected because they are bytes in a wider type.
- **Other integers** must be 0 to 255 in colour images. Grey ones are rejected, as is PIL's mode "I", because the bit
  depth (8, 16 or 32) cannot be known.
- **Floats** in a tensor are in [0, 1] unless the caller states a ``value_range``. A value becomes
  ``round((value - low) / (high - low) * 255)``, halves to even, computed in float32 (float64 for float64). Results
  outside 0 to 255 and NaN are rejected. Floats in a NumPy array need a stated range, because both [0, 1] and 0 to 255
  are common. Floats ``[H, W]`` without channels, as in PIL's mode "F", are always rejected.

A byte that was divided by 255 and rounded once to float64, float32, float16 or bfloat16 is restored exactly. So is
``byte / 127.5 - 1`` in [-1, 1]. bfloat16 has no precision beyond that: near 1 its steps are 0.996 of a byte's step, so
values between two bytes, and results of several bfloat16 operations, may end on a neighbouring byte.
"""

import math
import sys
from typing import Any

import numpy as np
from PIL import Image

from omniq_verl.data.images import NO_RANGE, BadImage, by_257, check_size, check_wide

ValueRange = tuple[float, float]
_UNIT: ValueRange = (0.0, 1.0)
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def is_tensor(source: Any) -> bool:
    """Whether this is a torch tensor. Does not import torch itself."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def is_numbers(source: Any) -> bool:
    """Whether this is a tensor, or a NumPy array of numbers (not of paths)."""
    return is_tensor(source) or (isinstance(source, np.ndarray) and source.dtype.kind not in "OSUMm")


def check_range(value_range: ValueRange | None) -> ValueRange | None:
    """Return the two ends of a range of floats, or None if no range is given.

    Raises:
        ValueError: they are not two finite numbers with the lower one first.
    """
    if value_range is None:
        return None
    try:
        low, high = map(float, () if isinstance(value_range, str) else value_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"value_range must be the two ends of the float values, such as (0, 1) or (-1, 1); got {value_range!r}"
        )
    return low, high


def image_from(source: Any, value_range: ValueRange | None = None) -> Image.Image:
    """Return the image in an array or a tensor, converted by the rules of this module.

    Args:
        source: one image; a tensor may be on any device and may require gradients.
        value_range: the values of black and white in floats. None means 0 and 1 for a tensor, and unknown for an array.

    Raises:
        BadImage: the source is not an image, or its values have no agreed meaning.
        ValueError: the range is invalid.
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
        raise BadImage(f"a tensor of {tensor.dtype} that is not a plain array ({reason})") from None


def _unmasked(array: np.ndarray) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray):
        raise BadImage("a masked array. Fix: fill it with array.filled(...)")
    return np.asarray(array)


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """Return one image as ``[H, W]`` or ``[H, W, C]``."""
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 4:
        what = f"{pixels.shape[0]} pictures, shape {pixels.shape}, where one is expected"
        raise BadImage(f"{what}. Fix: pass the whole batch instead of a list, or one picture at a time")
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
        return by_257(pixels) if grey else (check_wide(pixels) >> 8).astype(np.uint8)
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
    """Convert whole numbers to bytes; values outside 0 to 255 are rejected."""
    if levels.min() < 0 or levels.max() > 255:
        raise BadImage(f"{pixels.dtype} values from {pixels.min():g} to {pixels.max():g}; {rule}")
    return levels.astype(np.uint8)
