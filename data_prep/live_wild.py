"""LIVE In the Wild Challenge (Ghadiyaram and Bovik 2016) -> parquet: technical quality of 1,162 photographs.

    omniq data live_wild --root ChallengeDB_release --out data/live_wild

Needs `AllImages_release.mat`, `AllMOS_release.mat` and `AllStdDev_release.mat` in one folder, or else pyiqa's
`meta_info_LIVEChallengeDataset.csv`, and the images (`Images/100.bmp`, ..., 627 of them `.JPG`) below --root. The label
is the MOS (0-100, higher is better), mapped from the lowest and highest label of the whole file, as DeQA-Score does.

The seven images the raters were shown to practise, `t1.bmp` to `t7.bmp`, are left out, as pyiqa and most papers do;
--training-images keeps them (1,169, as VisualQuality-R1 does). There is no official split. By default all images are
for testing, as in the papers; --split random draws 80 % for training by --seed; --deqa-meta takes DeQA-Score's list.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.deqa_labels import OPTIONS, add_options, count_of, map_of, reader
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError, read_mat
from omniq_verl.preparation.pyiqa_labels import read_pyiqa
from omniq_verl.preparation.readers import labelled, number

MOS = LabelMap(3.42, 92.4319526627219, "least and greatest MOS of all 1,169 images (DeQA-Score's rule)")
TRAINING = frozenset(f"t{number}.bmp" for number in range(1, 8))


def read_labels(request: Request) -> Iterator[Item]:
    path = request.label_file("AllImages_release.mat", "meta_info_LIVEChallengeDataset.csv")
    if path.suffix.lower() == ".csv":
        rows = ((name, score, row.get("std")) for name, score, row in read_pyiqa(path))
    else:
        rows = read_mats(path)
    for name, score, std in rows:
        if request.options.training_images or name not in TRAINING:
            yield labelled(name, score, standard_deviation=number(std))


def read_mats(path: Path) -> Iterator[tuple[Any, ...]]:
    names = ["".join(map(str, cell.ravel())).strip() for cell in read_mat(path, "AllImages_release").ravel()]
    scores = read_mat(path.with_name("AllMOS_release.mat"), "AllMOS_release").ravel().tolist()
    deviations = path.with_name("AllStdDev_release.mat")
    stds = read_mat(deviations, "AllStdDev_release").ravel().tolist() if deviations.exists() else [None] * len(names)
    if not len(names) == len(scores) == len(stds):
        counts = f"{len(names)} names, {len(scores)} scores and {len(stds)} deviations"
        raise LabelFileError(f"{path}: it and the files next to it have {counts}. Fix: take all from one download")
    return zip(names, scores, stds, strict=True)


def add_own_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser, "random")
    parser.add_argument("--training-images", action="store_true", help="keep t1.bmp to t7.bmp")


LIVE_WILD = DataSet(
    name="live_wild",
    tasks={"technical": MOS},
    read=reader(read_labels),
    folders=("Images", "LIVEC", "LIVE-WILD"),
    facts={
        "splits": "none official; see `options`: test = all, random = by image, DeQA-Score's list if `deqa_meta`",
        "labels": "AllMOS_release.mat; `standard_deviation` is AllStdDev_release.mat, of ratings on 0-100",
        "licence": "copyright of UT Austin; free use and copying with its notice and two citations (its README)",
    },
    add_options=add_own_options,
    label_map=map_of(MOS),
    own_options=(*OPTIONS, "training_images"),
    expected_rows=lambda options: count_of(1_169 if options.training_images else 1_162)(options),
)

if __name__ == "__main__":
    main(LIVE_WILD, __doc__)
