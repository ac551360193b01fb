"""CSIQ (Larson and Chandler 2010) -> parquet: technical quality of 866 distorted pictures.

    omniq data csiq --root CSIQ --out data/csiq

Needs `csiq.DMOS.xlsx`, or the `csiq_label.txt` of many copies, or pyiqa's `meta_info_CSIQDataset.csv`, and
`dst_imgs/` below --root, with its folders (`awgn/1600.AWGN.1.png`) or flat; the references in `src_imgs/` are not
used. The label is a DMOS from 0 to 1 and LOWER is better: the score is 5 - 4 * DMOS.

There is no official split. By default all images are for testing, as the papers do; --split by-reference draws 80 % of
the 30 references for training by --seed; --deqa-meta takes DeQA-Score's list (test_csiq_866.json).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.deqa_labels import OPTIONS, add_options, count_of, map_of, reader
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_words, read_xlsx
from omniq_verl.preparation.pyiqa_labels import read_pyiqa
from omniq_verl.preparation.readers import labelled, number

DMOS = LabelMap(0.0, 1.0, "least and greatest DMOS of all 866 images, and its nominal range", higher_is_better=False)
LABEL_FILES = ("csiq.DMOS.xlsx", "csiq_label.txt", "meta_info_CSIQDataset.csv")
TOKENS = {
    **{"noise": "AWGN", "blur": "BLUR", "contrast": "contrast", "fnoise": "fnoise"},
    **{"jpeg": "JPEG", "jpeg 2000": "jpeg2000"},
}
"""Names of distortions in the workbook, and the corresponding names in file names."""
NAME = re.compile(r"(.+)\.(\w+)\.(\d)\.png", re.IGNORECASE)


def read_labels(request: Request) -> Iterator[Item]:
    for name, score, std in read_rows(request.label_file(*LABEL_FILES)):
        if found := NAME.fullmatch(name):
            parts = {"reference": f"{found[1]}.png", "distortion": found[2].lower(), "level": int(found[3])}
            yield labelled(name, score, standard_deviation=number(std), **parts)
        else:
            yield Item(name, "test", fault="its name is not of the form 1600.AWGN.1.png")


def read_rows(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the DMOS and, if the file has it, its standard deviation."""
    if path.suffix.lower() == ".csv":
        yield from ((name, score, row.get("std")) for name, score, row in read_pyiqa(path, references=True))
    elif path.suffix.lower() == ".txt":
        yield from ((name, score, None) for name, score in read_words(path, 2))
    else:
        for row in read_xlsx(path, ["image", "dst_type", "dst_lev", "dmos_std", "dmos"], "all_by_image"):
            yield file_name(row), row["dmos"], row["dmos_std"]


def file_name(row: dict[str, Any]) -> str:
    kind = str(row["dst_type"]).strip()
    return f"{row['image']}.{TOKENS.get(kind.lower(), kind)}.{row['dst_lev']}.png"


CSIQ = DataSet(
    name="csiq",
    tasks={"technical": DMOS},
    read=reader(read_labels),
    folders=("dst_imgs", "dst_imgs_all", "CSIQ"),
    facts={
        "splits": "none official; see `options`: test = all, by-reference never parts a reference's images",
        "labels": "column dmos of csiq.DMOS.xlsx, lower is better; `standard_deviation` is its column dmos_std",
        "licence": "see its owners' page (s2.smu.edu/~eclarson/csiq)",
    },
    add_options=lambda parser: add_options(parser, "by-reference"),
    label_map=map_of(DMOS),
    own_options=OPTIONS,
    expected_rows=count_of(866),
)

if __name__ == "__main__":
    main(CSIQ, __doc__)
