"""SPAQ (Fang et al. 2020) -> parquet: technical quality of 11,125 photographs taken with smartphones.

    omniq data spaq --root SPAQ --out data/spaq

Needs `MOS and Image attribute scores.xlsx`, or else pyiqa's `meta_info_SPAQDataset.csv`, and the images,
`TestImage/00001.jpg` to `11125.jpg`, below --root. The label is the MOS (0-100, higher is better), mapped from the
lowest and highest label of the whole file, as DeQA-Score and VisualQuality-R1 do.

There is no official split. By default all images are for testing, as in VisualQuality-R1; --split random draws 80 % of
the images for training by --seed; --deqa-meta takes the lists of DeQA-Score (train_spaq_9k.json, test_spaq_2k.json).
"""

from collections.abc import Iterator

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.deqa_labels import OPTIONS, add_options, count_of, map_of, reader
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_xlsx
from omniq_verl.preparation.pyiqa_labels import read_pyiqa
from omniq_verl.preparation.readers import labelled, number

MOS = LabelMap(2.0, 96.0, "least and greatest MOS of all 11,125 images (rule of DeQA-Score and VisualQuality-R1)")
ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")


def read_labels(request: Request) -> Iterator[Item]:
    path = request.label_file("MOS and Image attribute scores.xlsx", "meta_info_SPAQDataset.csv")
    if path.suffix.lower() == ".csv":
        # pyiqa's file has a second column Brightness, from the EXIF tags, which would replace the first.
        rows = ((name, score, {**row, "Brightness": None}) for name, score, row in read_pyiqa(path))
    else:
        rows = ((row["Image name"], row["MOS"], row) for row in read_xlsx(path, ["Image name", "MOS", *ATTRIBUTES]))
    for name, score, row in rows:
        yield labelled(name, score, **{key.lower(): number(row.get(key)) for key in ATTRIBUTES})


SPAQ = DataSet(
    name="spaq",
    tasks={"technical": MOS},
    read=reader(read_labels),
    folders=("TestImage", "SPAQ"),
    facts={
        "splits": "none official; see `options`: test = all, random = by image, DeQA-Score's lists if `deqa_meta`",
        "labels": "column MOS of `MOS and Image attribute scores.xlsx`; it has no standard deviations",
        "licence": "none stated by its owners (github.com/h4nwei/SPAQ)",
    },
    add_options=lambda parser: add_options(parser, "random"),
    label_map=map_of(MOS),
    own_options=OPTIONS,
    expected_rows=count_of(11_125),
)

if __name__ == "__main__":
    main(SPAQ, __doc__)
