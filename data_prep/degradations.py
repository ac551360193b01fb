"""A folder of clean images -> parquet: the same images under one distortion each, which one, and how severe.

    omniq data degradations --root photos --out data/degradations --max-side 512 --shard-rows 512

Needs nothing but images below --root, in any folders; there are no label files. Each becomes --per-image rows: noise,
blur, compression or darkening at one of five levels, or null, which leaves it as it is, all with the same chance. There
are twenty operators (`omniq_verl/preparation/distortions.py`); --sheet draws them all. Use this for Q-Insight's
degradation task, which trains on 7,000 images of DQ-495K and tests on 1,000, if you do not have that data set.

Strengths are in pixels, as the model sees them: let --max-side bring photographs down to about what it is shown. Images
should be free of distortions, as JPEGs from cameras are once they are smaller. What an image gets, and its split,
depend on --seed and its name below --root, not on the others. Distorted images are PNG, so that nothing else is lost.
Bytes are the same on every machine with the same versions of Pillow, NumPy and SciPy; the card names them.
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
"""Side in pixels of an image of the sheet, cut from the middle: strengths have to be seen at their size."""
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
        raise LabelFileError(
            f"{options.out} lies below {root}, so that it would be read again. Fix: give another --out"
        )
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
    """All operators (down) at all levels (across) on the first image there is, behind the image itself."""
    clean = np.asarray(middle(first_image(index, max_side)))
    sheet = Image.new("RGB", ((len(LEVELS) + 1) * TILE, len(OPERATORS) * (TILE + 14)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(OPERATORS):
        for level in (0, *LEVELS):
            if level > len(OPERATORS[name].levels):
                continue
            image, said = (clean, {}) if level == 0 else degrade(clean, name, level, np.random.default_rng(seed))
            left, top = level * TILE, row * (TILE + 14)
            sheet.paste(Image.fromarray(image), (left, top + 14))
            words = " ".join(f"{key} {value:g}" for key, value in said.items())
            pen.text((left + 2, top), f"{SEVERITIES[level - 1]}: {words}" if level else name, "black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")


def first_image(index: FileIndex, max_side: int | None) -> Image.Image:
    for name in index.names():
        try:
            return smaller(decoded(load_image(index.root / name)), max_side)
        except BadImage:
            continue
    raise LabelFileError(f"{index.root}: there is no image below it that can be shown on a sheet")


def middle(image: Image.Image) -> Image.Image:
    width, height = (min(side, TILE) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--per-image", type=positive, default=1, help="different rows of each image (default: 1)")
    add(
        "--classes",
        nargs="+",
        type=class_name,
        choices=CLASSES,
        default=CLASSES,
        help="default: all; JPEG is compression",
    )
    add("--levels", nargs="+", type=int, choices=LEVELS, default=LEVELS, help="1 slight to 5 catastrophic")
    add("--seed", type=int, default=0, help="of all draws (default: 0)")
    add("--max-side", type=positive, help="bring the longer side down to so many pixels first (default: leave it)")
    add("--val-fraction", type=share, default=0.0, help="of the images, to draw (default: 0)")
    add("--test-fraction", type=share, default=0.125, help="of the images, to draw (default: 0.125, as 7,000 to 1,000)")
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
