"""Scripts for beauty, fit to a prompt and degradations: label files in their owners' form -> items, rows, rejects.

Excerpts of real label files are in ``tests/labels``; the environment variable OMNIQ_LABELS may name a folder with the
whole ones (``agiqa3k_data.csv``, ``tad66k/{train,test}.csv``, ``geneval_evaluation_metadata.jsonl``).
"""

import argparse
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep import agiqa3k, ava, dq495k, evalmi, evalmuse, genai_bench, geneval, t2i_compbench, tad66k
from omniq_verl.data.command import DataSet, Request, main
from omniq_verl.data.paths import FileIndex
from omniq_verl.data.prepare import Item
from omniq_verl.data.reading import draw, label_files, number, on_disk, read_records, read_table, share, text
from omniq_verl.data.tables import LabelFileError
from omniq_verl.tasks import SEVERITIES, TASKS, Scale

LABELS = Path(__file__).parent / "labels"
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


def picture(path: Path, place: int) -> Path:
    """A small part of a real photograph, another one for each place."""
    photo = skimage.data.astronaut() if place % 2 else skimage.data.chelsea()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[place : place + 48, 20 : 20 + 64]).save(path)
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


def distorted(kind: str | None, severity: int, name: str | None = None, place: int = 0, **others: Any) -> dict:
    path = f"KADIS700K/refA_sd_brief/dist_imgs/121-cc-{place}_0.png"
    return {
        "distortion_class": kind,
        "distortion_name": name or kind,
        "severity": severity,
        "id": f"121-cc-{place}_0",
        "image_ref": f"KADIS700K/ref_imgs_s224/121-cc-{place}.png",
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
    *(distorted(kind, 5, f"{kind}_x", 10 + place) for place, kind in enumerate(dq495k.OTHERS)),
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
QUESTION_HEADER = ["prompt", *(f"question_{place}" for place in range(1, 6))]
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
    ratings = {generator: [1 + place % 5, 3, 5] for place, generator in enumerate(GENERATORS)}
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


# From the command line: a few images, with the traps of real copies; the others are missing


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


CASES = [
    Case(
        agiqa3k.AGIQA3K,
        agiqa3k_files,
        {"AttnGAN_normal_000.jpg": "AGIQA-3K/Images/AttnGAN_normal_000.jpg", "glide_normal_263.jpg": "glide.jpg"},
        [{"score": round(1 + 4 * 0.965602553 / 4.488740784, 6)}],
        {"all": 18, "image": 18},
        why="the folder's name differs from copy to copy; the second image has another name",
    ),
    Case(
        agiqa3k.AGIQA3K,
        agiqa3k_files,
        {"midjourney_normal_010.jpg": "image/image/MidJourney_normal_010.JPG"},
        [{"score": 5.0}],
        {"all": 18, "image": 18},
        ("--task", "alignment"),
        "another case",
    ),
    Case(
        dq495k.DQ495K,
        dq495k_files,
        {
            "refA_sd_brief/dist_imgs/121-cc-1_0.png": "KADIS700K/refA_sd_brief/dist_imgs/121-cc-1_0.png",
            "refA_sd_brief/dist_imgs/121-cc-6_0.jpg": "KADIS-700K/refA_sd_brief/dist_imgs/121-cc-6_0.jpg",
            "refA_sd_brief/dist_imgs/121-cc-99_0.png": "KADIS-700K/refA_sd_brief/dist_imgs/121-cc-99_0.png",
        },
        [
            {"distortion_class": "noise", "severity": "slight"},
            {"distortion_class": None, "severity": None},
            {"distortion_class": "blur", "severity": "catastrophic"},
        ],
        {"all": 4, "image": 4},
        why="Q-Insight's copy is called KADIS-700K and has JPEGs",
    ),
    Case(
        ava.AVA,
        ava_files,
        {"953619.jpg": "AVA_dataset/images/953619.jpg", "778.jpg": "AVA_dataset/images/778.jpg"},
        [{"score": round(1 + 4 * (699 / 124 - 1) / 9, 6)}, {"score": 5.0}],
        {"all": 2, "image": 2},
        why="a nested root",
    ),
    Case(
        tad66k.TAD66K,
        tad66k_files,
        {
            "43751877@N085618633908.jpg": "TAD66K/43751877@N085618633908.jpg",
            "hs_yin152947873.jpg": "HS_yin152947873.jpg",
        },
        [{"score": 1.537778}, {"score": 1.4}],
        {"all": 11, "image": 11},
        why="names with @, and in another case",
    ),
    Case(
        evalmuse.EVALMUSE,
        evalmuse_files,
        {
            "Dreamina/0001.png": "dataset/images/dreamina/0001.png",
            "SDXL-Turbo/0001.png": "dataset/images/SDXL-Turbo/0001.png",
        },
        [{"score": 3.666667}, {"score": 3.0}],
        {"all": 2, "image": 2},
        ("--test-share", "0"),
        "one name in the folders of several generators, one of them in another case",
    ),
    Case(
        evalmi.EVALMI,
        evalmi_files,
        {
            "ali_flux_schnell/002.png": "EvalMi-50K/AIGI2025/Ali_Flux_Schnell/002.png",
            "sd3_5/002.png": "EvalMi-50K/AIGI2025/sd3_5/002.png",
        },
        [
            {"score": 1.0},
            {"score": round(1 + 4 * (40.25 - 22.0560612221898) / (70.247419212392 - 22.0560612221898), 6)},
        ],
        {"all": 1, "image": 1},
        ("--task", "alignment"),
        "one name in the folders of all generators",
    ),
    Case(
        genai_bench.GENAI_BENCH,
        lambda root: genai_files(root, range(230, 254)),
        {"DALLE_3/00231.jpeg": "DALLE_3/00231.jpeg", "DeepFloyd_I_XL_v1/00252.jpg": "deepfloyd_i_xl_v1/00252.jpg"},
        [{"score": 4.5}, {"score": 3.0}],
        {"all": 24 * 6 - 2, "image": 24 * 6 - 2},
        why=".jpg for .jpeg, and a folder in another case",
    ),
    Case(
        t2i_compbench.T2I_COMPBENCH,
        t2i_files,
        {'a "red" book, {1}_000001.png': 'samples/a "red" book, {1}_000001.png'},
        [{"score": 4.5}],
        {"all": 1, "image": 1},
        ("--low", "1", "--high", "5"),
        "a name with quotes, a comma and braces",
    ),
]


def prepared(case: Case, root: Path, out: Path, *options: str) -> tuple[dict, list[dict], list[dict]]:
    """Card, rows and rejects of a run of the script."""
    given = ["--root", str(root), "--out", str(out), "--workers", "1", *case.options, *options]
    main(case.dataset, "doc", given)
    card = json.loads((out / "dataset_card.json").read_text())
    rows = [row for name in card["files"] for row in pq.read_table(out / name).to_pylist()]
    return card, rows, [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dataset.name}-{case.why}")
def test_images_become_rows_and_missing_ones_counted_rejects(tmp_path, case):
    case.files(tmp_path)
    files = [picture(tmp_path / path, place) for place, path in enumerate(case.images.values())]
    card, rows, rejects = prepared(case, tmp_path, tmp_path / "out")
    found = {row["extra_info"]["id"].removeprefix(f"{case.dataset.name}/"): row for row in rows}
    there = [name for name, path in case.images.items() if Path(name).name.lower() == Path(path).name.lower()]
    assert list(found) == there
    assert [json.loads(row["reward_model"]["ground_truth"]) for row in rows] == case.truths
    assert [row["images"][0]["bytes"] for row in rows] == [
        file.read_bytes() for file, name in zip(files, case.images, strict=True) if name in there
    ]
    assert (card["rows"], card["rejects"]) == (len(rows), case.rejects)
    assert {reject["reason"] for reject in rejects} <= {"image: there is no such file"}
    assert len(rejects) == case.rejects["all"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dataset.name}-{case.why}")
def test_a_row_asks_its_task_about_its_prompt(tmp_path, case):
    case.files(tmp_path)
    for place, path in enumerate(case.images.values()):
        picture(tmp_path / path, place)
    card, rows, _ = prepared(case, tmp_path, tmp_path / "out")
    assert rows
    for row in rows:
        info, task = row["extra_info"], TASKS[card["task"]]
        assert (row["data_source"], row["ability"], info["task"]) == (case.dataset.name, task.name, task.name)
        assert row["prompt"] == task.messages(info["id"], info["text"])
        assert not task.needs_text or info["text"] in row["prompt"][0]["content"]
        if task.scale:
            assert info["raw_low"] <= info["raw_score"] <= info["raw_high"]
    assert {"splits", "licence", "options"} <= set(card)


def test_a_prompt_with_a_placeholder_is_a_reject(tmp_path):
    evalmuse_files(tmp_path)
    for name in ("0001.png", "0002.png"):
        picture(tmp_path / "Dreamina" / name, 0)
    _, rows, rejects = prepared(Case(evalmuse.EVALMUSE, evalmuse_files, {}, [], {}), tmp_path, tmp_path / "out")
    reasons = {reject["row_id"]: reject["reason"] for reject in rejects}
    assert [row["extra_info"]["id"] for row in rows] == ["evalmuse/Dreamina/0001.png"]
    assert reasons["evalmuse/Dreamina/0002.png"] == "label: <image> in its text would stand for an image or a clip"


def test_options_of_a_script_are_in_its_card(tmp_path):
    ava_files(tmp_path)
    picture(tmp_path / "953619.jpg", 0)
    case = Case(ava.AVA, ava_files, {}, [], {}, ("--val-fraction", "0.25", "--seed", "7"))
    card, _, _ = prepared(case, tmp_path, tmp_path / "out")
    assert card["options"] == {"val_fraction": 0.25, "seed": 7}


# Maps


@pytest.mark.parametrize(
    ("dataset", "task", "slope", "offset", "low", "high"),
    [
        (agiqa3k.AGIQA3K, "technical", 0.891119, 1.0, 0.0, 4.488740784),
        (agiqa3k.AGIQA3K, "alignment", 0.937923, 0.979870, 0.021462288, 4.286204297),
        (ava.AVA, "aesthetic", 0.444444, 0.555556, 1.0, 10.0),
        (tad66k.TAD66K, "aesthetic", 0.444444, 0.555556, 1.0, 10.0),
        (evalmuse.EVALMUSE, "alignment", 1.0, 0.0, 1.0, 5.0),
        (evalmi.EVALMI, "technical", 0.069745, -0.112652, 15.9531563777631, 73.3049776344248),
        (evalmi.EVALMI, "alignment", 0.083002, -0.830707, 22.0560612221898, 70.247419212392),
        (genai_bench.GENAI_BENCH, "alignment", 1.0, 0.0, 1.0, 5.0),
    ],
)
def test_labels_are_mapped_by_a_rising_line_whose_ends_are_those_of_the_scale(dataset, task, slope, offset, low, high):
    labels = dataset.tasks[task]
    assert (labels.low, labels.high) == (low, high)
    for raw in np.linspace(low, high, 7):
        assert labels.score(raw, SCALE) == pytest.approx(slope * raw + offset, abs=1e-4)
    assert (labels.score(low, SCALE), labels.score(high, SCALE)) == (1.0, 5.0)


# AGIQA-3K


@pytest.mark.parametrize(
    ("task", "name", "raw"),
    [
        ("technical", "AttnGAN_normal_000.jpg", 0.965602553),
        ("alignment", "AttnGAN_normal_000.jpg", 0.40889324),
        ("technical", "glide_normal_263.jpg", 0.0),
        ("technical", "midjourney_normal_065.jpg", 4.488740784),
        ("alignment", "glide_normal_263.jpg", 0.021462288),
        ("alignment", "midjourney_normal_010.jpg", 4.286204297),
    ],
)
def test_agiqa3k_gives_each_task_its_own_column(tmp_path, task, name, raw):
    agiqa3k_files(tmp_path)
    item = by_name(read(agiqa3k.AGIQA3K, tmp_path, task=task))[name]
    assert (item.raw_score, item.split, item.fault) == (raw, "test", None)


def test_agiqa3k_keeps_prompts_with_commas_whole(tmp_path):
    agiqa3k_files(tmp_path)
    item = by_name(read(agiqa3k.AGIQA3K, tmp_path))["AttnGAN_normal_220.jpg"]
    assert item.text == "sparkling heart blue mana tree inside a marble, warm color, top view"
    assert item.details == {"adj1": "warm color", "adj2": "top view", "standard_deviation": 0.605438816}


@needs_real_files
@pytest.mark.parametrize("task", ["technical", "alignment"])
def test_agiqa3k_is_whole(tmp_path, task):
    copied(Path(REAL) / "agiqa3k_data.csv", tmp_path / "data.csv")
    items = read(agiqa3k.AGIQA3K, tmp_path, task=task)
    labels, scores = agiqa3k.AGIQA3K.tasks[task], [item.raw_score for item in items]
    assert (len(by_name(items)), len({item.text for item in items})) == (2982, 300)
    assert (min(scores), max(scores)) == (labels.low, labels.high)
    assert not any(item.fault for item in items)
    generators = Counter(item.name.split("_")[0] for item in items)
    assert generators == {"sd1.5": 1200, "midjourney": 592, "AttnGAN": 300, "glide": 300, "xl2.2": 300, "DALLE2": 290}


# DQ-495K


def test_dq495k_keeps_the_classes_q_insight_trains_on(tmp_path):
    dq495k_files(tmp_path)
    items = read(dq495k.DQ495K, tmp_path)
    assert [(item.split, item.distortion, item.severity) for item in items] == [
        ("train", "noise", "slight"),
        ("train", "blur", "moderate"),
        ("train", "compression", "obvious"),
        ("train", "compression", "serious"),
        ("train", "darken", "catastrophic"),
        ("train", None, None),
        ("test", "blur", "catastrophic"),
    ]
    assert not any(item.fault for item in items)


def test_dq495k_without_jpeg_2000(tmp_path):
    dq495k_files(tmp_path)
    kept = Counter(item.details["distortion_name"] for item in read(dq495k.DQ495K, tmp_path, "--jpeg-only"))
    assert set(kept) == {
        "noise_gaussian_RGB",
        "blur_gaussian",
        "blur_lens",
        "compression_jpeg",
        "darken_gamma_RGB",
        None,
    }


@pytest.mark.parametrize("severity", range(1, 6))
def test_dq495k_severities_are_words_mildest_first(tmp_path, severity):
    dq495k_files(tmp_path, distorted("noise", severity))
    assert read(dq495k.DQ495K, tmp_path)[0].severity == SEVERITIES[severity - 1]


@pytest.mark.parametrize("written_as", [None, "null", "None"])
def test_dq495k_no_distortion_is_written_in_several_ways(tmp_path, written_as):
    dq495k_files(tmp_path, distorted(written_as, 0))
    item = read(dq495k.DQ495K, tmp_path)[0]
    assert (item.distortion, item.severity, item.fault) == (None, None, None)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (distorted("noise", 0), "class 'noise' has severity 0"),
        (distorted("noise", 6), "class 'noise' has severity 6"),
        (distorted("noise", "3"), "class 'noise' has severity '3'"),
        (distorted("noise", True), "class 'noise' has severity True"),
        (distorted(None, 2), "class None has severity 2"),
        (distorted("rain", 2), "class 'rain' has severity 2"),
        (distorted(["noise"], 2), r"class ['noise'] has severity 2"),
        (distorted("compression", 2, "compression_webp"), "compression is of the kind 'compression_webp'"),
    ],
)
def test_dq495k_a_wrong_label_is_a_named_fault(tmp_path, record, fault):
    dq495k_files(tmp_path, record)
    assert read(dq495k.DQ495K, tmp_path)[0].fault == fault


def test_dq495k_other_family_of_lists(tmp_path):
    metas = tmp_path / "A_sd_brief" / "metas"
    written(metas / "train_A_sd_mix_98k_exclude.json", json.dumps([distorted("noise", 2)]))
    written(metas / "test_A_sd_single_24k_exclude.json", json.dumps([distorted("blur", 2, place=1)]))
    items = read(dq495k.DQ495K, tmp_path, "--lists", "A_sd")
    assert [(item.split, item.distortion) for item in items] == [("train", "noise"), ("test", "blur")]


def test_dq495k_labels_may_lie_elsewhere(tmp_path):
    dq495k_files(tmp_path / "labels")
    (tmp_path / "images").mkdir()
    assert len(read(dq495k.DQ495K, tmp_path / "images", labels=tmp_path / "labels")) == 7


# AVA


@pytest.mark.parametrize(
    ("name", "mean"),
    [("953619.jpg", 699 / 124), ("953958.jpg", 592 / 126), ("777.jpg", 1.0), ("778.jpg", 10.0)],
)
def test_ava_label_is_the_mean_of_the_ratings(tmp_path, name, mean):
    ava_files(tmp_path)
    item = by_name(read(ava.AVA, tmp_path))[name]
    assert item.raw_score == pytest.approx(mean, rel=1e-12)
    assert item.fault is None


def test_ava_counts_begin_at_the_rating_1(tmp_path):
    ava_files(tmp_path)
    assert by_name(read(ava.AVA, tmp_path))["953619.jpg"].details == {
        "votes": [0, 1, 5, 17, 38, 36, 15, 6, 5, 1],
        "tags": ["1", "22"],
        "challenge": "1396",
    }


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1 5 0 0 0 0 0 0 0 0 0 0 1 22 1396", "nobody rated it"),
        ("1 5 0 1 -5 17 38 36 15 6 5 1 1 22 1396", "its counts are 0 1 -5 17 38 36 15 6 5 1"),
        ("1 5 0 1 2.5 17 38 36 15 6 5 1 1 22 1396", "its counts are 0 1 2.5 17 38 36 15 6 5 1"),
    ],
)
def test_ava_a_wrong_count_is_a_named_fault(tmp_path, line, fault):
    ava_files(tmp_path, line)
    (item,) = read(ava.AVA, tmp_path)
    assert (item.fault, item.raw_score) == (fault, None)


def test_ava_splits_have_their_sizes(tmp_path):
    # As many lines and names as the real files have: 70 of the 20,000 test images are in no line.
    lines = (f"{place} {900000 + place} 0 1 5 17 38 36 15 6 5 1 1 22 1396" for place in range(1, 255531))
    test = (*(str(900000 + 12 * place) for place in range(1, 19931)), *(str(place) for place in range(1, 71)))
    ava_files(tmp_path, *lines, test=test)
    counts = Counter(item.split for item in read(ava.AVA, tmp_path, "--val-fraction", "0.02"))
    assert (counts.total(), counts["test"], counts["train"] + counts["val"]) == (255530, 19930, 235600)
    # 235,600 draws of 0.02: a standard deviation of 68; five of them.
    assert counts["val"] == pytest.approx(0.02 * 235600, abs=5 * 68)


def test_ava_validation_images_are_drawn_from_the_training_images(tmp_path):
    lines = [f"{place} {place} 0 1 5 17 38 36 15 6 5 1 1 22 1396" for place in range(300)]
    ava_files(tmp_path, *lines, test=tuple(map(str, range(0, 300, 3))))
    before = {item.name: item.split for item in read(ava.AVA, tmp_path)}
    after = {item.name: item.split for item in read(ava.AVA, tmp_path, "--val-fraction", "0.3")}
    assert Counter(before.values()) == {"train": 200, "test": 100}
    moved = {(before[name], after[name]) for name in after if before[name] != after[name]}
    assert moved == {("train", "val")}


def test_ava_another_seed_draws_other_validation_images(tmp_path):
    lines = [f"{place} {place} 0 1 5 17 38 36 15 6 5 1 1 22 1396" for place in range(200)]
    ava_files(tmp_path, *lines)
    drawn = [
        {item.name for item in read(ava.AVA, tmp_path, "--val-fraction", "0.5", "--seed", seed) if item.split == "val"}
        for seed in ("0", "0", "1")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


# TAD66K


def test_tad66k_splits_are_those_of_the_merged_lists(tmp_path):
    tad66k_files(tmp_path)
    items = by_name(read(tad66k.TAD66K, tmp_path))
    assert Counter(item.split for item in items.values()) == {"train": 6, "test": 7}
    flower = items["hs_yin152947873.jpg"]
    assert (flower.split, flower.raw_score, flower.details) == ("test", 1.9, {"theme": "flower"})
    assert items["argstudios3369487147.jpg"].details == {}


def test_tad66k_needs_no_themes(tmp_path):
    tad66k_files(tmp_path)
    shutil.rmtree(tmp_path / "labels" / "unmerge")
    assert {len(item.details) for item in read(tad66k.TAD66K, tmp_path)} == {0}


def test_tad66k_a_wrong_score_is_a_named_fault(tmp_path):
    tad66k_files(tmp_path)
    written(tmp_path / "labels/merge/test.csv", "image,score\r\na.jpg,\r\nb.jpg,7.5.1\r\nc.jpg,nan\r\nd.jpg,5.5\r\n")
    faults = [item.fault for item in read(tad66k.TAD66K, tmp_path) if item.split == "test"]
    assert faults == ["score is ''", "score is '7.5.1'", "score is 'nan'", None]


@needs_real_files
def test_tad66k_is_whole(tmp_path):
    for split in ("train", "test"):
        copied(Path(REAL) / "tad66k" / f"{split}.csv", tmp_path / "merge" / f"{split}.csv")
    items = by_name(read(tad66k.TAD66K, tmp_path)).values()
    for split, count, low, high in (("train", 52248, 1.13, 9.46), ("test", 14079, 1.39, 9.28)):
        scores = [item.raw_score for item in items if item.split == split]
        assert (len(scores), min(scores), max(scores)) == (count, low, high)
    assert not any(item.fault for item in items)


# EvalMuse


def test_evalmuse_label_is_the_mean_of_the_ratings_that_are_there(tmp_path):
    evalmuse_files(tmp_path)
    items = by_name(read(evalmuse.EVALMUSE, tmp_path))
    assert items["Dreamina/0001.png"].raw_score == pytest.approx(11 / 3)
    assert items["SDXL-Turbo/0001.png"].raw_score == 3.0
    assert items["SDXL-Turbo/0001.png"].text == 'a "sign" that says {stop}\nin red'
    assert items["SDXL-Turbo/0001.png"].details == {
        "ratings": [3, 4, 5, 1, 2],
        "prompt_id": "p2",
        "type": "synthetic_color",
    }


@pytest.mark.parametrize(
    "ratings", [[], [None, None], [3, 0], [3, 6], [3, "x"], [3, True], 4, None, {"a": 3}], ids=repr
)
def test_evalmuse_ratings_that_cannot_be_used_are_a_named_fault(tmp_path, ratings):
    evalmuse_files(tmp_path, rated("a/1.png", [1, 2]), rated("a/2.png", ratings))
    item = by_name(read(evalmuse.EVALMUSE, tmp_path))["a/2.png"]
    assert (item.fault, item.raw_score) == (f"total_score is {ratings!r}", None)


def test_evalmuse_holds_out_whole_prompts(tmp_path):
    records = [rated(f"g{g}/{p}.png", [3, 3, 3], f"prompt {p}") for p in range(1000) for g in range(4)]
    evalmuse_files(tmp_path, *records)
    splits: dict[str, set] = {}
    for item in read(evalmuse.EVALMUSE, tmp_path, "--test-share", "0.2"):
        splits.setdefault(item.details["prompt_id"], set()).add(item.split)
    assert all(len(found) == 1 for found in splits.values())
    # 1,000 draws of 0.2: a standard deviation of 12.6; five of them.
    assert sum(found == {"test"} for found in splits.values()) == pytest.approx(200, abs=64)


def test_evalmuse_a_prompt_stays_where_it_is_when_others_are_gone(tmp_path):
    records = [rated(f"g/{p}.png", [3, 3, 3], f"prompt {p}") for p in range(100)]
    evalmuse_files(tmp_path / "all", *records)
    evalmuse_files(tmp_path / "half", *records[::-2])
    splits = [{item.name: item.split for item in read(evalmuse.EVALMUSE, tmp_path / part)} for part in ("all", "half")]
    assert splits[1].items() <= splits[0].items()
    assert set(splits[1].values()) == {"train", "test"}


@pytest.mark.parametrize(
    ("votes", "kept"),
    [
        ([1, 1, 0], False),
        ([1, 0, 0], True),
        ([1, 0], True),
        ([1, None, None], False),
        ([], True),
        (None, True),
        (1, True),
    ],
    ids=repr,
)
def test_evalmuse_leaves_out_what_most_call_meaningless_if_asked(tmp_path, votes, kept):
    evalmuse_files(tmp_path, rated("a/1.png", [1, 2]), rated("a/2.png", [1, 2], promt_meaningless=votes))
    assert ("a/2.png" in by_name(read(evalmuse.EVALMUSE, tmp_path, "--drop-meaningless"))) == kept
    assert "a/2.png" in by_name(read(evalmuse.EVALMUSE, tmp_path))


# EvalMi


def test_evalmi_gives_each_task_its_own_column(tmp_path):
    evalmi_files(tmp_path)
    for task, scores in {
        "technical": [15.9531563777631, 73.3049776344248, 50.5],
        "alignment": [70.247419212392, 22.0560612221898, 40.25],
    }.items():
        assert [item.raw_score for item in read(evalmi.EVALMI, tmp_path, task=task)] == scores


def test_evalmi_prompt_of_image_n_is_row_n(tmp_path):
    evalmi_files(tmp_path)
    items = by_name(read(evalmi.EVALMI, tmp_path))
    assert [item.text for item in items.values()] == ["two cats", "a red dog", "a red dog"]
    assert items["sd3_5/002.png"].details == {"generator": "sd3_5", "prompt_number": 2}


def test_evalmi_numbers_have_three_digits_or_four(tmp_path):
    prompts = tuple(f"prompt {place}" for place in range(1, 1202))
    evalmi_files(tmp_path, ["sd3_5/007.png", 50, 50], ["sd3_5/1201.png", 50, 50], prompts=prompts)
    assert [item.text for item in read(evalmi.EVALMI, tmp_path)] == ["prompt 7", "prompt 1201"]


def test_evalmi_is_for_testing_unless_whole_prompts_are_drawn_for_training(tmp_path):
    rows = [[f"{model}/{place:03d}.png", 50, 50] for place in range(1, 101) for model in ("a", "b")]
    evalmi_files(tmp_path, *rows, prompts=tuple(f"prompt {place % 50}" for place in range(100)))
    assert {item.split for item in read(evalmi.EVALMI, tmp_path)} == {"test"}
    splits: dict[str, set] = {}
    for item in read(evalmi.EVALMI, tmp_path, "--test-share", "0.5"):
        splits.setdefault(item.text, set()).add(item.split)
    assert all(len(found) == 1 for found in splits.values())
    # 50 draws of a half: a standard deviation of 3.5; five of them.
    assert sum(found == {"test"} for found in splits.values()) == pytest.approx(25, abs=18)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (["sd3_5/001.png", None, 50], "MOS1 is None"),
        (["sd3_5/001.png", "#REF!", 50], "MOS1 is '#REF!'"),
        (["sd3_5/cover.png", 50, 50], "the name of the image has no number"),
        ([None, 50, 50], "the name of the image has no number"),
    ],
)
def test_evalmi_a_wrong_row_is_a_named_fault(tmp_path, row, fault):
    evalmi_files(tmp_path, ["sd3_5/002.png", 50, 50], row)
    assert read(evalmi.EVALMI, tmp_path)[1].fault == fault


@pytest.mark.parametrize("prompts", [("two cats", None), ("two cats", "a dog", "a bird")], ids=["too few", "too many"])
def test_evalmi_refuses_prompts_that_do_not_go_with_the_numbers(tmp_path, prompts):
    evalmi_files(tmp_path, prompts=prompts)
    with pytest.raises(LabelFileError, match=r"question\.xlsx: it has [13] prompts, but .* numbered up to 2"):
        read(evalmi.EVALMI, tmp_path)


# GenAI-Bench


def test_genai_bench_is_whole(tmp_path):
    genai_files(tmp_path)
    items = by_name(read(genai_bench.GENAI_BENCH, tmp_path))
    assert Counter(name.split("/")[0] for name in items) == dict.fromkeys(GENERATORS, 1600)
    assert {item.split for item in items.values()} == {"test"}
    assert items["SDXL_Base/01599.jpeg"].raw_score == pytest.approx(3.0)
    assert items["SDXL_Base/01599.jpeg"].text == 'prompt 01599, "quoted" {x}'


@pytest.mark.parametrize(
    ("name", "mean", "used", "dropped"),
    [
        ("DALLE_3/00231.jpeg", 4.5, [5, 4], [41]),
        ("DeepFloyd_I_XL_v1/00252.jpeg", 3.0, [3, 3], [33]),
        ("DALLE_3/00230.jpeg", 3.0, [1, 3, 5], []),
    ],
)
def test_genai_bench_leaves_typing_errors_out_of_the_mean(tmp_path, name, mean, used, dropped):
    genai_files(tmp_path)
    item = by_name(read(genai_bench.GENAI_BENCH, tmp_path))[name]
    assert (item.raw_score, item.fault) == (mean, None)
    assert (item.details["ratings"], item.details["dropped_ratings"]) == (used, dropped)


@pytest.mark.parametrize("ratings", [[], [41, 33], [3, None], [3, "x"], 3, None], ids=repr)
def test_genai_bench_ratings_that_cannot_be_used_are_a_named_fault(tmp_path, ratings):
    entry = {"prompt": "a cat", "models": {"DALLE_3": ratings}}
    written(tmp_path / "genai_image.json", json.dumps({"00000": entry}))
    (item,) = read(genai_bench.GENAI_BENCH, tmp_path)
    assert item.fault == f"its ratings are {ratings!r}"


def test_genai_bench_takes_the_version_of_527_prompts(tmp_path):
    genai_files(tmp_path, range(1, 528))
    picture(tmp_path / "DALLE_3" / "00001.jpeg", 0)
    assert len(read(genai_bench.GENAI_BENCH, tmp_path)) == 3162


# T2I-CompBench


def test_t2i_compbench_reads_a_table(tmp_path):
    t2i_files(tmp_path)
    items = read(t2i_compbench.T2I_COMPBENCH, tmp_path, "--low", "1", "--high", "5")
    assert [(item.name, item.text, item.details["category"], item.raw_score, item.split) for item in items] == [
        ('a "red" book, {1}_000001.png', 'a "red" book, {1}', "color", 4.5, "test"),
        ("a cup_000002.png", "a cup", "non_spatial", 1.0, "test"),
    ]


def test_t2i_compbench_reads_json_lines(tmp_path):
    lines = [{"image": "1.png", "prompt": "two\nlines", "category": "color", "score": score} for score in (0.25, "x")]
    written(tmp_path / "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    items = read(t2i_compbench.T2I_COMPBENCH, tmp_path, "--low", "0", "--high", "1")
    assert [(item.text, item.raw_score, item.fault) for item in items] == [
        ("two\nlines", 0.25, None),
        ("two\nlines", None, "score is 'x'"),
    ]


def test_t2i_compbench_maps_the_scale_that_was_given():
    labels = t2i_compbench.T2I_COMPBENCH.label_map(options_of(t2i_compbench.T2I_COMPBENCH, "--low", "0", "--high", "1"))
    assert labels.score(0.25, SCALE) == 2.0


# Errors that end a script


def run_in_vain(dataset: DataSet, root: Path, *options: str) -> str:
    """What a script says when it gives up."""
    with pytest.raises(SystemExit) as ended:
        main(dataset, "doc", ["--root", str(root), "--out", str(root / "out"), "--workers", "1", *options])
    assert not (root / "out").exists()
    return str(ended.value)


def test_evalmuse_test_list_has_no_labels(tmp_path):
    records = [{"prompt_id": "1", "prompt": "a cat", "type": "real", "img_path": "a/1.png"}]
    path = written(tmp_path / "test.json", json.dumps(records))
    said = run_in_vain(evalmuse.EVALMUSE, tmp_path, "--labels", str(path))
    assert "test.json: it has no ratings" in said
    assert "train_list.json" in said
    assert "none of the label files train_list.json" in run_in_vain(evalmuse.EVALMUSE, tmp_path)


def test_genai_bench_is_not_the_data_set_of_pairs(tmp_path):
    written(tmp_path / "genai_image.json", json.dumps([{"left_model": "a", "right_model": "b", "vote_type": "left"}]))
    assert "TIGER-Lab/GenAI-Bench is another data set" in run_in_vain(genai_bench.GENAI_BENCH, tmp_path)


@pytest.mark.parametrize("name", ["00000.jpeg", "00000.jpg"])
def test_genai_bench_refuses_images_of_the_other_version(tmp_path, name):
    genai_files(tmp_path, range(1, 528))
    picture(tmp_path / "GenAI-Image-1600" / "DALLE_3" / name, 0)
    assert "the version with 527 prompts" in run_in_vain(genai_bench.GENAI_BENCH, tmp_path)


def test_tad66k_does_not_take_the_split_of_the_other_lists(tmp_path):
    written(tmp_path / "unmerge" / "train" / "train.csv", "image,score\na.jpg,3\n")
    written(tmp_path / "unmerge" / "test" / "test.csv", "image,score\nb.jpg,3\n")
    assert "there is no merge/train.csv, no merge/test.csv" in run_in_vain(tad66k.TAD66K, tmp_path)


def test_ava_without_its_test_list_is_not_split_in_another_way(tmp_path):
    written(tmp_path / "AVA.txt", AVA_LINES[0] + "\n")
    assert "there is no generic_test.jpgl below it" in run_in_vain(ava.AVA, tmp_path)


def test_labels_of_several_files_are_a_folder(tmp_path):
    ava_files(tmp_path)
    said = run_in_vain(ava.AVA, tmp_path, "--labels", str(tmp_path / "AVA.txt"))
    assert "AVA.txt is no folder. Mend: give the one that holds AVA.txt, generic_test.jpgl" in said


def test_t2i_compbench_refuses_a_scale_without_extent(tmp_path):
    t2i_files(tmp_path)
    said = run_in_vain(t2i_compbench.T2I_COMPBENCH, tmp_path, "--low", "5", "--high", "1")
    assert said == "--low and --high: a label map needs low < high, got [5.0, 1.0]"


@pytest.mark.parametrize(
    ("dataset", "name", "content", "message"),
    [
        (evalmuse.EVALMUSE, "train_list.json", '{"a": 1}', "it is no JSON list"),
        (evalmuse.EVALMUSE, "train_list.json", "[1]", "entry 1 is no JSON object"),
        (evalmuse.EVALMUSE, "train_list.json", '[{"img_path": 3, "prompt": "x"}]', "entry 1 lacks img_path, prompt_id"),
        (evalmuse.EVALMUSE, "train_list.json", "[", "it is no JSON"),
        (genai_bench.GENAI_BENCH, "genai_image.json", '{"00000": {"models": 3}}', "no object of entries with models"),
        (agiqa3k.AGIQA3K, "data.csv", "name,prompt\na,b\n", "it has no column adj1"),
    ],
)
def test_a_broken_label_file_ends_the_script_with_its_name(tmp_path, dataset, name, content, message):
    written(tmp_path / name, content)
    said = run_in_vain(dataset, tmp_path)
    assert message in said
    assert name in said


# GenEval


def geneval_run(metadata: Path, out: Path) -> dict:
    geneval.main(["--metadata", str(metadata), "--out", str(out)])
    return json.loads((out / "dataset_card.json").read_text())


def test_geneval_folders_are_those_its_scorer_reads(tmp_path):
    source = LABELS / "geneval" / "evaluation_metadata.jsonl"
    card = geneval_run(source, tmp_path)
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    # evaluate_images.py takes every folder whose name is a number and lists its samples/.
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == [f"{number:05d}" for number in range(12)]
    assert [json.loads((folder / "metadata.jsonl").read_text()) for folder in folders] == lines
    assert all(list((folder / "samples").iterdir()) == [] for folder in folders)
    assert card["tags"] == dict.fromkeys(geneval.TAGS, 2)


def test_geneval_prompts_are_listed(tmp_path):
    geneval_run(LABELS / "geneval" / "evaluation_metadata.jsonl", tmp_path)
    prompts = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert prompts[0] == {"id": "00000", "tag": "single_object", "prompt": "a photo of a bench"}
    assert len(prompts) == 12


def test_geneval_keeps_images_that_are_there(tmp_path):
    source = LABELS / "geneval" / "evaluation_metadata.jsonl"
    geneval_run(source, tmp_path)
    image = picture(tmp_path / "00003" / "samples" / "00000.png", 0)
    geneval_run(source, tmp_path)
    assert image.exists()


@pytest.mark.parametrize(
    "changes", [{"tag": "size"}, {"tag": None}, {"prompt": " "}, {"prompt": 3}, {"include": []}], ids=repr
)
def test_geneval_refuses_a_line_that_is_not_its_own(tmp_path, changes):
    line = {"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "two clocks"}
    path = written(tmp_path / "evaluation_metadata.jsonl", f"{json.dumps(line)}\n{json.dumps({**line, **changes})}\n")
    with pytest.raises(SystemExit, match=r"evaluation_metadata\.jsonl: entry 2 lacks"):
        geneval.main(["--metadata", str(path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@needs_real_files
def test_geneval_is_whole(tmp_path):
    card = geneval_run(Path(REAL) / "geneval_evaluation_metadata.jsonl", tmp_path)
    assert card["prompts"] == 553
    counts = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}
    assert card["tags"] == counts
    excluded = [path for path in tmp_path.glob("*/metadata.jsonl") if "exclude" in json.loads(path.read_text())]
    assert len(excluded) == 80


# What the readers share


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("3.5", 3.5),
        (" 3.5\t", 3.5),
        ("1e1", 10.0),
        (4, 4.0),
        (np.float64(0.5), 0.5),
        ("3_1", None),  # Python reads 31
        ("nan", None),
        (float("inf"), None),
        ("", None),
        ("#REF!", None),
        (None, None),
        (True, None),
        ([3], None),
        (10**400, None),
    ],
    ids=repr,
)
def test_a_number_is_read_as_such_or_not_at_all(cell, value):
    assert number(cell) == value


@settings(deadline=None)
@given(st.integers(), st.text(), st.text())
def test_a_draw_depends_on_seed_and_key_alone(seed, first, second):
    drawn = draw(seed, first, second)
    assert 0.0 <= drawn < 1.0
    assert drawn == draw(seed, first, second)


def test_draws_are_even_and_independent():
    drawn = np.array([[draw(seed, str(key)) for key in range(4000)] for seed in (0, 1)])
    assert len(np.unique(drawn)) == 8000
    counts = np.histogram(drawn[0], bins=10, range=(0, 1))[0]
    # 4,000 draws into ten bins: 400 each, a standard deviation of 19; five of them.
    assert abs(counts - 400).max() < 95
    # The correlation of independent draws has a standard deviation of 0.016.
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.08
    assert draw(0, "ab", "c") != draw(0, "a", "bc")


@pytest.mark.parametrize("given", ["-0.1", "1.1", "nan", "x", ""])
def test_a_share_lies_between_0_and_1(given):
    with pytest.raises(argparse.ArgumentTypeError, match="no share from 0 to 1"):
        share(given)
    assert (share("0"), share("1"), share("0.25")) == (0.0, 1.0, 0.25)


@pytest.mark.parametrize(
    ("there", "name", "found", "why"),
    [
        (["a.png"], "a.png", "a.png", "as it is named"),
        (["a.jpg"], "a.png", "a.jpg", "only the other is there"),
        (["a.png", "a.jpg"], "a.png", "a.png", "both are there"),
        ([], "a.png", "a.png", "neither is there"),
        (["a.jpg"], "../a.png", "../a.png", "no name to follow"),
        (["a.jpg"], "", "", "no name"),
    ],
)
def test_another_suffix_is_taken_only_where_the_named_file_is_missing(tmp_path, there, name, found, why):
    for path in there:
        written(tmp_path / path, "x")
    assert on_disk(FileIndex(tmp_path), name, ".jpg") == found, why


def test_several_label_files_are_found_below_the_labels_folder_alone(tmp_path):
    written(tmp_path / "images" / "a.csv", "x")
    written(tmp_path / "labels" / "deep" / "A.csv", "x")
    written(tmp_path / "labels" / "b.csv", "x")
    request = Request(FileIndex(tmp_path / "images"), "technical", tmp_path / "labels", argparse.Namespace())
    assert label_files(request, "a.csv", "b.csv") == [tmp_path / "labels/deep/A.csv", tmp_path / "labels/b.csv"]
    with pytest.raises(LabelFileError, match=r"there is no c\.csv, no d\.csv below it"):
        label_files(request, "a.csv", "c.csv", "d.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.jsonl"])
def test_a_table_is_read_by_its_suffix(tmp_path, name):
    rows = "image,score\na.png,3\n" if name.lower() == "t.csv" else '{"image": "a.png", "score": "3"}\n'
    assert list(read_table(written(tmp_path / name, rows), ["image"], ["score"])) == [{"image": "a.png", "score": "3"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", "image\tscore\n", r"neither in \.csv nor in \.jsonl"),
        ("t.csv", "image\na.png\n", "no column score"),
        ("t.jsonl", '{"image": "a.png"}\n', "entry 1 lacks score"),
        ("t.jsonl", '{"image": null, "score": 3}\n', "entry 1 lacks image"),
    ],
)
def test_a_table_without_a_column_is_refused(tmp_path, name, content, message):
    with pytest.raises(LabelFileError, match=message):
        list(read_table(written(tmp_path / name, content), ["image"], ["score"]))


def test_records_are_read_in_their_order(tmp_path):
    records = [{"image": "b"}, {"image": "a", "more": 3}]
    assert list(read_records(written(tmp_path / "t.json", json.dumps(records)), ["image"])) == records


@pytest.mark.parametrize(("cell", "found"), [("x", "x"), ("", ""), (None, None), (3, None)])
def test_only_text_is_text(cell, found):
    assert text(cell) == found
