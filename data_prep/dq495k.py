"""DQ-495K's single distortions (DepictQA-Wild, You et al. 2024) -> parquet: which distortion, and how severe.

    omniq data dq495k --root DataDepictQA --out data/dq495k

Needs, below --root, the lists of one family (--lists) in `KADIS700K/<family>_brief/metas/`, or in the folder --labels,
and the images in `KADIS700K/.../dist_imgs/`, as PNG or JPEG. Noise, blur, compression, darken and no distortion are
used, as in Q-Insight; --jpeg-only leaves JPEG 2000 out of compression, a class that the paper calls "JPEG". The lists
of `A_sd` lack the mildest of those distortions that cannot be seen without the original. --test-rows 1000 draws 1,000
images of the test list, as many as Q-Insight tests on (sec. 4.1, which does not say which ones).
"""

import argparse
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main, positive
from omniq_verl.preparation.readers import draw, label_files, on_disk, read_records
from omniq_verl.tasks import DISTORTIONS, SEVERITIES

COMPRESSIONS = ("compression_jpeg", "compression_jpeg_2000")
LISTS = {
    "refA_sd": ("train_refA_sd_mix_112k.json", "test_refA_sd_single_28k.json"),
    "A_sd": ("train_A_sd_mix_98k_exclude.json", "test_A_sd_single_24k_exclude.json"),
}
OTHERS = (
    *("brighten", "contrast_strengthen", "contrast_weaken", "saturate_strengthen", "saturate_weaken"),
    *("oversharpen", "pixelate", "quantization"),
)


def read(request: Request) -> Iterator[Item]:
    for path in label_files(request, *LISTS[request.options.lists]):
        split = path.name.partition("_")[0].lower()
        asked = (one for one in read_records(path, ["image_A"]) if is_asked(one, request.options.jpeg_only))
        if split == "test" and request.options.test_rows is not None:
            asked = iter(drawn(list(asked), request.options.test_rows, request.options.seed))
        for record in asked:
            # Copies of the data set differ in the name of the parent folder and in the images' format.
            name = "/".join(PurePosixPath(record["image_A"]).parts[-3:])
            yield item(on_disk(request.index, name, ".jpg"), split, record)


def drawn(records: list[dict[str, Any]], rows: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``rows`` records, or all if there are fewer, in their order. A smaller draw is part of a larger one."""
    order = sorted(range(len(records)), key=lambda number: draw(seed, "dq495k", records[number]["image_A"]))
    return [records[number] for number in sorted(order[:rows])]


def is_asked(record: dict[str, Any], jpeg_only: bool) -> bool:
    """Whether to use a record. Only known other classes are skipped; unknown ones should appear among the rejects."""
    return record.get("distortion_class") not in OTHERS and not (
        jpeg_only and record.get("distortion_name") == COMPRESSIONS[1]
    )


def item(name: str, split: str, record: dict[str, Any]) -> Item:
    kind, severity = record.get("distortion_class"), record.get("severity")
    kind = None if kind in ("null", "None") else kind
    known = type(severity) is int and (severity == 0 if kind is None else 1 <= severity <= len(SEVERITIES))
    fault = None if known and kind in (None, *DISTORTIONS) else f"class {kind!r} has severity {severity!r}"
    if kind == "compression" and record.get("distortion_name") not in COMPRESSIONS:
        fault = f"compression is of the kind {record.get('distortion_name')!r}"
    return Item(
        name,
        split,
        distortion=kind,
        severity=SEVERITIES[severity - 1] if known and kind else None,
        details={key: record.get(key) for key in ("id", "distortion_name", "severity")},
        fault=fault,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lists", choices=list(LISTS), default="refA_sd", help="family of lists (default: refA_sd)")
    parser.add_argument("--jpeg-only", action="store_true", help="leave out JPEG 2000")
    parser.add_argument("--test-rows", type=positive, help="images to test on, drawn by --seed (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")


DQ495K = DataSet(
    name="dq495k",
    tasks={"degradation": None},
    read=read,
    facts={
        "splits": "by the names of the lists: train_*.json, test_*.json",
        "labels": f"classes {', '.join(DISTORTIONS)} and none; severity 1-5 of the lists in Q-Insight's words",
        "licence": "tag apache-2.0 of zhiyuanyou/DataDepictQA",
    },
    add_options=add_options,
    own_options=("lists", "jpeg_only", "test_rows", "seed"),
)

if __name__ == "__main__":
    main(DQ495K, __doc__)
