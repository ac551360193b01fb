"""TID2013 (Ponomarenko et al. 2015) -> parquet: technical quality of 3,000 distorted pictures.

    omniq data tid2013 --root tid2013 --out data/tid2013

Needs `mos_with_names.txt` (optionally with `mos_std.txt` next to it), or pyiqa's `meta_info_TID2013Dataset.csv`, and
`distorted_images/` below --root; the case of names does not matter (`I01_01_1.bmp` next to `i01_01_2.bmp` and
`i01_11_1.BMP`), and `reference_images/` is not used. TID2008 has files of the same names: do not put both below --root.
The label is the MOS (0-9, higher is better), mapped from the lowest and highest label of the whole file, as DeQA-Score
does.

There is no official split. By default all images are for testing, as in DeQA-Score; --split by-reference draws 80 % of
the 25 references for training by --seed; --deqa-meta takes DeQA-Score's list (test_tid2013_3k.json).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.deqa_labels import OPTIONS, add_options, count_of, map_of, reader
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError, read_words
from omniq_verl.preparation.pyiqa_labels import read_pyiqa
from omniq_verl.preparation.readers import labelled, number

MOS = LabelMap(0.24242, 7.21429, "least and greatest MOS of all 3,000 images (DeQA-Score's rule)")
NAME = re.compile(r"i(\d\d)_(\d\d)_(\d)\.bmp", re.IGNORECASE)
DISTORTIONS = (
    *("additive_gaussian_noise", "color_noise", "spatially_correlated_noise", "masked_noise", "high_frequency_noise"),
    *("impulse_noise", "quantization_noise", "gaussian_blur", "denoising", "jpeg", "jpeg2000"),
    *("jpeg_transmission_errors", "jpeg2000_transmission_errors", "non_eccentricity_pattern_noise"),
    *("local_blockwise_distortions", "mean_shift", "contrast_change", "color_saturation_change"),
    *("multiplicative_gaussian_noise", "comfort_noise", "lossy_compression_of_noisy_image"),
    *("color_quantization_with_dither", "chromatic_aberrations", "sparse_sampling"),
)
"""Names of distortions by the code in a file name, starting with 01."""


def read_labels(request: Request) -> Iterator[Item]:
    for name, score, error in read_rows(request.label_file("mos_with_names.txt", "meta_info_TID2013Dataset.csv")):
        found = NAME.fullmatch(name)
        if not found or not 1 <= int(found[2]) <= len(DISTORTIONS):
            yield Item(name, "test", fault="its name is not of the form i01_01_1.bmp")
            continue
        parts = {"reference": f"I{found[1]}.BMP", "distortion": DISTORTIONS[int(found[2]) - 1], "level": int(found[3])}
        yield labelled(name, score, standard_error=number(error), **parts)


def read_rows(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Return name, MOS and, if it is known, its standard error."""
    if path.suffix.lower() == ".csv":
        return ((name, score, row.get("std")) for name, score, row in read_pyiqa(path, references=True))
    rows = list(read_words(path, 2))
    beside = path.with_name("mos_std.txt")
    errors = [word for (word,) in read_words(beside, 1)] if beside.exists() else [None] * len(rows)
    if len(errors) != len(rows):
        counts = f"{len(errors)} lines, {path.name} {len(rows)}"
        raise LabelFileError(f"{beside}: it has {counts}. Fix: take both from one download, or remove it")
    return ((name, score, error) for (score, name), error in zip(rows, errors, strict=True))


TID2013 = DataSet(
    name="tid2013",
    tasks={"technical": MOS},
    read=reader(read_labels),
    folders=("tid2013", "distorted_images"),
    facts={
        "splits": "none official; see `options`: test = all, by-reference never parts a reference's images",
        "labels": "mos_with_names.txt, mean number of won comparisons; mos_std.txt, a standard error",
        "licence": "see its readme (TID2008's allows education and research only)",
    },
    add_options=lambda parser: add_options(parser, "by-reference"),
    label_map=map_of(MOS),
    own_options=OPTIONS,
    expected_rows=count_of(3_000),
)

if __name__ == "__main__":
    main(TID2013, __doc__)
