"""A small real data set of image quality, made from photographs that ship inside Python packages.

Crops of twenty photographs from scikit-image and scikit-learn, clean or with noise, blur, JPEG
compression or darkening at five levels. The target is a quality from 1 to 5 derived from SSIM against
the clean crop, not from the level. Training and held-out crops come from different photographs.

    omniq data photo_distortions --out data/photo_distortions --seed 0

writes train.parquet, val.parquet and test.parquet in verl's RL format, sft.parquet in verl's SFT format
and dataset_card.json. The same seed gives the same bytes. With --bootstrap N also bootstrap.parquet, from which a tiny
model learns to write plans and to reason by them.
"""

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import sklearn.datasets
from PIL import Image
from rich.progress import track
from scipy.ndimage import gaussian_filter
from skimage.color import gray2rgb
from skimage.metrics import structural_similarity

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row, sft_record
from omniq_verl.preparation.file_index import given_path
from omniq_verl.tasks import LEVELS, SEVERITIES, TECHNICAL
from omniq_verl.tiny import bootstrap

SOURCE = "photo_distortions"
PHOTOS = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "china", "clock", "coffee", "coins", "flower"),
    *("grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "motorcycle", "page"),
    *("retina", "rocket", "text"),
)
HELD_OUT = PHOTOS[2::3]
"""Every third photograph in alphabetical order, so that the choice is not biased towards easy ones."""

# Strength per level. The values are chosen so that SSIM falls from about 0.95 to about 0.2 (darken: 0.4) on these
# crops.
NOISE_STD = (8, 16, 28, 45, 70)  # of 255
BLUR_SIGMA = (0.6, 1.0, 1.5, 2.2, 3.5)  # pixels
JPEG_QUALITY = (40, 22, 12, 6, 2)
DARKEN_GAIN = (0.75, 0.55, 0.4, 0.27, 0.15)
MIN_CONTRAST = 12.0  # standard deviation, out of 255; flatter crops (sky, space) have no visible quality


@dataclass(frozen=True)
class Size:
    """Number of crops per file."""

    train: int = 4000
    sft: int = 8000
    val: int = 200
    test: int = 600
    bootstrap: int = 0


def load_photos() -> dict[str, np.ndarray]:
    """Load the photographs as uint8 RGB arrays ``[H, W, 3]``."""
    samples = sklearn.datasets.load_sample_images()
    photos = {Path(name).stem: image for name, image in zip(samples.filenames, samples.images, strict=True)}
    photos["motorcycle"] = skimage.data.stereo_motorcycle()[0]
    for name in set(PHOTOS) - set(photos):
        photos[name] = getattr(skimage.data, name)()
    return {name: photo if photo.ndim == 3 else gray2rgb(photo) for name, photo in photos.items()}


def distort(clean: np.ndarray, kind: str, level: int, rng: np.random.Generator) -> np.ndarray:
    """Apply one distortion to a crop; ``kind`` null leaves it unchanged. ``level`` starts at 0."""
    if kind == "null":
        return clean
    if kind == "compression":
        buffer = io.BytesIO()
        Image.fromarray(clean).save(buffer, "JPEG", quality=JPEG_QUALITY[level])
        return np.asarray(Image.open(buffer))
    pixels = clean.astype(np.float64)
    if kind == "noise":
        pixels = pixels + rng.normal(0, NOISE_STD[level], pixels.shape)
    elif kind == "blur":
        pixels = gaussian_filter(pixels, (BLUR_SIGMA[level], BLUR_SIGMA[level], 0))
    elif kind == "darken":
        pixels = pixels * DARKEN_GAIN[level]
    else:
        raise ValueError(f"unknown distortion {kind!r}")
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


KINDS = ("null", "noise", "blur", "compression", "darken")


def ssim(clean: np.ndarray, distorted: np.ndarray) -> float:
    """Compute SSIM with the settings of Wang et al. 2004 (Gaussian window, sigma 1.5)."""
    return structural_similarity(
        clean, distorted, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )


@dataclass(frozen=True)
class Crop:
    """One distorted crop with its SSIM."""

    row_id: str
    photo: str
    kind: str
    level: int
    ssim: float
    png: bytes


def make_crop(row_id: str, photos: dict[str, np.ndarray], names: list[str], size: int, seed: int) -> Crop:
    """Make the crop for a row id. Each id has its own random stream, so files can grow or shrink."""
    rng = np.random.default_rng([seed, *row_id.encode()])
    while True:
        name = names[rng.integers(len(names))]
        photo = photos[name]
        top, left = (rng.integers(side - size + 1) for side in photo.shape[:2])
        clean = photo[top : top + size, left : left + size]
        if clean.std() >= MIN_CONTRAST:
            break
    kind, level = KINDS[rng.integers(len(KINDS))], int(rng.integers(len(SEVERITIES)))
    distorted = distort(clean, kind, level, rng)
    buffer = io.BytesIO()
    Image.fromarray(distorted).save(buffer, "PNG")
    return Crop(row_id, name, kind, level, ssim(clean, distorted), buffer.getvalue())


def make_crops(split: str, count: int, names: list[str], photos: dict, size: int, seed: int) -> list[Crop]:
    ids = [f"{SOURCE}/{split}/{number:06d}" for number in range(count)]
    return [make_crop(row_id, photos, names, size, seed) for row_id in track(ids, f"{split:>5}")]


class QualityMap:
    """Maps SSIM to quality in [1, 5]: the share of distorted training crops with a lower SSIM, scaled to this range.

    Unlike with raw SSIM, equal intervals of quality then have equally many images. The order is preserved.
    """

    def __init__(self, training_ssim: list[float]):
        self.knots = np.quantile([value for value in training_ssim if value < 1.0], np.linspace(0, 1, 101))

    def __call__(self, value: float) -> float:
        share = np.interp(value, self.knots, np.linspace(0, 1, len(self.knots)))
        scale = TECHNICAL.scale
        return float(scale.low + (scale.high - scale.low) * share)


def to_row(crop: Crop, split: str, quality: QualityMap) -> Row:
    details = {"photo": crop.photo, "distortion": crop.kind, "level": crop.level if crop.kind != "null" else -1}
    return Row(
        data_source=SOURCE,
        row_id=crop.row_id,
        task=TECHNICAL.name,
        score=quality(crop.ssim),
        raw_score=crop.ssim,
        raw_bounds=(-1.0, 1.0),
        split=split,
        details=details,
    )


def cold_start_answer(crop: Crop, score: float, seed: int) -> str:
    """Write templated reasoning from the known distortion, and a score as coarse as its level.

    The number is drawn from the level's fifth of the scale and half of each neighbour. It teaches the structure, what
    to look for, and the level. Finer scores are left to reinforcement learning.
    """
    scale = TECHNICAL.scale
    word = scale.level(score)
    width = (scale.high - scale.low) / 5
    middle = scale.low + width * (LEVELS.index(word) + 0.5)
    rng = np.random.default_rng([seed + 1, *crop.row_id.encode()])
    number = np.clip(middle + rng.uniform(-width, width), scale.low, scale.high)
    return f"<think>{say(crop)}, {word} quality</think><answer>{number:.1f}</answer>"


def say(crop: Crop) -> str:
    """Describe the distortion of a crop in words."""
    return "no distortion" if crop.kind == "null" else f"{SEVERITIES[crop.level]} {crop.kind}"


def rl_records(crops: list[Crop], split: str, quality: QualityMap) -> Iterator[dict]:
    return (to_row(crop, split, quality).record(index, crop.png) for index, crop in enumerate(crops))


def sft_records(crops: list[Crop], quality: QualityMap, seed: int) -> Iterator[dict]:
    for crop in crops:
        row = to_row(crop, "sft", quality)
        yield sft_record(row, crop.png, cold_start_answer(crop, row.score, seed))


def bootstrap_records(crops: list[Crop], quality: QualityMap, seed: int) -> Iterator[dict]:
    rows = (
        (to_row(crop, "bootstrap", quality).record(number, crop.png), say(crop)) for number, crop in enumerate(crops)
    )
    return bootstrap.records(rows, seed)


def card(files: dict[str, int], quality: QualityMap, args: argparse.Namespace) -> dict:
    return {
        "data_source": SOURCE,
        "seed": args.seed,
        "crop_pixels": args.crop,
        "files": files,
        "train_photos": [name for name in PHOTOS if name not in HELD_OUT],
        "held_out_photos": HELD_OUT,
        "target": "quality in [1, 5]: rank of the crop's SSIM among distorted training crops",
        "ssim_percentiles_of_training": [round(float(knot), 6) for knot in quality.knots],
    }


def prepare(args: argparse.Namespace, size: Size) -> dict[str, int]:
    """Make all four files and the card, and return the number of rows per file."""
    photos = load_photos()
    names = {"train": [name for name in PHOTOS if name not in HELD_OUT], "test": HELD_OUT}
    names |= {"sft": names["train"], "bootstrap": names["train"], "val": names["test"]}
    crops = {
        split: make_crops(split, getattr(size, split), names[split], photos, args.crop, args.seed)
        for split in ("sft", "train", "val", "test", *(["bootstrap"] if size.bootstrap else []))
    }
    quality = QualityMap([crop.ssim for crop in crops["sft"]])
    records = {split: rl_records(crops[split], split, quality) for split in ("train", "val", "test")}
    records["sft"] = sft_records(crops["sft"], quality, args.seed)
    if size.bootstrap:
        records["bootstrap"] = bootstrap_records(crops["bootstrap"], quality, args.seed)
    files = {f"{split}.parquet": write_parquet(rows, args.out / f"{split}.parquet") for split, rows in records.items()}
    (args.out / "dataset_card.json").write_text(json.dumps(card(files, quality, args), indent=2) + "\n")
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=given_path, required=True, help="folder for the parquet files")
    parser.add_argument("--seed", type=int, default=0, help="seed of crops and distortions (default: 0)")
    parser.add_argument("--crop", type=int, default=80, help="side of a crop in pixels (default: %(default)s)")
    for split, count in vars(Size()).items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"crops in {split}.parquet (default: {count})")
    args = parser.parse_args()
    files = prepare(args, Size(args.train, args.sft, args.val, args.test, args.bootstrap))
    print(", ".join(f"{name}: {rows} rows" for name, rows in files.items()), "in", args.out)


if __name__ == "__main__":
    main()
