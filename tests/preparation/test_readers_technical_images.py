"""The scripts of the technical data sets from folder to parquet: the right images, whatever their folders and case."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
from data_builders import undrawn
from PIL import Image
from technical_builders import SETS, text, written

from data_prep.koniq import KONIQ
from omniq_verl.preparation.cli import DataSet, main

EXCERPT = Path(__file__).parents[1] / "labels" / "koniq10k_distributions_sets_excerpt.csv"
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP"}
LABELS = 1200
"""Rows read from each label file at most. Nearly all of their images are missing, which has to be counted."""


def put_photos(root: Path, paths: list[str]) -> None:
    """A small photograph under each path, no two alike."""
    whole = skimage.data.astronaut()
    for number, name in enumerate(paths):
        path, top = root / name, 40 * number
        path.parent.mkdir(parents=True, exist_ok=True)
        crop = Image.fromarray(whole[top % 480 : top % 480 + 24, 60 + top // 480 : 92 + top // 480])
        crop.save(path, FORMATS[path.suffix.lower()])


def pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def run(dataset: DataSet, root: Path, out: Path, *given: str) -> tuple[dict, dict]:
    """Rows by id, and the card."""
    with undrawn():
        main(dataset, "", ["--root", str(root), "--out", str(out), "--workers", "1", *given])
    rows = [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {row["extra_info"]["id"]: row for row in rows}, json.loads((out / "dataset_card.json").read_text())


def assert_images(rows: dict, root: Path, source: str, expected: dict[str, str]) -> None:
    assert set(rows) == {f"{source}/{name}" for name in expected}
    for name, path in expected.items():
        shown = pixels(rows[f"{source}/{name}"]["images"][0]["bytes"])
        assert np.array_equal(shown, pixels((root / path).read_bytes())), f"{name} is not the image {path}"


@pytest.mark.parametrize(
    ("layout", "folder", "taken", "others", "reason"),
    [
        (
            *("spaq", "Dataset"),
            {"00001.jpg": "Dataset/TestImage/00001.jpg", "00300.jpg": "Dataset/TestImage/00300.JPG"},
            ["Dataset/512x384/00001.jpg", "Dataset/TestImage/99999.jpg"],
            "nested; a smaller copy beside it; an image without a label",
        ),
        ("spaq_pyiqa", "meta_info", {"00001.jpg": "SPAQ/TestImage/00001.jpg"}, [], "pyiqa's archive"),
        (
            *("live_wild", "ChallengeDB_release/ChallengeDB_release"),
            {
                "100.bmp": "ChallengeDB_release/ChallengeDB_release/Images/100.bmp",
                "700.JPG": "ChallengeDB_release/ChallengeDB_release/Images/700.jpg",
                "701.JPG": "ChallengeDB_release/ChallengeDB_release/Images/701.JPG",
            },
            ["ChallengeDB_release/ChallengeDB_release/Images/trainingImages/t1.bmp"],
            "nested twice; both cases of .JPG; practice images below",
        ),
        ("live_wild_pyiqa", ".", {"100.bmp": "LIVEC/100.bmp", "800.JPG": "LIVEC/800.JPG"}, ["LIVEC/t1.bmp"], "flat"),
        (
            *("kadid", "kadid10k"),
            {"I01_01_01.png": "kadid10k/images/I01_01_01.png", "I02_02_05.png": "kadid10k/images/I02_02_05.PNG"},
            ["kadid10k/images/I01.png", "kadid10k/images/I02.png"],
            "references in the same folder",
        ),
        (
            *("kadid_pyiqa", "meta_info"),
            {"I01_01_02.png": "distorted_images/I01_01_02.png"},
            ["reference_images/I01.png"],
            "folders as in TReS",
        ),
        (
            *("pipal", "."),
            {"A0001_00_00.bmp": "Distortion_1/A0001_00_00.bmp", "A0003_06_26.bmp": "Distortion_4/A0003_06_26.bmp"},
            ["Train_Ref/A0001.bmp"],
            "four folders",
        ),
        (
            *("pipal_pyiqa", "."),
            {"A0002_00_00.bmp": "PIPAL/Dist_Imgs/A0002_00_00.bmp"},
            ["PIPAL/Train_Ref/A0002.bmp"],
            "flat",
        ),
        (
            *("csiq", "."),
            {
                "1600.AWGN.1.png": "dst_imgs/awgn/1600.AWGN.1.png",
                "elk.jpeg2000.5.png": "dst_imgs/jpeg2000/elk.jpeg2000.5.png",
            },
            ["src_imgs/1600.png", "src_imgs/elk.png"],
            "folders in lower case",
        ),
        (
            *("csiq_words", "CSIQ"),
            {"bridge.BLUR.1.png": "CSIQ/dst_imgs/BLUR/bridge.blur.1.png"},
            ["CSIQ/src_imgs/bridge.png"],
            "folders in upper case, names in lower case",
        ),
        (
            *("csiq_pyiqa", "."),
            {"woman.contrast.4.png": "CSIQ/dst_imgs/woman.contrast.4.png"},
            ["CSIQ/src_imgs/woman.png"],
            "flat",
        ),
        (
            *("tid2013", "tid2013"),
            {
                "I01_01_1.bmp": "tid2013/distorted_images/I01_01_1.bmp",
                "i01_01_2.bmp": "tid2013/distorted_images/i01_01_2.bmp",
                "I01_11_1.BMP": "tid2013/distorted_images/I01_11_1.BMP",
            },
            ["tid2013/reference_images/I01.BMP", "tid2008/distorted_images/I01_01_1.bmp"],
            "mixed case; another set with the same names",
        ),
        (
            *("tid2013_pyiqa", "meta_info"),
            {"I01_01_1.bmp": "distorted_images/i01_01_1.bmp", "I02_13_1.BMP": "distorted_images/i02_13_1.bmp"},
            ["reference_images/i01.bmp"],
            "all in lower case",
        ),
    ],
)
def test_the_right_images_are_found_and_the_missing_ones_counted(
    tmp_path, layout, folder, taken, others, reason, capsys
):
    name = layout.removesuffix("_pyiqa").removesuffix("_words")
    dataset, all_labels = SETS[name]
    labels = all_labels()[:LABELS]
    written(tmp_path / "root" / folder, layout, labels)
    put_photos(tmp_path / "root", [*taken.values(), *others])
    rows, card = run(dataset, tmp_path / "root", tmp_path / "out")
    assert_images(rows, tmp_path / "root", name, taken)
    scores = {label.name: label.score for label in labels}
    assert {key: row["extra_info"]["raw_score"] for key, row in rows.items()} == {
        f"{name}/{image}": scores[image] for image in taken
    }
    missing = len(labels) - len(taken) - 7 * (name == "live_wild")
    assert (card["rows"], card["rejects"]) == (len(taken), {"all": missing, "image": missing}), reason
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert {reject["reason"] for reject in rejected} == {"image: there is no such file"}
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{name}: {len(taken)} rows, {missing} rejects")


def test_live_wilds_practice_images_are_found_below_the_others(tmp_path):
    written(tmp_path / "root", "live_wild", SETS["live_wild"][1]())
    taken = {"t1.bmp": "Images/trainingImages/t1.bmp", "100.bmp": "Images/100.bmp"}
    put_photos(tmp_path / "root", list(taken.values()))
    rows, card = run(SETS["live_wild"][0], tmp_path / "root", tmp_path / "out", "--training-images")
    assert_images(rows, tmp_path / "root", "live_wild", taken)
    assert (card["rejects"]["all"], card["options"]["training_images"]) == (1167, True)


def test_csiqs_card_and_rows_say_that_lower_is_better(tmp_path):
    written(tmp_path / "root", "csiq", SETS["csiq"][1]())
    put_photos(tmp_path / "root", ["dst_imgs/awgn/1600.AWGN.1.png", "dst_imgs/jpeg2000/elk.jpeg2000.5.png"])
    rows, card = run(SETS["csiq"][0], tmp_path / "root", tmp_path / "out")
    scores = {key: row["extra_info"]["score"] for key, row in rows.items()}
    assert scores == pytest.approx({"csiq/1600.AWGN.1.png": 5 - 4 * 0.061989, "csiq/elk.jpeg2000.5.png": 1.0})
    assert card["label_map"]["higher_is_better"] is False


def test_both_sides_of_a_split_by_reference_are_written(tmp_path):
    labels = SETS["kadid"][1]()
    written(tmp_path / "root", "kadid", labels)
    names = [label.name for label in labels if label.name.endswith(("_01_01.png", "_25_05.png"))][:20]
    put_photos(tmp_path / "root", [f"images/{name}" for name in names])
    given = ("--split", "by-reference", "--shares", "2:1:1", "--seed", "5")
    rows, card = run(SETS["kadid"][0], tmp_path / "root", tmp_path / "out", *given)
    assert card["options"] == {"split": "by-reference", "shares": [2, 1, 1], "seed": 5, "deqa_meta": None}
    assert set(card["files"]) == {"train.parquet", "val.parquet", "test.parquet"}
    details = [(json.loads(row["extra_info"]["details"]), row["extra_info"]["split"]) for row in rows.values()]
    assert len(details) == 20
    assert len({(detail["reference"], split) for detail, split in details}) == 10


def test_the_larger_copy_of_koniq_is_taken_in_all_three_splits(tmp_path):
    names = {"10004473376.jpg": "train", "10007357496.jpg": "test", "10264984793.jpg": "val"}
    text(tmp_path / "root" / "koniq10k_distributions_sets.csv", EXCERPT.read_text())
    taken = {name: f"1024x768/{name}" for name in names}
    put_photos(tmp_path / "root", [*taken.values(), *(f"512x384/{name}" for name in names)])
    rows, card = run(KONIQ, tmp_path / "root", tmp_path / "out")
    assert_images(rows, tmp_path / "root", "koniq", taken)
    assert {row["extra_info"]["id"]: row["extra_info"]["split"] for row in rows.values()} == {
        f"koniq/{name}": split for name, split in names.items()
    }
    assert (card["rows"], card["rejects"]["all"]) == (3, 206)


def test_the_arrangement_of_deqa_score_is_read_set_by_set(tmp_path):
    arranged = {"KONIQ": "images/1.jpg", "CSIQ": "images/dst_imgs/awgn/1600.AWGN.1.png", "SPAQ": "images/1.jpg"}
    put_photos(tmp_path / "root", [f"{folder}/{image}" for folder, image in arranged.items()])
    for dataset, folder in ((KONIQ, "KONIQ"), (SETS["csiq"][0], "CSIQ"), (SETS["spaq"][0], "SPAQ")):
        image = f"{folder}/{arranged[folder]}"
        record = {"image": image, "gt_score": 0.5, "gt_score_norm": 3.25, "std": 0.1}
        meta = text(tmp_path / "root" / folder / "metas" / "test_list.json", json.dumps([record]))
        rows, card = run(dataset, tmp_path / "root", tmp_path / folder, "--deqa-meta", str(meta))
        assert_images(rows, tmp_path / "root", dataset.name, {Path(image).name: image})
        assert [row["extra_info"]["score"] for row in rows.values()] == [3.25]
        assert "gt_score_norm" in card["label_map"]["source"]


def test_a_label_file_that_is_missing_ends_the_script_with_its_fix(tmp_path):
    (tmp_path / "root").mkdir()
    with pytest.raises(SystemExit, match=r"none of the label files dmos\.csv, .* Fix: name it with --labels"):
        run(SETS["kadid"][0], tmp_path / "root", tmp_path / "out")
