"""The data set made of photographs that ship inside Python packages."""

import io
import json
import sys
from argparse import Namespace
from collections import defaultdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from omniq_verl.rewards import format_reward, parse_response
from omniq_verl.tasks import LEVELS as QUALITIES
from omniq_verl.tasks import TASKS, TECHNICAL

SCALE = TECHNICAL.scale
FIFTH = (SCALE.high - SCALE.low) / 5
BEYOND = FIFTH / 2
"""How far a cold-start answer may lie outside of the fifth of its level."""
KINDS = ("noise", "blur", "compression", "darken")
LEVELS = range(5)
SIDE = 40
CROPS = {"train": 12, "sft": 24, "val": 4, "test": 6}


def load_script() -> ModuleType:
    path = Path(__file__).parents[2] / "data_prep" / "photo_distortions.py"
    spec = spec_from_file_location("photo_distortions_script", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the module of a class
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    return script.load_photos()


@pytest.fixture(scope="module")
def crops(photos) -> list:
    names = [name for name in script.PHOTOS if name not in script.HELD_OUT]
    return script.make_crops("sft", 200, names, photos, SIDE, seed=0)


@pytest.fixture(scope="module")
def quality(crops):
    return script.QualityMap([crop.ssim for crop in crops])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("photos"), seed=0)


def prepare(folder: Path, seed: int) -> Path:
    script.prepare(Namespace(out=folder, seed=seed, crop=SIDE), script.Size(**CROPS))
    return folder


def records(folder: Path, split: str) -> list[dict]:
    return pq.read_table(folder / f"{split}.parquet").to_pylist()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def crop_of(row_id: str, kind: str = "noise", level: int = 1) -> object:
    return script.Crop(row_id, "chelsea", kind, level, 0.5, b"")


# Photographs


def test_every_photograph_is_eight_bit_rgb_and_larger_than_a_crop(photos):
    assert sorted(photos) == sorted(script.PHOTOS)
    for photo in photos.values():
        assert (photo.dtype, photo.ndim, photo.shape[2]) == (np.uint8, 3, 3)
        assert min(photo.shape[:2]) > 80


def test_no_photograph_has_two_names(photos):
    assert len({photo.tobytes() for photo in photos.values()}) == len(photos)


def test_every_third_photograph_of_the_alphabet_is_held_out():
    assert sorted(script.PHOTOS) == list(script.PHOTOS)
    assert script.HELD_OUT == ("camera", "china", "coins", "gravel", "moon", "retina")


# Distortions


def test_a_crop_without_distortion_keeps_every_bit(photos):
    clean = photos["chelsea"][:SIDE, :SIDE]
    np.testing.assert_array_equal(script.distort(clean, "null", 4, np.random.default_rng(0)), clean)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_distorted_crop_differs_and_keeps_shape_and_type(photos, kind, level):
    clean = photos["chelsea"][100 : 100 + SIDE, 100 : 100 + SIDE]
    before = clean.copy()
    distorted = script.distort(clean, kind, level, np.random.default_rng(0))
    assert (distorted.shape, distorted.dtype) == (clean.shape, np.uint8)
    assert (distorted != clean).any()
    np.testing.assert_array_equal(clean, before)


def test_darkening_multiplies_every_pixel():
    # 0.75 of 0, 1, 2, 100 and 255 is 0, 0.75, 1.5, 75 and 191.25; NumPy rounds halves to even.
    clean = np.array([0, 1, 2, 100, 255], np.uint8).reshape(1, 5, 1)
    darkened = script.distort(clean, "darken", 0, np.random.default_rng(0))
    assert darkened.ravel().tolist() == [0, 1, 2, 75, 191]


def test_noise_has_the_strength_of_its_level():
    grey = np.full((200, 200, 3), 128, np.uint8)
    for level, strength in enumerate(script.NOISE_STD[:3]):  # the stronger ones are clipped at black and white
        noise = script.distort(grey, "noise", level, np.random.default_rng(level)).astype(float) - 128
        # 120,000 values: the standard error of their spread is 0.2 percent, that of their mean 0.08 at most.
        assert noise.std() == pytest.approx(strength, rel=0.02)
        assert noise.mean() == pytest.approx(0, abs=0.5)


def test_blur_does_not_mix_the_colours():
    clean = np.zeros((15, 15, 3), np.uint8)
    clean[7, 7, 0] = 255
    blurred = script.distort(clean, "blur", 2, np.random.default_rng(0))
    assert blurred[7, 8, 0] > 0
    assert not blurred[:, :, 1:].any()


def test_an_unknown_distortion_is_rejected():
    with pytest.raises(ValueError, match="'rain'"):
        script.distort(np.zeros((8, 8, 3), np.uint8), "rain", 0, np.random.default_rng(0))


def test_a_crop_equals_itself(photos):
    clean = photos["astronaut"][:SIDE, :SIDE]
    assert script.ssim(clean, clean) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_similarity_falls_from_level_to_level(photos, kind):
    rng = np.random.default_rng(0)
    cleans = []
    for name in script.PHOTOS:  # one crop of each, where there is something to see
        top = left = 60
        cleans.append(photos[name][top : top + SIDE, left : left + SIDE])
    cleans = [clean for clean in cleans if clean.std() >= script.MIN_CONTRAST]
    assert len(cleans) >= 10
    means = [np.mean([script.ssim(c, script.distort(c, kind, level, rng)) for c in cleans]) for level in LEVELS]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[-1] > 0.3


# Crops


def test_a_crop_depends_on_its_id_alone(photos, crops):
    names = [name for name in script.PHOTOS if name not in script.HELD_OUT]
    assert script.make_crops("sft", 3, names, photos, SIDE, seed=0) == crops[:3]


def test_every_distortion_and_level_occurs(crops):
    assert {crop.kind for crop in crops} == {*KINDS, "null"}
    assert {(crop.kind, crop.level) for crop in crops} >= {(kind, level) for kind in KINDS for level in LEVELS}


def test_flat_crops_are_left_out(crops):
    clean = [crop for crop in crops if crop.kind == "null"]
    assert len(clean) >= 20
    assert all(pixels(crop.png).std() >= script.MIN_CONTRAST for crop in clean)


# Target


@settings(deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=50).filter(lambda values: min(values) < 1),
    st.floats(-1, 1),
    st.floats(-1, 1),
)
def test_quality_stays_on_the_scale_and_keeps_the_order_of_similarity(training, first, second):
    low, high = sorted((first, second))
    quality = script.QualityMap(training)
    assert 1.0 <= quality(low) <= quality(high) <= 5.0


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50).filter(lambda values: min(values) < 1))
def test_an_undistorted_crop_has_the_highest_quality(training):
    assert script.QualityMap(training)(1.0) == 5.0


def test_quality_is_the_share_of_training_crops_that_are_less_similar():
    # Similarities 0.00, 0.01, ..., 1.00 in equal steps: the share below 0.25 is a quarter, so 1 + 4 / 4.
    quality = script.QualityMap([number / 100 for number in range(100)] + [1.0] * 7)
    assert quality(0.0) == 1.0
    assert quality(0.25 * 0.99) == pytest.approx(2.0)
    assert quality(0.5 * 0.99) == pytest.approx(3.0)
    assert quality(0.99) == pytest.approx(5.0)


def test_every_level_of_quality_holds_about_a_fifth_of_the_distorted_crops(crops, quality):
    distorted = [SCALE.level(quality(crop.ssim)) for crop in crops if crop.kind != "null"]
    shares = [distorted.count(level) / len(distorted) for level in QUALITIES]
    assert shares == pytest.approx([0.2] * 5, abs=0.02)


def test_a_row_keeps_what_its_crop_knows(crops, quality):
    for crop in crops[:20]:
        row = script.to_row(crop, "sft", quality)  # the row checks itself
        assert (row.raw_score, row.score) == (crop.ssim, quality(crop.ssim))
        assert row.details["level"] == (-1 if crop.kind == "null" else crop.level)
        assert (row.details["photo"], row.details["distortion"]) == (crop.photo, crop.kind)


# Cold start


def is_near_fifth(number: float, part: int) -> bool:
    """Whether a number on the scale, rounded to one decimal, lies in a fifth or a little beyond."""
    low, high = SCALE.low + part * FIFTH - BEYOND, SCALE.low + (part + 1) * FIFTH + BEYOND
    return low - 1e-9 <= number <= high + 1e-9 and SCALE.contains(number)


def test_a_cold_start_answer_is_well_formed_and_lies_near_the_fifth_of_its_level(crops, quality):
    for crop in crops:
        score = quality(crop.ssim)
        text = script.cold_start_answer(crop, score, seed=0)
        parsed = parse_response(text, scale=SCALE)
        assert parsed.ok and format_reward(text) == 1.0, text
        assert is_near_fifth(parsed.score, QUALITIES.index(SCALE.level(score))), (text, score)


@pytest.mark.parametrize(("score", "part"), [(1.0, 0), (1.8, 1), (2.6, 2), (3.4, 3), (4.2, 4), (5.0, 4)])
def test_a_cold_start_answer_at_a_boundary_is_that_of_the_upper_level(score, part):
    for row in range(100):
        text = script.cold_start_answer(crop_of(f"row/{row}"), score, seed=0)
        assert f"{QUALITIES[part]} quality" in text
        assert is_near_fifth(parse_response(text, scale=SCALE).score, part), text


def test_a_cold_start_number_is_drawn_evenly_around_the_middle_of_its_level():
    texts = [script.cold_start_answer(crop_of(f"row/{row}"), 3.1, seed=0) for row in range(300)]
    numbers = [parse_response(text, scale=SCALE).score for text in texts]
    reach = FIFTH / 2 + BEYOND
    assert max(numbers) - min(numbers) > 1.8 * reach
    # Uniform over 2 * reach around 3: the mean has a standard error of 2 * reach / sqrt(12 * 300); five of them.
    assert np.mean(numbers) == pytest.approx(3.0, abs=5 * 2 * reach / np.sqrt(12 * 300))


@pytest.mark.parametrize(
    ("kind", "level", "score", "reasoning"),
    [
        ("noise", 0, 4.9, "slight noise, excellent quality"),
        ("blur", 4, 1.0, "catastrophic blur, bad quality"),
        ("null", 3, 5.0, "no distortion, excellent quality"),
    ],
)
def test_cold_start_reasoning_names_the_distortion_and_the_level(kind, level, score, reasoning):
    text = script.cold_start_answer(crop_of("row/0", kind, level), score, seed=0)
    assert parse_response(text, scale=SCALE).reasoning == reasoning


# Files


def test_the_same_seed_gives_the_same_bytes(prepared, tmp_path):
    again = prepare(tmp_path, seed=0)
    names = sorted(path.name for path in prepared.iterdir())
    assert names == ["dataset_card.json", "sft.parquet", "test.parquet", "train.parquet", "val.parquet"]
    assert [(again / name).read_bytes() for name in names] == [(prepared / name).read_bytes() for name in names]


def test_another_seed_gives_other_crops(prepared, tmp_path):
    other = prepare(tmp_path, seed=1)
    images = [{record["images"][0]["bytes"] for record in records(folder, "train")} for folder in (prepared, other)]
    assert images[0].isdisjoint(images[1])


def test_files_have_the_rows_that_were_asked_for(prepared):
    assert {split: len(records(prepared, split)) for split in CROPS} == CROPS
    card = json.loads((prepared / "dataset_card.json").read_text())
    assert card["files"] == {f"{split}.parquet": count for split, count in CROPS.items()}


def test_training_and_held_out_photographs_are_never_the_same(prepared, photos):
    shown = defaultdict(set)
    for split in ("train", "val", "test"):
        shown[split] = {json.loads(record["extra_info"]["details"])["photo"] for record in records(prepared, split)}
    names = [name for name in script.PHOTOS if name not in script.HELD_OUT]
    crops = script.make_crops("sft", CROPS["sft"], names, photos, SIDE, seed=0)
    # Supervised records do not name their photograph: they are the crops made from training photographs.
    assert [record["images"][0]["bytes"] for record in records(prepared, "sft")] == [crop.png for crop in crops]
    assert shown["train"] | {crop.photo for crop in crops} <= set(names)
    assert shown["val"] | shown["test"] <= set(script.HELD_OUT)


def test_no_two_rows_share_an_id(prepared):
    ids = [record["extra_info"]["id"] for split in CROPS for record in records(prepared, split)]
    assert len(set(ids)) == sum(CROPS.values())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_show_the_crops_they_are_about(prepared, photos, split):
    names = script.HELD_OUT if split != "train" else [name for name in script.PHOTOS if name not in script.HELD_OUT]
    crops = script.make_crops(split, CROPS[split], names, photos, SIDE, seed=0)
    assert [record["images"][0]["bytes"] for record in records(prepared, split)] == [crop.png for crop in crops]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_for_reinforcement_learning_are_sound(prepared, split):
    for index, record in enumerate(records(prepared, split)):
        info = record["extra_info"]
        assert (info["index"], info["split"], record["ability"]) == (index, split, "technical")
        assert json.loads(record["reward_model"]["ground_truth"])["score"] == pytest.approx(info["score"], abs=1e-6)
        assert record["prompt"] == TASKS["technical"].messages(info["id"])
        assert pixels(record["images"][0]["bytes"]).shape == (SIDE, SIDE, 3)


def test_rows_for_supervised_training_end_in_an_answer_that_can_be_parsed(prepared):
    for record in records(prepared, "sft"):
        user, assistant = record["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert parse_response(assistant["content"], scale=SCALE).ok
