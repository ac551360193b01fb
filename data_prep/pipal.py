"""PIPAL (Gu et al. 2020) -> parquet: technical quality of 23,200 restored and distorted pictures.

    omniq data pipal --root PIPAL --out data/pipal

Needs the labels of the training set, `Train_Label/A0001.txt` and so on (200 files), or else NTIRE 2022's single
`pipal22_train.txt`, or pyiqa's `meta_info_PIPALDataset.csv`, and the images below --root, in `Distortion_1/` to
`Distortion_4/`, `Dist_Imgs/` or elsewhere; the references in `Train_Ref/` are not used. --labels may name the folder of
the 200 files. The label is an Elo score (917-1836, higher is better), mapped from the lowest and highest label of the
training set, as DeQA-Score does. Labels of the validation and test sets of NTIRE are not read: the latter were never
published.

By default all images are for testing, as after training on KonIQ; --split by-reference draws 80 % of the 200 references
(18,560 images) for training by --seed; --deqa-meta takes DeQA-Score's lists (train_pipal_19k.json, test_pipal_5k.json).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.deqa_labels import OPTIONS, add_options, count_of, map_of, reader
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_lines
from omniq_verl.preparation.pyiqa_labels import read_pyiqa
from omniq_verl.preparation.readers import labelled

ELO = LabelMap(916.7136, 1835.9856, "least and greatest score of all 23,200 training images (DeQA-Score's rule)")
NAME = re.compile(r"(A\d{4})_(\d\d)_(\d\d)\.bmp", re.IGNORECASE)
LAST = 250
"""Number of the last reference in any set."""


def read_labels(request: Request) -> Iterator[Item]:
    for name, score in (row for path in label_files(request) for row in read_rows(path)):
        if found := NAME.fullmatch(name):
            yield labelled(name, score, reference=f"{found[1]}.bmp", distortion=found[2], variant=found[3])
        else:
            yield Item(name, "test", fault="its name is not of the form A0001_00_00.bmp")


def label_files(request: Request) -> list[Path]:
    """Return the label files: one per reference, or one for all."""
    given = request.labels
    index = FileIndex(given) if given and given.is_dir() else request.index
    if given is None or given.is_dir():
        names = (f"A{number:04d}.txt" for number in range(1, LAST + 1))
        if found := [path for name in names if (path := index.find(name, "Train_Label", "MOS_Scores_train"))]:
            return found
    return [request.label_file("A0001.txt", "pipal22_train.txt", "meta_info_PIPALDataset.csv")]


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix.lower() == ".csv":
        yield from ((name, score) for name, score, _ in read_pyiqa(path, references=True))
        return
    for line in read_lines(path):
        if line.strip():
            name, _, score = line.partition(",")
            yield name, score


PIPAL = DataSet(
    name="pipal",
    tasks={"technical": ELO},
    read=reader(read_labels),
    folders=("Dist_Imgs", "PIPAL"),
    facts={
        "splits": "of its training set; see `options`: test = all, by-reference never parts a reference's images",
        "labels": "Elo scores of Train_Label; `distortion` and `variant` in the details are the codes in the name",
        "licence": "none stated by its owners (github.com/HaomingCai/PIPAL-dataset)",
    },
    add_options=lambda parser: add_options(parser, "by-reference"),
    label_map=map_of(ELO),
    own_options=OPTIONS,
    expected_rows=count_of(23_200),
)

if __name__ == "__main__":
    main(PIPAL, __doc__)
