"""KADID-10k (Lin et al. 2019) -> parquet: technical quality of 10,125 distorted pictures.

    omniq data kadid --root kadid10k --out data/kadid

Needs `dmos.csv`, or else pyiqa's `meta_info_KADID10kDataset.csv`, and `images/` below --root, where the 81 references
(`I01.png`) are next to their 125 distorted versions each (`I01_01_01.png`: reference, distortion, level); only these
are used. The label's column is called `dmos`, yet higher is better (1-5); it is mapped from the lowest and highest
label of the whole file, as DeQA-Score and VisualQuality-R1 do.

There is no official split. By default all images are for testing, as after training on KonIQ; --split by-reference
draws 80 % of the references for training by --seed; deqa takes I01-I65 for training and I66-I81 for testing, as
DeQA-Score does (which drops 19 of the 8,125); visualquality-r1 takes that paper's 49, 16 and 16 references for train,
val and test. --deqa-meta takes DeQA-Score's lists themselves.
"""

import math
import re
from collections.abc import Iterator

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.deqa_labels import OPTIONS, add_options, count_of, map_of, reader
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_csv
from omniq_verl.preparation.pyiqa_labels import is_pyiqa, read_pyiqa
from omniq_verl.preparation.readers import labelled, number

DMOS = LabelMap(1.0, 4.93, "least and greatest dmos of all 10,125 images (rule of DeQA-Score and VisualQuality-R1)")
NAME = re.compile(r"(I\d\d)_(\d\d)_(\d\d)\.png", re.IGNORECASE)
DISTORTIONS = (
    *("gaussian_blur", "lens_blur", "motion_blur", "color_diffusion", "color_shift", "color_quantization"),
    *("color_saturation_1", "color_saturation_2", "jpeg2000", "jpeg", "white_noise", "white_noise_color_component"),
    *("impulse_noise", "multiplicative_noise", "denoise", "brighten", "darken", "mean_shift", "jitter"),
    *("non_eccentricity_patch", "pixelate", "quantization", "color_block", "high_sharpen", "contrast_change"),
)
"""Names of distortions by the code in a file name, starting with 01."""
_VAL = (7, 12, 14, 15, 16, 27, 32, 35, 36, 41, 44, 49, 55, 66, 67, 70)
_TEST = (19, 29, 30, 34, 37, 38, 43, 50, 64, 71, 72, 73, 74, 78, 80, 81)
FIXED = {
    "deqa": {f"i{ref}": "test" for ref in range(66, 82)},
    "visualquality-r1": {f"i{ref:02d}": side for side, refs in {"val": _VAL, "test": _TEST}.items() for ref in refs},
}
"""References that are not used for training."""


def read_labels(request: Request) -> Iterator[Item]:
    path = request.label_file("dmos.csv", "meta_info_KADID10kDataset.csv")
    if is_pyiqa(path):
        # The column std of pyiqa's file contains the variance, too.
        rows = ((name, score, next(iter(row.values())), row.get("std")) for name, score, row in read_pyiqa(path, True))
    else:
        table = read_csv(path, ["dist_img", "ref_img", "dmos", "var"])
        rows = ((row["dist_img"], row["dmos"], row["ref_img"], row["var"]) for row in table)
    for name, score, reference, variance in rows:
        found = NAME.fullmatch(name)
        if found and reference.lower() == f"{found[1]}.png".lower() and 1 <= int(found[2]) <= len(DISTORTIONS):
            parts = {"reference": reference, "distortion": DISTORTIONS[int(found[2]) - 1], "level": int(found[3])}
            yield labelled(name, score, standard_deviation=root(variance), **parts)
        else:
            yield Item(
                name, "test", fault=f"its name, with the reference {reference!r}, is not of the form I01_01_01.png"
            )


def root(variance: str | None) -> float | None:
    found = number(variance)
    return None if found is None or found < 0 else math.sqrt(found)


KADID = DataSet(
    name="kadid",
    tasks={"technical": DMOS},
    read=reader(read_labels, FIXED),
    folders=("kadid10k", "distorted_images"),
    facts={
        "splits": "none official; see `options`: test = all, the others never part a reference's images",
        "labels": "column dmos of dmos.csv, higher is better; `standard_deviation` is the root of its column var",
        "licence": "see its owners' page (database.mmsp-kn.de)",
    },
    add_options=lambda parser: add_options(parser, "by-reference", *FIXED),
    label_map=map_of(DMOS),
    own_options=OPTIONS,
    expected_rows=count_of(10_125),
)

if __name__ == "__main__":
    main(KADID, __doc__)
