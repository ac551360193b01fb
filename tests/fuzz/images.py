"""Images: ``load_source`` and ``decode_source`` by every way in, ``Scorer``; arrays of any shape and type."""

import base64
import io
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
from evaluation_builders import RATER
from fuzz.mutation import Files, mutated, with_checksums
from fuzz.rules import check, one_line
from image_builders import noise, oriented, saved, smooth
from image_kind_builders import EXACT, UNTOUCHED
from PIL import Image

from omniq_verl import Scorer
from omniq_verl.data.images import FORMATS, MAX_PIXELS, MAX_RATIO, MIN_SIDE, BadImage
from omniq_verl.scoring.image_inputs import decode_source, load_source

_FRAMES = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
_ANIMATED = [
    saved(_FRAMES[0], kind, save_all=True, append_images=_FRAMES[1:]) for kind in ("GIF", "WEBP", "PNG", "TIFF")
]
_TURNED = [saved(smooth(), kind, exif=oriented(number)) for kind in ("JPEG", "PNG", "WEBP") for number in (3, 6)]
SEEDS = [*UNTOUCHED.values(), *(data for data, _ in EXACT.values()), *_ANIMATED, *_TURNED]
_DTYPES = ("uint8", "bool", "int8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64")
_scorer = Scorer("", RATER)


def make(rng: Random) -> Files:
    if rng.random() < 0.1:
        return {"array.npy": _array(rng)}
    data = mutated(rng, rng.choice(SEEDS), SEEDS)
    if data.startswith(b"\x89PNG") and rng.random() < 0.5:
        data = with_checksums(data)
    return {"image": data}


def _array(rng: Random) -> bytes:
    shape = [rng.choice((0, 1, 2, 3, 4, 5, 11, 16, 30)) for _ in range(rng.choice((0, 1, 2, 3, 3, 3, 4, 5)))]
    if rng.random() < 0.5:
        sides = [rng.choice((11, 16, 30)) for _ in range(2)]
        shape = rng.choice((sides, [*sides, 3], [*sides, 4], [3, *sides], [1, *sides, 3], [*sides, 1]))
    drawn = np.random.default_rng(rng.randrange(2**32))
    values = drawn.random(shape) * rng.choice((0, 1, 1, 255, 300)) - rng.choice((0, 0, 0, 0.5, 1))
    if np.size(values) and rng.random() < 0.2:
        np.asarray(values).reshape(-1)[0] = rng.choice((np.nan, np.inf, -np.inf, 1e300))
    with np.errstate(all="ignore"):
        array = np.asarray(values).astype(rng.choice(_DTYPES))
    if rng.random() < 0.2:
        array = array.T
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def run(files: Files, folder: Path) -> str:
    """The outcome, once all ways in agree about it."""
    if "array.npy" in files:
        return _run_array(np.load(io.BytesIO(files["array.npy"])))
    data = files["image"]
    path = folder / "image"
    path.write_bytes(data)
    found = _loaded(path)
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    check(_loaded(data) == found or not data, "bytes and path differ")
    check(_loaded(url) == found or not data, "data URL and path differ")
    picture = _picture(data)
    check(isinstance(found, str) == isinstance(picture, str), "load_source and decode_source differ")
    _check_pil(data, found, picture)
    if isinstance(found, bytes):
        _check_pixels(found, picture)
    _check_score(data, found, picture)
    return "rejected" if isinstance(found, str) else "accepted"


def _loaded(source: Any) -> bytes | str:
    try:
        return load_source(source)
    except BadImage as error:
        return _reason(error)


def _picture(source: Any) -> np.ndarray | str:
    try:
        image = decode_source(source)
    except BadImage as error:
        return _reason(error)
    check(image.mode == "RGB", f"decode_source returned {image.mode}")
    return np.asarray(image)


def _reason(error: BadImage) -> str:
    text = one_line(error, 600)
    check("\n" not in text, f"a reason of several lines: {text!r}")
    return text if " at 0x" not in text else text[: text.index(" at 0x")]


def _check_pil(data: bytes, found: bytes | str, picture: np.ndarray | str) -> None:
    """The unread PIL image is its file; what was read is at least no other picture."""
    try:
        image, read = (Image.open(io.BytesIO(data), formats=FORMATS) for _ in range(2))
    except Exception:  # whatever Pillow raises: then there is no PIL image
        return
    unread = _loaded(image)
    if image.format != "WEBP":  # which Pillow reads at once, so that it has no file any more
        check(unread == found, f"the PIL image and its file differ: {str(unread)[:200]} and {str(found)[:200]}")
    try:
        read.load()
    except Exception:
        return
    again = _picture(read)
    if not isinstance(picture, str):
        check(not isinstance(again, str), f"the file is accepted, its PIL image is rejected: {again}")
        check(np.array_equal(again, picture), "the PIL image and its file have other pixels")


def _check_pixels(row: bytes, picture: np.ndarray) -> None:
    """OpenCV, which shares no code with Pillow's Python, decodes the row to the pixels the model is shown."""
    height, width = picture.shape[:2]
    check(min(height, width) >= MIN_SIDE and height * width <= MAX_PIXELS, f"a picture of {width} x {height}")
    check(max(height, width) <= MAX_RATIO * min(height, width), f"a picture of {width} x {height}")
    check(load_source(row) == row, "the rule does not leave alone what it has made")
    other = cv2.imdecode(np.frombuffer(row, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if row.startswith(b"\x89PNG"):
        check(other is not None, "OpenCV cannot read the row")
    if other is None:
        return  # a damaged JPEG, of which Pillow decodes more
    away = np.abs(other[..., ::-1].astype(int) - picture)
    most = 0 if row.startswith(b"\x89PNG") else 3
    check(other.shape == picture.shape and away.max() <= most, f"OpenCV reads other pixels, by {away.max()}")


def _check_score(data: bytes, found: bytes | str, picture: np.ndarray | str) -> None:
    score = _scorer.score(data)
    check(score.ok == isinstance(found, bytes), f"status {score.status}: {score.error}")
    if score.ok:
        grey = np.asarray(Image.fromarray(picture).convert("L")).mean() / 255
        check(abs(score.score - (1 + 4 * grey)) < 0.03, f"score {score.score} of brightness {grey}")
    else:
        check(score.status == "bad_image" and score.score is None, f"{score.status} with score {score.score}")


def _run_array(array: np.ndarray) -> str:
    before = array.copy()
    picture = _picture(array)
    check(np.array_equal(array, before, equal_nan=array.dtype.kind == "f"), "the array was changed")
    if isinstance(picture, str):
        return "array rejected"
    sides = sorted(size for size in array.shape if size > 4)
    check(sorted(picture.shape[:2]) == sides, f"an array {array.shape} became a picture {picture.shape}")
    check(array.dtype.kind in "biu", f"an array of {array.dtype} without a stated range was accepted")
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        check(np.array_equal(picture, array), "a byte was changed")
    return "array accepted"
