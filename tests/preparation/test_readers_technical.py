"""Scores, details and splits that the scripts of the technical data sets read from whole label files."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import technical_builders as build
from reader_builders import options_of, read
from technical_builders import SETS, Label, mapped, splits, written

from data_prep.csiq import CSIQ
from data_prep.kadid import KADID
from omniq_verl.preparation.build import Item

BY_REFERENCE = ("kadid", "pipal", "csiq", "tid2013")
LAYOUTS = [
    *((name, layout) for name in SETS for layout in (name, f"{name}_pyiqa")),
    ("pipal", "pipal_ntire22"),
    ("csiq", "csiq_words"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str, str], Path]:
    """A folder with a data set's whole label file in one layout."""
    return lru_cache(lambda name, layout: written(tmp_path_factory.mktemp(layout), layout, SETS[name][1]()))


@pytest.fixture(scope="module")
def all_of(whole) -> Callable[[str, str], list[Item]]:
    """What is read from it without options."""
    return lru_cache(lambda name, layout: read(SETS[name][0], whole(name, layout)))


# What is yielded


@pytest.mark.parametrize(
    ("name", "count", "references"),
    [
        ("spaq", 11125, 0),
        ("live_wild", 1162, 0),
        ("kadid", 10125, 81),
        ("pipal", 23200, 200),
        ("csiq", 866, 30),
        ("tid2013", 3000, 25),
    ],
)
def test_every_image_of_a_label_file_is_yielded_for_testing(all_of, name, count, references):
    for layout in (layout for of, layout in LAYOUTS if of == name):
        items = all_of(name, layout)
        assert (len(items), len({item.name for item in items}), splits(items)) == (count, count, {"test": count})
        assert not [item for item in items if item.fault]
        found = {item.details["reference"].lower() for item in items if "reference" in item.details}
        assert len(found) == references, layout


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_every_layout_gives_the_same_scores_and_references(all_of, name, layout):
    def facts(of: str) -> list[tuple]:
        items = all_of(name, of)
        return sorted((item.name, item.raw_score, item.details.get("reference", "").lower()) for item in items)

    expected = [(label.name, label.score, label.reference.lower()) for label in SETS[name][1]()]
    practice = {f"t{number}.bmp" for number in range(1, 8)}
    assert facts(layout) == sorted(row for row in expected if row[0] not in practice)


@pytest.mark.parametrize(
    ("name", "image", "raw", "score", "reason"),
    [
        ("spaq", "00001.jpg", 48.86, 2.9940425531914894, "as in VisualQuality-R1's list"),
        ("spaq", "11125.jpg", 10.8, 1.3744680851063829, "the last row"),
        ("spaq", "07338.jpg", 2.0, 1.0, "the least"),
        ("spaq", "07248.jpg", 96.0, 5.0, "the greatest"),
        ("live_wild", "100.bmp", 32.56107532210109, 2.30953538, "the first after the seven"),
        ("kadid", "I01_01_01.png", 4.57, 4.633587786259543, "as in VisualQuality-R1's list"),
        ("kadid", "I02_02_05.png", 1.0, 1.0, "the least: the column is called dmos, yet low is bad"),
        ("kadid", "I23_03_01.png", 4.93, 5.0, "the greatest"),
        ("pipal", "A0001_00_00.bmp", 1520.0648, 3.62534353, "the first row"),
        ("pipal", "A0248_06_26.bmp", 1257.06, 2.48093883, "of the last reference"),
        ("csiq", "1600.AWGN.1.png", 0.061989, 4.752044, "mild noise, of a DMOS: lower is better"),
        ("csiq", "woman.contrast.4.png", 0.468556, 3.125776, "the last row"),
        ("csiq", "bridge.BLUR.1.png", 0.0, 5.0, "the best has the least DMOS"),
        ("csiq", "elk.jpeg2000.5.png", 1.0, 1.0, "the worst has the greatest"),
        ("tid2013", "I01_01_1.bmp", 5.51429, 4.02465192, "the first row"),
        ("tid2013", "i25_24_5.bmp", 2.77143, 2.45097944, "the last row"),
    ],
)
def test_golden_rows_have_their_score_on_the_scale(all_of, name, image, raw, score, reason):
    dataset = SETS[name][0]
    for layout in (layout for of, layout in LAYOUTS if of == name):
        items = {item.name: item for item in all_of(name, layout)}
        assert items[image].raw_score == raw, reason
        assert mapped(dataset, [items[image]])[image] == pytest.approx(score, abs=1e-7), reason


@pytest.mark.parametrize(
    ("name", "slope", "offset"),
    [
        ("spaq", 0.042553, 0.914894),
        ("live_wild", 0.044938, 0.846313),
        ("kadid", 1.017812, -0.017812),
        ("pipal", 0.004351, -2.988868),
        ("csiq", -4.0, 5.0),
        ("tid2013", 0.573734, 0.860915),
    ],
)
def test_scores_lie_on_the_line_of_the_papers_and_reach_both_ends(all_of, name, slope, offset):
    dataset = SETS[name][0]
    items = all_of(name, name)
    scores = mapped(dataset, items)
    assert (min(scores.values()), max(scores.values())) == (1.0, 5.0)
    line = {item.name: slope * item.raw_score + offset for item in items}
    assert scores == pytest.approx(line, abs=6e-7 * max(abs(item.raw_score) for item in items) + 1e-6)


@pytest.mark.parametrize(
    ("name", "layout", "image", "details", "reason"),
    [
        (
            *("spaq", "spaq", "00001.jpg"),
            {"brightness": 47.43, "colorfulness": 55.57, "contrast": 55.71, "noisiness": 37.86, "sharpness": 42.57},
            "attributes, and no deviation",
        ),
        (
            *("spaq", "spaq_pyiqa", "00001.jpg"),
            {"colorfulness": 55.57, "contrast": 55.71, "noisiness": 37.86, "sharpness": 42.57},
            "of its two columns Brightness the second is an EXIF tag (-1.21)",
        ),
        ("live_wild", "live_wild", "100.bmp", {"standard_deviation": 19.12472638223644}, "from the third file"),
        ("live_wild", "live_wild_pyiqa", "100.bmp", {"standard_deviation": 19.12472638223644}, "column std"),
        (
            *("kadid", "kadid", "I01_01_01.png"),
            {"reference": "I01.png", "distortion": "gaussian_blur", "level": 1, "standard_deviation": 0.496**0.5},
            "its column is a variance",
        ),
        (
            *("kadid", "kadid_pyiqa", "I81_25_05.png"),
            {"reference": "I81.png", "distortion": "contrast_change", "level": 5, "standard_deviation": 0.772**0.5},
            "the variance is called std",
        ),
        (
            *("pipal", "pipal", "A0001_01_07.bmp"),
            {"reference": "A0001.bmp", "distortion": "01", "variant": "07"},
            "codes stay words: their leading zeros matter",
        ),
        (
            *("csiq", "csiq", "1600.AWGN.1.png"),
            {"reference": "1600.png", "distortion": "awgn", "level": 1, "standard_deviation": 0.061},
            "the picture's name is a number in the workbook",
        ),
        (
            *("csiq", "csiq_words", "woman.contrast.4.png"),
            {"reference": "woman.png", "distortion": "contrast", "level": 4},
            "no deviations in this form",
        ),
        (
            *("tid2013", "tid2013", "I01_11_1.BMP"),
            {"reference": "I01.BMP", "distortion": "jpeg2000", "level": 1, "standard_error": 0.5},
            "what mos_std.txt holds is no deviation of ratings",
        ),
        (
            *("tid2013", "tid2013_pyiqa", "i25_24_5.bmp"),
            {"reference": "I25.BMP", "distortion": "sparse_sampling", "level": 5, "standard_error": 0.14047},
            "of the last code",
        ),
    ],
)
def test_the_details_say_what_else_is_known(all_of, name, layout, image, details, reason):
    items = {item.name: item for item in all_of(name, layout)}
    assert items[image].details == pytest.approx(details), reason


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_details_are_json_without_gaps(all_of, name, layout):
    for item in all_of(name, layout):
        assert None not in item.details.values()
        json.dumps(item.details, allow_nan=False)


def test_pipal_has_its_types_in_their_known_numbers(all_of):
    counts = Counter(item.details["distortion"] for item in all_of("pipal", "pipal"))
    assert [counts[f"{kind:02d}"] for kind in range(7)] == [2400, 3200, 2000, 4800, 2600, 2800, 5400]


def test_csiq_has_its_types_in_their_known_numbers(all_of):
    counts = Counter(item.details["distortion"] for item in all_of("csiq", "csiq"))
    assert counts == {"awgn": 150, "blur": 150, "jpeg": 150, "jpeg2000": 150, "fnoise": 150, "contrast": 116}


# Splits


@pytest.mark.parametrize(
    ("name", "shares", "sizes", "reason"),
    [
        ("kadid", "8:0:2", {"train": 8125, "test": 2000}, "65 and 16 references"),
        ("kadid", "6:2:2", {"train": 6125, "val": 2000, "test": 2000}, "49, 16 and 16, as in VisualQuality-R1"),
        ("pipal", "8:0:2", {"train": 18560, "test": 4640}, "160 and 40, the sizes of DeQA-Score's lists"),
        ("tid2013", "8:0:2", {"train": 2400, "test": 600}, "20 and 5"),
        ("tid2013", "0:0:1", {"test": 3000}, "a share of 0 has no rows"),
        ("tid2013", "1:1:0", {"train": 1440, "val": 1560}, "12.5 are rounded down, and nothing is left for testing"),
    ],
)
def test_shares_are_of_the_references(whole, name, shares, sizes, reason):
    items = read(SETS[name][0], whole(name, name), "--split", "by-reference", "--shares", shares)
    assert splits(items) == sizes, reason


@pytest.mark.parametrize("name", BY_REFERENCE)
@pytest.mark.parametrize("seed", range(3))
def test_no_reference_is_on_two_sides(whole, name, seed):
    given = ("--split", "by-reference", "--shares", "6:2:2", "--seed", str(seed))
    sides: dict[str, set[str]] = {}
    for item in read(SETS[name][0], whole(name, name), *given):
        sides.setdefault(item.details["reference"].lower(), set()).add(item.split)
    assert {len(found) for found in sides.values()} == {1}
    assert {side for found in sides.values() for side in found} == {"train", "val", "test"}


def test_a_reference_in_another_case_is_the_same_one(tmp_path):
    labels = [label for label in build.kadid_labels() if label.reference in ("I01.png", "I02.png")]
    mixed = [
        replace(label, reference=label.reference.lower() if n % 2 else label.reference)
        for n, label in enumerate(labels)
    ]
    items = read(KADID, written(tmp_path, "kadid", mixed), "--split", "by-reference", "--shares", "1:0:1")
    assert splits(items) == {"train": 125, "test": 125}
    assert len({(item.name[:3], item.split) for item in items}) == 2


@pytest.mark.parametrize(("name", "sizes"), [("spaq", (8900, 2225)), ("live_wild", (930, 232))])
def test_a_random_split_is_by_image(whole, name, sizes):
    counts = splits(read(SETS[name][0], whole(name, name), "--split", "random"))
    assert (counts["train"], counts["test"], counts["val"]) == (*sizes, 0)


@pytest.mark.parametrize(("name", "kind"), [("csiq", "by-reference"), ("live_wild", "random")])
def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows(tmp_path, whole, name, kind):
    dataset, labels = SETS[name]
    written(tmp_path, name, reversed(labels()))

    def drawn(root: Path, seed: str) -> set[str]:
        items = read(dataset, root, "--split", kind, "--seed", seed)
        return {item.name for item in items if item.split == "train"}

    assert drawn(whole(name, name), "1") == drawn(tmp_path, "1")
    assert drawn(whole(name, name), "1") != drawn(whole(name, name), "2")


def test_rows_with_a_fault_do_not_move_the_others(tmp_path, whole):
    labels = SETS["csiq"][1]()
    written(tmp_path, "csiq_words", [*(Label(f"no.image.{number}", 0.5) for number in range(30)), *labels])
    sides = [
        {item.name: item.split for item in read(CSIQ, root, "--split", "by-reference") if not item.fault}
        for root in (tmp_path, whole("csiq", "csiq"))
    ]
    assert sides[0] == sides[1]


@pytest.mark.parametrize(
    ("split", "sizes", "sides"),
    [
        ("deqa", {"train": 8125, "test": 2000}, {"I65": "train", "I66": "test", "I81": "test"}),
        (
            *("visualquality-r1", {"train": 6125, "val": 2000, "test": 2000}),
            {"I01": "train", "I07": "val", "I19": "test", "I70": "val", "I79": "train", "I81": "test"},
        ),
    ],
)
def test_kadid_has_the_splits_of_two_papers(whole, split, sizes, sides):
    items = read(KADID, whole("kadid", "kadid"), "--split", split)
    assert splits(items) == sizes
    found = {item.name[:3]: item.split for item in items}
    assert {reference: found[reference] for reference in sides} == sides


@pytest.mark.parametrize("shares", ["8:2", "8:0:-2", "0:0:0", "0.8:0:0.2", "a:b:c"])
def test_shares_that_make_no_sense_are_rejected(shares, capsys):
    with pytest.raises(SystemExit, match="2"):
        options_of(KADID, "--shares", shares)
    assert f"{shares!r} is not of the form 8:0:2" in capsys.readouterr().err
