"""AVA (Murray et al. 2012) -> parquet: the beauty of 255,530 photographs, rated from 1 to 10.

    omniq data ava --root AVA_dataset --out data/ava

Needs `AVA.txt`, `generic_test.jpgl` (in `aesthetics_image_lists/`) and the images, in `images/` or `ava_images/`, below
--root; --labels names the folder of the first two, if it is a different one. The label is the mean of an image's
ratings. It is mapped from 1-10 to the scale, not from the lowest and highest mean, which would make it depend on two
images.
"""

import argparse
from collections.abc import Iterator

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_lines, read_words
from omniq_verl.preparation.readers import draw, label_files, number, share

VAL = 0.004  # about 940 images; KonIQ has 1,000
COLUMNS = 15  # number, image, votes for 1 to 10, two content tags, challenge


def read(request: Request) -> Iterator[Item]:
    ratings, test_list = label_files(request, "AVA.txt", "generic_test.jpgl")
    test = {line.strip().removesuffix(".jpg") for line in read_lines(test_list)}
    for _, image, *counts, tag, other_tag, challenge in read_words(ratings, COLUMNS):
        votes = [vote for vote in map(whole, counts) if vote is not None]
        fault = None if len(votes) == len(counts) else f"its counts are {' '.join(counts)}"
        fault = fault or (None if sum(votes) else "nobody rated it")
        yield Item(
            f"{image}.jpg",
            "test" if image in test else split_of(image, request.options),
            None if fault else sum(rating * count for rating, count in enumerate(votes, 1)) / sum(votes),
            details={"votes": votes, "tags": [tag, other_tag], "challenge": challenge},
            fault=fault,
        )


def whole(cell: str) -> int | None:
    """Parse a number of votes. Tables that were saved again contain it as "12.0"."""
    value = number(cell)
    return int(value) if value is not None and value >= 0 and value == int(value) else None


def split_of(image: str, options: argparse.Namespace) -> str:
    return "val" if draw(options.seed, image) < options.val_fraction else "train"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--val-fraction", type=share, default=VAL, help=f"share of the rest for validation (default: {VAL})"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that choice (default: 0)")


AVA = DataSet(
    name="ava",
    tasks={"aesthetic": LabelMap(1.0, 10.0, "least and greatest rating there is (ours: no paper gives its map)")},
    read=read,
    folders=("images", "ava_images", "image"),
    facts={
        "splits": "test: generic_test.jpgl (20,000 images, of which 19,930 exist); val: a draw by --seed and the"
        " image's name from the rest; train: all else",
        "licence": "images belong to their photographers and may not be passed on (README of AVA)",
    },
    add_options=add_options,
    own_options=("val_fraction", "seed"),
    expected_rows=lambda options: 255_530,
)

if __name__ == "__main__":
    main(AVA, __doc__)
