"""A folder of clean images -> parquet: the same images with one distortion each, its class, and how severe it is.

    omniq data degradations --root photos --out data/degradations --max-side 512 --shard-rows 512

Needs only images below --root, in any folders; there are no label files. Each becomes --per-image rows with noise,
blur, compression or darkening at one of five levels, or null (no change), all with the same probability. There are
twenty operators (`omniq_verl/preparation/distortions.py`); --sheet draws them all. Q-Insight's degradation task trains
on 7,000 images of DQ-495K and tests on 1,000; use this if you do not have that data set.

Strengths are in pixels at the size the model sees, so reduce photographs to about that size with --max-side. Images
should be free of distortions; JPEGs from cameras are, after they have been reduced. The distortion and split of an
image depend on --seed and its name below --root, not on other images. Distorted images are losslessly stored as PNG.
The output is byte-identical on every machine with the same versions of Pillow, NumPy and SciPy; the card names them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
import scipy
from PIL import Image, ImageDraw

from omniq_verl.data.images import BadImage, load_image
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main, positive
from omniq_verl.preparation.degrade import decoded, degradations_of, how_many, smaller
from omniq_verl.preparation.distortions import LEVELS, OPERATORS, degrade
from omniq_verl.preparation.file_index import FileIndex, given_path
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.readers import draw, share
from omniq_verl.rewards.degradation import canonical_class
from omniq_verl.tasks import DISTORTIONS, SEVERITIES

CLASSES = (*DISTORTIONS, "null")
TILE = 192
"""Side in pixels of the sheet's images, cropped from the middle because distortions must be seen at full size."""
OPTIONS = ("per_image", "classes", "levels", "seed", "max_side", "val_fraction", "test_fraction")


def read(request: Request) -> Iterator[Item]:
    options = request.options
    classes, levels = (tuple(dict.fromkeys(given)) for given in (options.classes, options.levels))
    check(request, how_many(classes, levels))
    if options.sheet:
        write_sheet(options.sheet, request.index, options.seed, options.max_side)
    for name in request.index.names():
        made = degradations_of(name, options.per_image, options.seed, classes, levels, options.max_side)
        for number, degradation in enumerate(made, 1):
            yield Item(
                name,
                split_of(name, options),
                distortion=degradation.distortion,
                severity=degradation.severity,
                details={"reference": name, **degradation.details()},
                version=f"#{number}",
                change=degradation,
            )


def check(request: Request, known: int) -> None:
    options, root = request.options, request.index.root
    if options.val_fraction + options.test_fraction > 1.0:
        raise LabelFileError("--val-fraction and --test-fraction make more than 1")
    if options.out.resolve().is_relative_to(root):
        raise LabelFileError(f"{options.out} is below {root}, so it would be read again. Fix: choose another --out")
    if options.sheet and options.sheet.resolve().is_relative_to(root):
        raise LabelFileError(
            f"--sheet {options.sheet} would be one of the images below {root}. Fix: write it elsewhere"
        )
    if options.per_image > known:
        raise LabelFileError(f"--per-image {options.per_image}: there are {known} of these classes and levels")


def split_of(name: str, options: argparse.Namespace) -> str:
    drawn = draw(options.seed, name, "split")
    if drawn < options.test_fraction:
        return "test"
    return "val" if drawn < options.test_fraction + options.val_fraction else "train"


def write_sheet(path: Path, index: FileIndex, seed: int, max_side: int | None) -> None:
    """Draw all operators (rows) at all levels (columns) for the first usable image, after the image itself."""
    clean = np.asarray(middle(first_image(index, max_side)))
    sheet = Image.new("RGB", ((len(LEVELS) + 1) * TILE, len(OPERATORS) * (TILE + 14)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(OPERATORS):
        for level in (0, *LEVELS):
            if level > len(OPERATORS[name].levels):
                continue
            image, parameters = (clean, {}) if level == 0 else degrade(clean, name, level, np.random.default_rng(seed))
            left, top = level * TILE, row * (TILE + 14)
            sheet.paste(Image.fromarray(image), (left, top + 14))
            words = " ".join(f"{key} {value:g}" for key, value in parameters.items())
            pen.text((left + 2, top), f"{SEVERITIES[level - 1]}: {words}" if level else name, "black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")


def first_image(index: FileIndex, max_side: int | None) -> Image.Image:
    for name in index.names():
        try:
            return smaller(decoded(load_image(index.root / name)), max_side)
        except BadImage:
            continue
    raise LabelFileError(f"{index.root}: none of the images below it can be shown on a sheet")


def middle(image: Image.Image) -> Image.Image:
    width, height = (min(side, TILE) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--per-image", type=positive, default=1, help="different rows per image (default: 1)")
    add(
        "--classes",
        nargs="+",
        type=class_name,
        choices=CLASSES,
        default=CLASSES,
        help="default: all; JPEG is compression",
    )
    add("--levels", nargs="+", type=int, choices=LEVELS, default=LEVELS, help="1 slight to 5 catastrophic")
    add("--seed", type=int, default=0, help="seed of all draws (default: 0)")
    add("--max-side", type=positive, help="first reduce the longer side to this many pixels (default: no reduction)")
    add("--val-fraction", type=share, default=0.0, help="validation share of the images (default: 0)")
    add(
        "--test-fraction",
        type=share,
        default=0.125,
        help="test share of the images (default: 0.125, as 1,000 to 7,000)",
    )
    add("--sheet", type=given_path, help="PNG for all operators at all levels on the first image")


def class_name(given: str) -> str:
    return canonical_class(given) or "null"


DEGRADATIONS = DataSet(
    name="degradations",
    tasks={"degradation": None},
    read=read,
    facts={
        "splits": "drawn by --seed and the clean image's name, so that all rows of an image are in one",
        "labels": f"class and severity of what was done; `level` 1-5 is {', '.join(SEVERITIES)}, 0 for none",
        "licence": "that of the clean images",
        "operators": {name: dict(operator.strengths) for name, operator in OPERATORS.items()},
        "libraries": {"pillow": PIL.__version__, "numpy": np.__version__, "scipy": scipy.__version__},
    },
    add_options=add_options,
    own_options=OPTIONS,
)

if __name__ == "__main__":
    main(DEGRADATIONS, __doc__)
