"""Degradations of a folder of images: which image gets what, the files, and the script that writes the data set."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_builders import card_of, ids, prepare_items, rejects_of, rows_of, tree, undrawn, written_at
from image_builders import noise, saved, smooth
from PIL import Image

from data_prep import degradations
from omniq_verl.data.images import BadImage, check_image
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import main
from omniq_verl.preparation.degrade import Degradation, degradations_of, how_many
from omniq_verl.preparation.distortions import LEVELS, OPERATORS, degrade
from omniq_verl.rewards import compute_score
from omniq_verl.tasks import DISTORTIONS, SEVERITIES

CLASSES = (*DISTORTIONS, "null")
CELLS = [(name, level) for name, operator in OPERATORS.items() for level in operator.levels]


def made(image: np.ndarray, name: str, level: int, seed: int = 0) -> np.ndarray:
    return degrade(image, name, level, np.random.default_rng(seed))[0]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# Which image gets what


def test_classes_and_levels_are_equally_likely():
    cells = [degradations_of(f"{n}.jpg", 1, 0, CLASSES, LEVELS)[0] for n in range(2000)]
    kinds = Counter(cell.distortion for cell in cells)
    assert set(kinds) == {*DISTORTIONS, None}
    assert max(abs(count / 2000 - 0.2) for count in kinds.values()) < 5 * np.sqrt(0.16 / 2000)
    levels = Counter(cell.severity for cell in cells if cell.level)
    assert set(levels) == set(SEVERITIES)
    assert max(abs(count / levels.total() - 0.2) for count in levels.values()) < 5 * np.sqrt(0.16 / 1500)
    assert {cell.operator for cell in cells} == {*OPERATORS, None}
    assert len({cell.seed for cell in cells}) == 2000


def test_five_of_an_image_are_of_five_classes_and_all_are_different():
    everything = degradations_of("a.jpg", 1000, 0, CLASSES, LEVELS)
    assert len(everything) == how_many(CLASSES, LEVELS) == len(CELLS) + 1 == 100
    assert len({(cell.operator, cell.level) for cell in everything}) == 100
    assert {cell.distortion for cell in everything[:5]} == {*DISTORTIONS, None}
    assert degradations_of("a.jpg", 7, 0, CLASSES, LEVELS) == everything[:7]
    assert degradations_of("b.jpg", 7, 0, CLASSES, LEVELS) != everything[:7]
    assert degradations_of("a.jpg", 7, 1, CLASSES, LEVELS) != everything[:7]


def test_classes_and_levels_can_be_chosen():
    chosen = degradations_of("a.jpg", 1000, 0, ("blur", "compression"), (5,))
    assert {cell.level for cell in chosen} == {5}
    assert len(chosen) == 6 + 2


# Files


def test_null_is_bit_equal_to_its_input():
    for data in (saved(smooth(), "JPEG"), saved(smooth(), "PNG"), saved(Image.fromarray(smooth()[..., 0]), "PNG")):
        assert Degradation(None, 0, 1)(data) is data
        assert Degradation(None, 0, 1, max_side=32)(data) is data


def test_null_of_a_larger_image_is_the_smaller_one_that_others_are_made_of():
    data = saved(smooth(120, 160), "JPEG")
    clean = pixels(Degradation(None, 0, 1, max_side=64)(data))
    assert clean.shape == (48, 64, 3)
    found = Degradation("darken_scale", 1, 1, max_side=64)(data)
    np.testing.assert_array_equal(pixels(found), made(clean, "darken_scale", 1))


@pytest.mark.parametrize(("name", "level"), [cell for cell in CELLS if cell[1] == 2])
def test_a_file_holds_what_its_details_say(name, level):
    data = saved(smooth(40, 50), "JPEG")
    degradation = Degradation(name, level, seed=12345)
    told = degradation.details()
    image, parameters = degrade(pixels(data), name, level, np.random.default_rng(told["seed"]))
    found = degradation(data)
    assert found.startswith(b"\x89PNG") and check_image(found) is found
    np.testing.assert_array_equal(pixels(found), image)
    assert told == {"operator": name, "level": level, "parameters": parameters, "seed": 12345}
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("operator", ["darken_scale", "darken_shift"])
def test_an_image_that_stays_as_it_was_is_not_labelled_as_distorted(operator):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    with pytest.raises(BadImage, match=f"{operator} at level 3 changes nothing of it"):
        Degradation(operator, 3, seed=0)(buffer.getvalue())


def test_an_image_that_is_no_worse_than_at_the_level_before_is_rejected():
    plain = saved(np.full((64, 64, 3), (90, 91, 90), np.uint8) + (noise(64, 64) > 250), "PNG")
    with pytest.raises(BadImage, match="jpeg2000 at level 5 changes no more of it than at level 4"):
        Degradation("compression_jpeg2000", 5, seed=0)(plain)


def test_an_image_too_wide_for_a_codec_is_rejected():
    with pytest.raises(BadImage, match=r"compression_webp cannot be applied to it .*16383"):
        Degradation("compression_webp", 3, seed=0)(saved(Image.new("RGB", (17_000, 100)), "PNG"))


def test_an_image_that_becomes_too_narrow_is_rejected():
    with pytest.raises(BadImage, match="64 x 6 pixels"):
        Degradation("darken_scale", 1, 1, max_side=64)(saved(smooth(20, 200), "PNG"))


def test_an_image_that_does_not_decode_is_rejected():
    data = saved(noise(64, 64), "PNG")[:2000]
    for kind in (None, "darken_scale"):
        with pytest.raises(BadImage, match="does not decode"):
            Degradation(kind, int(kind is not None), 1)(data)


# The script


def clean_folder(root: Path, count: int = 12) -> None:
    for number in range(count):
        path = root / ("" if number % 2 else "nested/deeper") / f"{number:02d}.{'jpg' if number % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(smooth(40 + number, 48, number), "JPEG" if number % 3 else "PNG"))
    (root / "broken.jpg").write_bytes(saved(smooth(), "JPEG")[:-50])
    (root / "notes.txt").write_text("clean images\n")
    (root / "grey.bmp").write_bytes(saved(Image.fromarray(smooth()[..., 0]), "BMP"))


def run(root: Path, out: Path, *options: str) -> None:
    given = ["--root", str(root), "--out", str(out), "--workers", "1", *options]
    with undrawn():
        main(degradations.DEGRADATIONS, "doc", given)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "root"
    clean_folder(folder)
    return folder


@pytest.fixture(scope="module")
def out(root: Path) -> Path:
    run(root, root.parent / "out", "--per-image", "6", "--test-fraction", "0.4", "--shard-rows", "20")
    return root.parent / "out"


def all_rows(out: Path) -> list[dict]:
    return [row for split in ("train", "val", "test") for row in rows_of(out, split)]


def details(row: dict) -> dict:
    return json.loads(row["extra_info"]["details"])


def test_every_file_is_a_row_or_a_named_reject(out):
    assert len(all_rows(out)) == 13 * 6
    assert len(set(ids(all_rows(out)))) == 13 * 6
    assert "degradations/nested/deeper/00.png#6" in ids(all_rows(out))
    reasons = {reject["image"]: reject["reason"] for reject in rejects_of(out)}
    assert set(reasons) == {"broken.jpg", "notes.txt"}
    assert "truncated" in reasons["broken.jpg"] and "no known image format" in reasons["notes.txt"]
    assert card_of(out)["rejects"] == {"all": 12, "image": 12}


def test_rows_hold_the_degraded_image_and_its_label(root, out):
    for row in all_rows(out):
        told, (image,) = details(row), row["images"]
        clean = check_image((root / told["reference"]).read_bytes())
        kind, severity = (OPERATORS[told["operator"]].distortion, told["level"]) if told["operator"] else (None, None)
        truth = {"distortion_class": kind, "severity": severity and SEVERITIES[severity - 1]}
        assert json.loads(row["reward_model"]["ground_truth"]) == truth
        assert (row["data_source"], row["ability"]) == ("degradations", "degradation")
        if kind is None:
            assert image["bytes"] == clean
        else:
            expected = made(pixels(clean), told["operator"], told["level"], told["seed"])
            np.testing.assert_array_equal(pixels(image["bytes"]), expected)


def test_a_right_answer_is_rewarded_in_all_its_forms(out):
    rows = {details(row)["operator"]: row for row in all_rows(out)}
    for operator, row in rows.items():
        truth = json.loads(row["reward_model"]["ground_truth"])
        answers = [truth, {key: value or "null" for key, value in truth.items()}]
        answers += [{}, {"distortion_class": "None"}] if operator is None else []
        if truth["distortion_class"] == "compression":
            answers.append({**truth, "distortion_class": "JPEG"})
        for said in answers:
            text = f"<think>x</think><answer>{json.dumps(said)}</answer>"
            found = compute_score(
                row["data_source"], text, row["reward_model"]["ground_truth"], row["extra_info"], format_weight=1.0
            )
            assert (found["accuracy"], found["score"], found["class_right"]) == (1.0, 2.0, 1.0)
    assert None in rows and {"compression_jpeg", "compression_jpeg2000", "compression_webp"} & set(rows)


def test_all_rows_of_an_image_are_in_one_split(out):
    sides = {}
    for row in all_rows(out):
        sides.setdefault(details(row)["reference"], set()).add(row["extra_info"]["split"])
    assert {len(splits) for splits in sides.values()} == {1}
    assert set.union(*sides.values()) == {"train", "test"}


def test_the_card_counts_classes_and_names_strengths_and_libraries(out):
    card = card_of(out)
    assert sum(card["classes"].values()) == card["rows"] == 78
    assert card["classes"]["null"] == 13
    assert card["operators"]["noise_gaussian"] == {"std": [8, 16, 28, 45, 70]}
    assert set(card["libraries"]) == {"pillow", "numpy", "scipy"}
    assert card["options"]["per_image"] == 6
    assert (out / "classes.png").exists() and not (out / "scores.png").exists()


def test_the_histogram_is_drawn(root, tmp_path):
    given = ["--root", str(root), "--out", str(tmp_path / "out"), "--workers", "1", "--max-side", "32"]
    main(degradations.DEGRADATIONS, "doc", given)
    assert Image.open(tmp_path / "out" / "classes.png").width > 500


def test_a_row_does_not_depend_on_the_other_images(root, out, tmp_path):
    few = tmp_path / "few" / "nested" / "deeper"
    few.mkdir(parents=True)
    (few / "04.jpg").write_bytes((root / "nested/deeper/04.jpg").read_bytes())
    run(tmp_path / "few", tmp_path / "out", "--per-image", "2", "--test-fraction", "0.4")
    before = {row["extra_info"]["id"]: (row["images"], details(row)) for row in all_rows(out)}
    for row in all_rows(tmp_path / "out"):
        assert before[row["extra_info"]["id"]] == (row["images"], details(row))


def test_a_run_again_goes_on_where_it_stopped_with_the_same_bytes(root, out):
    before, times = tree(out), written_at(out)
    part = min(out.glob("train-*.parquet"))
    part.unlink()
    (out / "train-00001.parquet.77.part").write_bytes(b"torn")
    run(root, out, "--per-image", "6", "--test-fraction", "0.4", "--shard-rows", "20")
    assert tree(out) == before
    assert {name for name, moment in written_at(out).items() if moment != times[name]} == {part.name}


@pytest.mark.parametrize("options", [("--seed", "1"), ("--max-side", "24")])
def test_other_options_write_other_rows(root, out, tmp_path, options):
    run(root, tmp_path / "out", "--shard-rows", "20")
    first = tree(tmp_path / "out")
    run(root, tmp_path / "out", "--shard-rows", "20", *options)
    assert tree(tmp_path / "out")["train.parquet"] != first["train.parquet"]


def test_rows_can_name_their_images(root, tmp_path):
    run(root, tmp_path / "out", "--images", "path", "--per-image", "3")
    for row in all_rows(tmp_path / "out"):
        told, path = details(row), Path(row["images"][0]["image"])
        if told["operator"] is None and not told["reference"].endswith(".bmp"):
            assert path == root / told["reference"]
        else:
            assert path.parent == tmp_path / "out" / "converted"


def test_classes_go_by_any_of_their_names(root, tmp_path):
    run(root, tmp_path / "out", "--classes", "JPEG", "none", "--levels", "2", "3")
    kinds = Counter(
        json.loads(row["reward_model"]["ground_truth"])["distortion_class"] for row in all_rows(tmp_path / "out")
    )
    assert set(kinds) == {"compression", None}
    assert {details(row)["level"] for row in all_rows(tmp_path / "out")} == {0, 2, 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--per-image", "101"), "there are 100"),
        (("--classes", "null", "--per-image", "2"), "there are 1 "),
        (("--classes", "blur", "blur", "--levels", "2", "2", "--per-image", "7"), "there are 6 "),
        (("--val-fraction", "0.6", "--test-fraction", "0.6"), "more than 1"),
    ],
)
def test_options_that_cannot_be_met_are_rejected(root, tmp_path, options, said):
    with pytest.raises(SystemExit, match=said):
        run(root, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_out_below_root_is_rejected(root):
    with pytest.raises(SystemExit, match="would be read again"):
        run(root, root / "nested" / "out")
    assert not (root / "nested" / "out").exists()


@pytest.mark.parametrize(
    "options", [("--classes", "rain"), ("--levels", "6"), ("--max-side", "0"), ("--per-image", "x")]
)
def test_unknown_classes_and_levels_are_rejected(root, tmp_path, options, capsys):
    with pytest.raises(SystemExit):
        run(root, tmp_path / "out", *options)
    assert options[0] in capsys.readouterr().err


def test_the_sheet_shows_all_operators_on_the_first_image(root, tmp_path):
    run(root, tmp_path / "out", "--sheet", str(tmp_path / "sheets" / "all.png"), "--classes", "null")
    sheet = Image.open(tmp_path / "sheets" / "all.png")
    assert sheet.size == (6 * 192, len(OPERATORS) * 206)
    first = pixels((root / "01.jpg").read_bytes())
    np.testing.assert_array_equal(np.asarray(sheet)[14 : 14 + first.shape[0], : first.shape[1]], first)


def test_a_folder_without_images_has_no_sheet(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "notes.txt").write_text("x")
    with pytest.raises(SystemExit, match="none of the images below it"):
        run(tmp_path / "root", tmp_path / "out", "--sheet", str(tmp_path / "sheet.png"))


def test_the_machinery_rejects_one_version_twice(root, tmp_path):
    twice = [Item("01.jpg", "train", version=version) for version in ("#1", "#2", "#1")]
    card = prepare_items(root, tmp_path / "out", twice, "degradation")
    assert (card["rows"], card["rejects"]) == (2, {"all": 1, "duplicate": 1})
