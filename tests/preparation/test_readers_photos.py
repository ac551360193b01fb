"""Scripts for beauty and for degradations of photographs: label files in their owners' form -> items.

Excerpts of real label files are in ``tests/labels``; the environment variable OMNIQ_LABELS may name a folder with the
whole ones (``tad66k/{train,test}.csv``).
"""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from reader_builders import (
    REAL,
    ava_files,
    by_name,
    copied,
    distorted,
    dq495k_files,
    needs_real_files,
    read,
    tad66k_files,
    written,
)

from data_prep import ava, dq495k, tad66k
from omniq_verl.tasks import SEVERITIES

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


def test_dq495k_draws_images_to_test_on(tmp_path):
    lists = tmp_path / "KADIS700K" / "refA_sd_brief" / "metas"
    dq495k_files(tmp_path)
    tested = [distorted("blur", 1 + number % 5, "blur_lens", 1000 + number) for number in range(40)]
    (lists / "test_refA_sd_single_28k.json").write_text(json.dumps(tested))

    def names(*words: str) -> list[str]:
        return [one.name for one in read(dq495k.DQ495K, tmp_path, *words) if one.split == "test"]

    everything, ten = names(), names("--test-rows", "10")
    assert len(everything) == 40 and names("--test-rows", "50") == everything
    assert len(ten) == 10 and ten == [name for name in everything if name in ten]
    assert set(names("--test-rows", "4")) < set(ten) and names("--test-rows", "10", "--seed", "1") != ten
    assert sum(one.split == "train" for one in read(dq495k.DQ495K, tmp_path, "--test-rows", "1")) == 6


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
    written(metas / "test_A_sd_single_24k_exclude.json", json.dumps([distorted("blur", 2, ref=1)]))
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
    # A tenth of the lines and names of the real files: 7 of the 2,000 test images are in no line.
    lines = (f"{ref} {900000 + ref} 0 1 5 17 38 36 15 6 5 1 1 22 1396" for ref in range(1, 25554))
    test = (*(str(900000 + 12 * ref) for ref in range(1, 1994)), *(str(ref) for ref in range(1, 8)))
    ava_files(tmp_path, *lines, test=test)
    counts = Counter(item.split for item in read(ava.AVA, tmp_path, "--val-fraction", "0.02"))
    assert (counts.total(), counts["test"], counts["train"] + counts["val"]) == (25553, 1993, 23560)
    # 23,560 draws of 0.02: a standard deviation of 21.5; five of them.
    assert counts["val"] == pytest.approx(0.02 * 23560, abs=5 * 21.5)


def test_ava_validation_images_are_drawn_from_the_training_images(tmp_path):
    lines = [f"{ref} {ref} 0 1 5 17 38 36 15 6 5 1 1 22 1396" for ref in range(300)]
    ava_files(tmp_path, *lines, test=tuple(map(str, range(0, 300, 3))))
    before = {item.name: item.split for item in read(ava.AVA, tmp_path, "--val-fraction", "0")}
    after = {item.name: item.split for item in read(ava.AVA, tmp_path, "--val-fraction", "0.3")}
    assert Counter(before.values()) == {"train": 200, "test": 100}
    moved = {(before[name], after[name]) for name in after if before[name] != after[name]}
    assert moved == {("train", "val")}


def test_ava_another_seed_draws_other_validation_images(tmp_path):
    lines = [f"{ref} {ref} 0 1 5 17 38 36 15 6 5 1 1 22 1396" for ref in range(200)]
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
