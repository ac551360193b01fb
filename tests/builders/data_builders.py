"""A small data set in the form many are published in, whole or with every fault there is; and a script that reads it.

python tests/builders/data_builders.py --root folder --out out
"""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
from image_builders import RGB_ALPHA, bomb, noise, png, saved, smooth
from PIL import Image
from rich.console import Console

from omniq_verl.preparation import card
from omniq_verl.preparation.build import BuildOptions, Item, Source, prepare
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_csv
from omniq_verl.preparation.shards import write_whole

Label = tuple[str, str, str]
"""Image, split and score, as they stand in the label file."""


def read(request: Request) -> Iterator[Item]:
    for row in read_csv(request.label_file("labels.csv"), ["image", "split", "mos"]):
        try:
            score, fault = float(row["mos"]), None
        except ValueError:
            score, fault = None, f"its score {row['mos']!r} is not a number"
        yield Item(row["image"], row["split"], score, text="a car", details={"mos": row["mos"]}, fault=fault)


MADE = DataSet(
    name="made",
    tasks=dict.fromkeys(("technical", "alignment"), LabelMap(0.0, 100.0, "the range of its sliders")),
    read=read,
    folders=("images",),
    facts={"splits": "column `split`", "licence": "none"},
)


def write_labels(root: Path, labels: Sequence[Label]) -> None:
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "split", "mos"), *labels])


def image_file(number: int, times: int = 1) -> tuple[str, bytes]:
    """The ``number``-th image's name and bytes: of every three, one JPEG, one PNG and one to be converted.

    Args:
        number: also makes its sides, about 24 x 40 pixels.
        times: how much longer they are.
    """
    height, width = times * (24 + number), times * 40
    if number % 3 == 0:
        return f"{number:03d}.jpg", saved(smooth(height, width, number), "JPEG")
    if number % 3 == 1:
        return f"{number:03d}.png", saved(smooth(height, width, number), "PNG")
    if number % 2:
        return f"{number:03d}.bmp", saved(smooth(height, width, number), "BMP")
    return f"{number:03d}.png", png(noise(height, width, 4, number), RGB_ALPHA)


def whole_set(root: Path, count: int = 12, times: int = 1) -> list[Label]:
    """Images and labels without a fault: of every four, two for training and one each for val and test."""
    (root / "images").mkdir(parents=True)
    labels = []
    for number in range(count):
        name, data = image_file(number, times)
        (root / "images" / name).write_bytes(data)
        labels.append((name, ("train", "val", "train", "test")[number % 4], str(number * 100 / max(count - 1, 1))))
    write_labels(root, labels)
    return labels


FRAMES = [Image.fromarray(noise(seed=seed)) for seed in range(2)]
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "image: the file is empty"),
    "cut.jpg": (saved(smooth(), "JPEG")[:-50], "image: it is truncated (a JPEG without its end)"),
    "cut.png": (saved(smooth(), "PNG")[:-50], "image: it is truncated (a PNG cut within a chunk)"),
    "flipped.png": (
        saved(smooth(), "PNG").replace(b"IDAT\x78", b"IDAT\x79", 1),
        "image: it is damaged (checksum of IDAT)",
    ),
    "cut.bmp": (saved(smooth(), "BMP")[:-50], "image: it does not decode (image file is truncated"),
    "text.jpg": (b"not an image\n", "image: no known image format"),
    "moving.gif": (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "image: it is animated"),
    "dot.jpg": (saved(smooth(1, 1), "JPEG"), "image: it has 1 x 1 pixels, a side of fewer than 11"),
    "strip.png": (saved(smooth(11, 2300), "PNG"), "image: it has 2300 x 11 pixels, a side more than 200 times"),
    "bomb.png": (bomb("PNG", 30_000, 30_000), "image: it has more than 67,108,864 pixels"),
    "floats.tiff": (saved(np.zeros((16, 16), np.float32), "TIFF"), "image: its pixels, floats or whole numbers"),
}
"""Files with the reason each is rejected for."""
ODD: list[tuple[Label, str]] = [
    (("gone.jpg", "train", "50"), "image: there is no such file"),
    (("../secret.jpg", "train", "50"), "path: '../secret.jpg' is not the name of a file below the root"),
    (("images/../../secret.jpg", "train", "50"), "path: 'images/../../secret.jpg' is not the name"),
    (("/etc/passwd", "train", "50"), "path: '/etc/passwd' is not the name of a file below the root"),
    (("", "train", "50"), "path: '' is not the name of a file below the root"),
    (("link.jpg", "train", "50"), "path: 'link.jpg' is a link to outside of the root"),
    (("twice.png", "train", "50"), "path: 'twice.png' may be any of x/twice.png, y/twice.png"),
    (("high.png", "train", "100.5"), "label: the score 100.5 is outside [0, 100]"),
    (("low.png", "train", "-1"), "label: the score -1 is outside [0, 100]"),
    (("nan.png", "train", "nan"), "label: the score nan is outside [0, 100]"),
    (("word.png", "train", "good"), "label: its score 'good' is not a number"),
    (("none.png", "train", ""), "label: its score '' is not a number"),
    (("split.png", "../train", "50"), "label: '../train' is not the name of a split"),
    (("000.jpg", "train", "50"), "duplicate: the label file names this image again"),
    (("images/000.jpg", "test", "50"), "duplicate: the label file names this image again"),
    (("IMAGES\\000.JPG", "test", "50"), "duplicate: the label file names this image again"),
]
"""Lines of the label file with the reason each is rejected for."""


def faulty_set(root: Path, count: int = 12) -> list[tuple[Label, str | None]]:
    """The whole set with every fault between its images; returns each line with the reason it is rejected for."""
    lines: list[tuple[Label, str | None]] = [(label, None) for label in whole_set(root, count)]
    for ref, (name, (data, reason)) in enumerate(BROKEN.items()):
        (root / "images" / name).write_bytes(data)
        lines.insert(2 * ref + 1, ((name, "train", "50"), reason))
    (root.parent / "secret.jpg").write_bytes(saved(smooth(), "JPEG"))
    (root / "link.jpg").symlink_to("../secret.jpg")
    sound = [label[0] for label, reason in ODD if reason.startswith("label")]
    for name in ["x/twice.png", "y/twice.png", *(f"images/{name}" for name in sound)]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(saved(smooth(seed=len(name)), "PNG"))
    lines += ODD
    write_labels(root, [label for label, _ in lines])
    return lines


SHARDED = ("--shard-rows", "2")


def prepare_made(root: Path, out: Path, *options: str) -> None:
    with undrawn():
        main(MADE, "doc", ["--root", str(root), "--out", str(out), "--workers", "1", *options])


@contextmanager
def undrawn() -> Iterator[None]:
    """The histogram's file holds its scores as text: to draw one takes ten times as long as all else of a small set."""

    def write(path: Path, about: dict[str, Any], scores: Sequence[Sequence[float]]) -> None:
        write_whole(path, repr((about, scores)).encode())

    with patch.object(card, "_draw", write):
        yield


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(out: Path, split: str) -> list[dict]:
    paths = sorted(out.glob(f"{split}*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def rejects_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]


def ids(rows: list[dict]) -> list[str]:
    return [row["extra_info"]["id"] for row in rows]


def card_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "dataset_card.json").read_text())


def written_at(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


def prepare_items(root: Path, out: Path, items: list[Item], task: str = "technical") -> dict[str, Any]:
    labels = LabelMap(0.0, 100.0, "x") if task != "degradation" else None
    with undrawn():
        return prepare(Source("made", task, items, labels), FileIndex(root), out, BuildOptions(), Console(quiet=True))


if __name__ == "__main__":
    main(MADE, __doc__)
