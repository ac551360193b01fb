"""Label files of the technical data sets in the exact form of their owners, whole size, and in pyiqa's.

Names, counts, ranges and the golden rows are the real ones; the other scores are evenly spread.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reader_builders import options_of

from data_prep.csiq import CSIQ
from data_prep.kadid import KADID
from data_prep.live_wild import LIVE_WILD
from data_prep.pipal import PIPAL
from data_prep.spaq import SPAQ
from data_prep.tid2013 import TID2013
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet


@dataclass(frozen=True)
class Label:
    """What is known of one image."""

    name: str
    score: Any
    spread: Any = None
    """Standard deviation, variance or standard error, as the data set gives it."""
    reference: str = ""


def evenly(names: Sequence[str], low: float, high: float, golden: Mapping[str, tuple]) -> list[Label]:
    """Labels between two bounds; golden: real score and spread by name."""
    scores = [round(float(score), 5) for score in np.linspace(low, high, len(names))]
    return [Label(name, *golden.get(name, (score, 0.5))) for name, score in zip(names, scores, strict=True)]


def with_references(labels: Iterable[Label], of: Any) -> list[Label]:
    return [Label(label.name, label.score, label.spread, of(label.name)) for label in labels]


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def table(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> Path:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header.split(","), *rows])
    return text(path, buffer.getvalue())


def workbook(path: Path, sheets: Mapping[str, Iterable[Sequence[Any]]]) -> Path:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


# SPAQ

SPAQ_ATTRIBUTES = (47.43, 55.57, 55.71, 37.86, 42.57)
_SPAQ = {"00001.jpg": (48.86,), "07248.jpg": (96.0,), "07338.jpg": (2.0,), "11125.jpg": (10.8,)}


def spaq_labels(count: int = 11125) -> list[Label]:
    return evenly([f"{number:05d}.jpg" for number in range(1, count + 1)], 2.0, 96.0, _SPAQ)


def spaq(folder: Path, labels: Iterable[Label]) -> Path:
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    rows = [[label.name, label.score, *SPAQ_ATTRIBUTES] for label in labels]
    return workbook(folder / "Annotations" / "MOS and Image attribute scores.xlsx", {"Sheet1": [header, *rows]})


def spaq_pyiqa(folder: Path, labels: Iterable[Label]) -> Path:
    scenes = "Animal,Cityscape,Human,Indoor scene,Landscape,Night scene,Plant,Still-life,Others"
    exif = "Focal length,F-number,Exposure time,ISO,Brightness,Flash,Time0,Time1"
    header = f"Image name,MOS,Brightness,Colorfulness,Contrast,Noisiness,Sharpness,{scenes},{exif}"
    others = [0.0] * 9 + [4.2, 1.7, 0.1, 200, -1.21, 0, -0.97, -0.26]
    rows = ([label.name, label.score, *SPAQ_ATTRIBUTES, *others] for label in labels)
    return table(folder / "meta_info_SPAQDataset.csv", header, rows)


# LIVE In the Wild

_LIVE = {
    "t1.bmp": (63.963406174124174, 18.376200073180403),
    "100.bmp": (32.56107532210109, 19.12472638223644),
    "200.bmp": (3.42, 6.76),
    "800.JPG": (92.4319526627219, 28.59),
}


def live_wild_labels() -> list[Label]:
    names = [f"t{number}.bmp" for number in range(1, 8)]
    names += [f"{number}.bmp" for number in range(100, 635)] + [f"{number}.JPG" for number in range(635, 1262)]
    return evenly(names, 3.42, 92.4319526627219, _LIVE)


def live_wild(folder: Path, labels: Sequence[Label]) -> Path:
    from scipy.io import savemat

    cells = np.empty((len(labels), 1), dtype=object)
    cells[:, 0] = [label.name for label in labels]
    (folder / "Data").mkdir(parents=True, exist_ok=True)
    for name, values in {
        "AllImages_release": cells,
        "AllMOS_release": np.array([[label.score for label in labels]]),
        "AllStdDev_release": np.array([[label.spread for label in labels]]),
    }.items():
        savemat(folder / "Data" / f"{name}.mat", {name: values})
    return folder / "Data" / "AllImages_release.mat"


def live_wild_pyiqa(folder: Path, labels: Iterable[Label]) -> Path:
    rows = ([label.name, label.score, label.spread] for label in labels)
    return table(folder / "meta_info_LIVEChallengeDataset.csv", "img_name,mos,std", rows)


# KADID-10k

_KADID = {
    "I01_01_01.png": (4.57, 0.496),
    "I02_02_05.png": (1, 0),
    "I23_03_01.png": (4.93, 0.249),
    "I81_25_05.png": (3.27, 0.772),
}


def kadid_labels() -> list[Label]:
    numbers = [(ref, kind, level) for ref in range(1, 82) for kind in range(1, 26) for level in range(1, 6)]
    names = [f"I{ref:02d}_{kind:02d}_{level:02d}.png" for ref, kind, level in numbers]
    return with_references(evenly(names, 1.0, 4.93, _KADID), lambda name: f"{name[:3]}.png")


def kadid(folder: Path, labels: Iterable[Label]) -> Path:
    rows = ([label.name, label.reference, label.score, label.spread] for label in labels)
    return table(folder / "dmos.csv", "dist_img,ref_img,dmos,var", rows)


def kadid_pyiqa(folder: Path, labels: Iterable[Label]) -> Path:
    rows = ([label.reference, label.name, label.score, label.spread] for label in labels)
    return table(folder / "meta_info_KADID10kDataset.csv", "ref_name,dist_name,dmos,std", rows)


# PIPAL

_PIPAL = {
    "A0001_00_00.bmp": (1520.0648,),
    "A0001_01_07.bmp": (1516.9305,),
    "A0002_00_00.bmp": (916.7136,),
    "A0003_06_26.bmp": (1835.9856,),
    "A0248_06_26.bmp": (1257.0600,),
}
PIPAL_KINDS = (12, 16, 10, 24, 13, 14, 27)
"""Images of a reference by type of distortion."""


def pipal_labels() -> list[Label]:
    refs = [ref for ref in range(1, 250) if ref % 5]  # 200 of the 250 references; the others are NTIRE's
    kinds = [(kind, number) for kind, count in enumerate(PIPAL_KINDS) for number in range(count)]
    names = [f"A{ref:04d}_{kind:02d}_{number:02d}.bmp" for ref in refs for kind, number in kinds]
    return with_references(evenly(names, 916.7136, 1835.9856, _PIPAL), lambda name: f"{name[:5]}.bmp")


def pipal(folder: Path, labels: Iterable[Label]) -> Path:
    files: dict[str, list[str]] = {}
    for label in labels:
        files.setdefault(label.reference.replace(".bmp", ".txt"), []).append(f"{label.name},{label.score}\n")
    for name, lines in files.items():
        text(folder / "Train_Label" / name, "".join(lines))
    return folder / "Train_Label"


def pipal_ntire22(folder: Path, labels: Iterable[Label]) -> Path:
    return text(folder / "pipal22_train.txt", "".join(f"{label.name}, {label.score}\n" for label in labels))


def pipal_pyiqa(folder: Path, labels: Iterable[Label]) -> Path:
    rows = ([label.reference, label.name, label.score] for label in labels)
    return table(folder / "meta_info_PIPALDataset.csv", "hq_name,dist_name,elo_score", rows)


# CSIQ

CSIQ_TYPES = {
    **{"noise": "AWGN", "blur": "BLUR", "contrast": "contrast", "fnoise": "fnoise"},
    **{"jpeg": "JPEG", "jpeg 2000": "jpeg2000"},
}
_CSIQ_PICTURES = (
    *("1600", "aerial_city", "boston", "bridge", "butter_flower", "cactus", "child_swimming", "couple", "elk"),
    *("family", "fisher", "foxy", "geckos", "lady_liberty", "lake", "log_seaside", "monument", "native_american"),
    *("redwood", "roping", "rushmore", "shroom", "snow_leaves", "sunset_sparrow", "sunsetcolor", "swarm", "trolley"),
    *("turtle", "veggies", "woman"),
)
_CSIQ = {
    "1600.AWGN.1.png": (0.061989, 0.0610),
    "woman.contrast.4.png": (0.468556, 0.0800),
    "bridge.BLUR.1.png": (0.0, 0.01),
    "elk.jpeg2000.5.png": (1.0, 0.02),
}


def csiq_labels() -> list[Label]:
    names = [
        f"{picture}.{token}.{level}.png"
        for picture in _CSIQ_PICTURES
        for token in CSIQ_TYPES.values()
        for level in range(1, 5 if token == "contrast" else 6)
    ]
    without = [f"{picture}.contrast.4.png" for picture in ("boston", "fisher", "lake", "swarm")]
    kept = [name for name in names if name not in without]
    return with_references(evenly(kept, 0.0, 1.0, _CSIQ), lambda name: f"{name.split('.')[0]}.png")


def csiq(folder: Path, labels: Iterable[Label]) -> Path:
    kinds = {token: kind for kind, token in CSIQ_TYPES.items()}
    header = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    rows: list[list[Any]] = [[], ["CSIQ"], [], [None] * 3 + header]
    for label in labels:
        picture, token, level, _ = label.name.split(".")
        ref = list(CSIQ_TYPES.values()).index(token) + 1
        named = int(picture) if picture.isdecimal() else picture
        rows.append([None] * 3 + [named, ref, kinds[token], int(level), label.spread, label.score])
    others = [["#REF!", "#REF!"], ["image", "dmos"]]
    return workbook(folder / "csiq.DMOS.xlsx", {"summary": others, "all_by_image": rows, "all_by_type": others})


def csiq_words(folder: Path, labels: Iterable[Label]) -> Path:
    return text(folder / "csiq_label.txt", "".join(f"{label.name} {label.score}\n" for label in labels))


def csiq_pyiqa(folder: Path, labels: Iterable[Label]) -> Path:
    rows = ([label.reference, label.name, label.score] for label in labels)
    return table(folder / "meta_info_CSIQDataset.csv", "ref_name,dist_name,dmos", rows)


# TID2013

_TID = {
    "I01_01_1.bmp": (5.51429, 0.13013),
    "i01_01_2.bmp": (5.56757, 0.16008),
    "i02_08_5.bmp": (0.24242, 0.0),
    "i03_16_1.bmp": (7.21429, 0.30),
    "i25_24_5.bmp": (2.77143, 0.14047),
}


def tid_name(ref: int, kind: int, level: int) -> str:
    """In the mixed case of the real files."""
    first = "I" if level == 1 and kind in (1, 11, 13) else "i"
    return f"{first}{ref:02d}_{kind:02d}_{level}.{'BMP' if level == 1 and kind in (11, 13) else 'bmp'}"


def tid2013_labels() -> list[Label]:
    numbers = [(ref, kind, level) for ref in range(1, 26) for kind in range(1, 25) for level in range(1, 6)]
    labels = evenly([tid_name(*number) for number in numbers], 0.24242, 7.21429, _TID)
    return with_references(labels, lambda name: "i25.bmp" if name[1:3] == "25" else f"I{name[1:3]}.BMP")


def tid2013(folder: Path, labels: Sequence[Label]) -> Path:
    text(folder / "mos_std.txt", "".join(f"{label.spread}\n" for label in labels))
    return text(folder / "mos_with_names.txt", "".join(f"{label.score} {label.name}\n" for label in labels))


def tid2013_pyiqa(folder: Path, labels: Iterable[Label]) -> Path:
    rows = ([label.reference, label.name, label.score, label.spread] for label in labels)
    return table(folder / "meta_info_TID2013Dataset.csv", "ref_name,dist_name,mos,std", rows)


# Readers

SETS = {
    "spaq": (SPAQ, spaq_labels),
    "live_wild": (LIVE_WILD, live_wild_labels),
    "kadid": (KADID, kadid_labels),
    "pipal": (PIPAL, pipal_labels),
    "csiq": (CSIQ, csiq_labels),
    "tid2013": (TID2013, tid2013_labels),
}
"""By the name of their writer: the script, and all of its labels."""


def written(folder: Path, layout: str, labels: Iterable[Label]) -> Path:
    """The folder, with these labels in one of the layouts above."""
    globals()[layout](folder, list(labels))
    return folder


def mapped(dataset: DataSet, items: Iterable[Item], *given: str) -> dict[str, float]:
    """Scores from 1 to 5 by name."""
    labels = dataset.label_map(options_of(dataset, *given))
    return {item.name: labels.fields(item.raw_score, "technical", None)["score"] for item in items}


def splits(items: Iterable[Item]) -> Counter:
    return Counter(item.split for item in items)
