"""Small label files for beauty, fit to a prompt and degradations in their owners' form; and how scripts read them."""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import skimage.data
from data_builders import undrawn
from PIL import Image

from data_prep import dq495k
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.tasks import Scale

LABELS = Path(__file__).parents[1] / "labels"
REAL = os.environ.get("OMNIQ_LABELS")
needs_real_files = pytest.mark.skipif(not REAL, reason="OMNIQ_LABELS names no folder with the owners' label files")
SCALE = Scale(1.0, 5.0)


def options_of(dataset: DataSet, *given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    dataset.add_options(parser)
    return parser.parse_args(given)


def read(dataset: DataSet, root: Path, *given: str, task: str | None = None, labels: Path | None = None) -> list[Item]:
    request = Request(FileIndex(root), task or next(iter(dataset.tasks)), labels, options_of(dataset, *given))
    return list(dataset.read(request))


def by_name(items: list[Item]) -> dict[str, Item]:
    found = {item.name: item for item in items}
    assert len(found) == len(items)
    return found


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def copied(source: Path, path: Path) -> Path:
    return written(path, source.read_bytes())


def workbook(path: Path, *rows: list) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Sheet1"
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def picture(path: Path, ref: int) -> Path:
    """A small part of a real photograph, another one for each place."""
    photo = skimage.data.astronaut() if ref % 2 else skimage.data.chelsea()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[ref : ref + 48, 20 : 20 + 64]).save(path)
    return path


# Label files, small, in the form of their owners


def agiqa3k_files(root: Path) -> None:
    copied(LABELS / "agiqa3k" / "data.csv", root / "data.csv")


def tad66k_files(root: Path) -> None:
    for split in ("train", "test"):
        copied(LABELS / "tad66k" / "merge" / f"{split}.csv", root / "labels" / "merge" / f"{split}.csv")
    # The test image is on the other side in these lists, as 478 are in the real ones.
    written(root / "labels/unmerge/train/flower.csv", "image,score\r\nhs_yin152947873.jpg,1.9\r\n")
    written(root / "labels/unmerge/train/sky.csv", "image,score\r\nlanphere54810922.jpg,2.85\r\n")


AVA_LINES = (
    "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396",
    "2 953958 10 7 15 26 26 21 10 8 1 2 1 21 1396",
    "3 777 4 0 0 0 0 0 0 0 0 0 0 0 5",
    "4 778 0 0 0 0 0 0 0 0 0 9 14 15 5",
)


def ava_files(root: Path, *lines: str, test: tuple[str, ...] = ("953958", "11")) -> None:
    written(root / "AVA.txt", "".join(f"{line}\n" for line in lines or AVA_LINES))
    written(root / "aesthetics_image_lists" / "generic_test.jpgl", "".join(f"{name}\n" for name in test))
    written(root / "aesthetics_image_lists" / "generic_ls_train.jpgl", "953619\n")


def distorted(kind: str | None, severity: int, name: str | None = None, ref: int = 0, **others: Any) -> dict:
    path = f"KADIS700K/refA_sd_brief/dist_imgs/121-cc-{ref}_0.png"
    return {
        "distortion_class": kind,
        "distortion_name": name or kind,
        "severity": severity,
        "id": f"121-cc-{ref}_0",
        "image_ref": f"KADIS700K/ref_imgs_s224/121-cc-{ref}.png",
        "image_A": path,
        "image_B": None,
        "task_type": "quality_single_A",
        "conversations": [],
        **others,
    }


DQ495K_TRAIN = (
    distorted("noise", 1, "noise_gaussian_RGB", 1),
    distorted("blur", 2, "blur_gaussian", 2),
    distorted("compression", 3, "compression_jpeg", 3),
    distorted("compression", 4, "compression_jpeg_2000", 4),
    distorted("darken", 5, "darken_gamma_RGB", 5),
    distorted(None, 0, None, 6),
    *(distorted(kind, 5, f"{kind}_x", 10 + ref) for ref, kind in enumerate(dq495k.OTHERS)),
)


def dq495k_files(root: Path, *train: dict) -> None:
    metas = root / "KADIS700K" / "refA_sd_brief" / "metas"
    written(metas / "train_refA_sd_mix_112k.json", json.dumps(train or DQ495K_TRAIN))
    written(metas / "test_refA_sd_single_28k.json", json.dumps([distorted("blur", 5, "blur_lens", 99)]))


def rated(path: str, ratings: Any, prompt_id: str = "p1", prompt: str = "a cat", **others: Any) -> dict:
    return {
        "prompt_id": prompt_id,
        "prompt": prompt,
        "type": "synthetic_color",
        "img_path": path,
        "total_score": ratings,
        "element_score": {"cat (animal)": [1, 1, 1]},
        "promt_meaningless": [0, 0, 0],
        "split_confidence": [0, 0, 0],
        "attribute_confidence": [1, 1, 1],
        "fidelity_label": ["", "", ""],
        **others,
    }


EVALMUSE_LIST = (
    rated("Dreamina/0001.png", [3, 4, 4]),
    rated("SDXL-Turbo/0001.png", [3, None, 4, 5, 1, 2], "p2", 'a "sign" that says {stop}\nin red'),
    rated("PixArt/0001.png", [1, 1, 1], "p2", 'a "sign" that says {stop}\nin red', promt_meaningless=[1, 1, 0]),
    rated("Dreamina/0002.png", [5, 5, 5], "p3", "an <image> of a cat"),
)


def evalmuse_files(root: Path, *records: dict) -> None:
    written(root / "train_list.json", json.dumps(records or EVALMUSE_LIST))


EVALMI_HEADER = ["ImageName", "MOS1", "MOS2", "Y/N", "YN_1", "YN_2", "YN_3", "YN_4"]
QUESTION_HEADER = ["prompt", *(f"question_{ref}" for ref in range(1, 6))]
EVALMI_ROWS = (
    ["ali_flux_schnell/001.png", 15.9531563777631, 70.247419212392, "yes", "yes", "no", None, None],
    ["ali_flux_schnell/002.png", 73.3049776344248, 22.0560612221898, "no", "yes", "no", None, None],
    ["sd3_5/002.png", 50.5, 40.25, "no", "yes", "no", None, None],
)


def evalmi_files(root: Path, *rows: list, prompts: tuple = ("two cats", "a red dog")) -> None:
    workbook(root / "AIGI2025_MOS_yn.xlsx", EVALMI_HEADER, *(rows or EVALMI_ROWS))
    workbook(root / "question.xlsx", QUESTION_HEADER, *([prompt, "is it?"] for prompt in prompts))


GENERATORS = ("DALLE_3", "SDXL_Turbo", "DeepFloyd_I_XL_v1", "Midjourney_6", "SDXL_2_1", "SDXL_Base")


def genai_entry(key: str) -> dict:
    ratings = {generator: [1 + ref % 5, 3, 5] for ref, generator in enumerate(GENERATORS)}
    if key == "00231":
        ratings["DALLE_3"] = [5, 41, 4]
    if key == "00252":
        ratings["DeepFloyd_I_XL_v1"] = [3, 3, 33]
    return {"id": key, "prompt": f'prompt {key}, "quoted" {{x}}', "prompt in Chinese": "一", "models": ratings}


def genai_files(root: Path, keys: range = range(1600)) -> None:
    entries = {f"{key:05d}": genai_entry(f"{key:05d}") for key in keys}
    written(root / "genai_image.json", json.dumps(entries))


T2I_CSV = (
    "image,prompt,category,score\n"
    '"a ""red"" book, {1}_000001.png","a ""red"" book, {1}",color,4.5\n'
    "a cup_000002.png,a cup,non_spatial,1\n"
)


def t2i_files(root: Path, content: str = T2I_CSV) -> None:
    written(root / "manifest.csv", content)


# From the command line


@dataclass(frozen=True)
class Case:
    """A data set's folder."""

    dataset: DataSet
    files: Callable[[Path], None]
    images: dict[str, str]
    """Name in the rows' ids -> file below the root."""
    truths: list[dict]
    """In the order of the images."""
    rejects: dict[str, int]
    options: tuple[str, ...] = ()
    why: str = ""


def prepared(case: Case, root: Path, out: Path, *options: str) -> tuple[dict, list[dict], list[dict]]:
    """Card, rows and rejects of a run of the script."""
    given = ["--root", str(root), "--out", str(out), "--workers", "1", *case.options, *options]
    with undrawn():
        main(case.dataset, "doc", given)
    card = json.loads((out / "dataset_card.json").read_text())
    rows = [row for name in card["files"] for row in pq.read_table(out / name).to_pylist()]
    return card, rows, [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]


def run_in_vain(dataset: DataSet, root: Path, *options: str) -> str:
    """What a script says when it gives up."""
    with pytest.raises(SystemExit) as finish_reason:
        main(dataset, "doc", ["--root", str(root), "--out", str(root / "out"), "--workers", "1", *options])
    assert not (root / "out").exists()
    return str(finish_reason.value)
