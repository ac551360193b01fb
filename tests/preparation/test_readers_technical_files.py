"""Label files of the technical data sets that are spoiled, elsewhere, DeQA-Score's, or KonIQ's real ones."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import technical_builders as build
from reader_builders import options_of, read
from technical_builders import SETS, Label, mapped, splits, written

from data_prep.csiq import CSIQ
from data_prep.kadid import KADID
from data_prep.koniq import KONIQ, NOT_IN_DEQA
from data_prep.live_wild import LIVE_WILD
from data_prep.pipal import PIPAL
from data_prep.spaq import SPAQ
from data_prep.tid2013 import TID2013
from omniq_verl.preparation.label_tables import LabelFileError

EXCERPT = Path(__file__).parents[1] / "labels" / "koniq10k_distributions_sets_excerpt.csv"


# Rows that cannot be used


@pytest.mark.parametrize(
    ("name", "spoiled", "fault"),
    [
        ("spaq", Label("00003.jpg", "n/a"), "its score 'n/a' is not a number"),
        ("spaq", Label("00003.jpg", None), "its score None is not a number"),
        ("live_wild", Label("300.bmp", float("nan"), 1.0), "its score nan is not a number"),
        ("kadid", Label("I03_01_01.png", "4,57", 0.5, "I03.png"), "its score '4,57' is not a number"),
        ("kadid", Label("I03_01_01.png", 4.57, 0.5, ""), "its name, with the reference '', is not of the form"),
        ("kadid", Label("I03_01_01.png", 4.57, 0.5, "I04.png"), "its name, with the reference 'I04.png', is not"),
        ("kadid", Label("I03.png", 4.57, 0.5, "I03.png"), "its name, with the reference 'I03.png', is not of the"),
        ("pipal", Label("A0003_00_00.bmp", "", None, "A0003.bmp"), "its score '' is not a number"),
        ("pipal", Label("A0003.bmp", 1500.0, None, "A0003.bmp"), "its name is not of the form A0001_00_00.bmp"),
        ("csiq", Label("elk.fnoise.2.png", "#REF!", 0.1), "its score '#REF!' is not a number"),
        ("csiq_words", Label("elk.png", 0.5), "its name is not of the form 1600.AWGN.1.png"),
        ("tid2013", Label("i07_01_2.bmp", "inf", 0.1), "its score 'inf' is not a number"),
        ("tid2013", Label("i07_25_2.bmp", 5.0, 0.1), "its name is not of the form i01_01_1.bmp"),
        ("tid2013", Label("I07.BMP", 5.0, 0.1), "its name is not of the form i01_01_1.bmp"),
    ],
)
def test_a_row_that_cannot_be_used_says_why_and_is_not_dropped(tmp_path, name, spoiled, fault):
    dataset, labels = SETS[name.removesuffix("_words")]
    good = [label for label in labels()[20:29] if label.name != spoiled.name]
    items = read(dataset, written(tmp_path, name, [*good, spoiled]))
    assert [item.name for item in items] == [label.name for label in (*good, spoiled)]
    assert [item.fault for item in items[:-1]] == [None] * len(good)
    assert items[-1].fault.startswith(fault)


@pytest.mark.parametrize(
    ("name", "spread", "key"),
    [
        ("live_wild", float("nan"), "standard_deviation"),
        ("kadid", "", "standard_deviation"),
        ("kadid", "-0.1", "standard_deviation"),
        ("csiq", None, "standard_deviation"),
        ("tid2013", "?", "standard_error"),
    ],
)
def test_a_missing_deviation_is_no_detail_and_no_fault(tmp_path, name, spread, key):
    dataset, labels = SETS[name]
    first, second = labels()[20:22]
    items = read(dataset, written(tmp_path, name, [replace(first, spread=spread), second]))
    assert [(key in item.details, item.fault) for item in items] == [(False, None), (True, None)]


# Files


@pytest.mark.parametrize("name", SETS)
def test_the_owners_file_comes_before_pyiqas(tmp_path, name):
    dataset, labels = SETS[name]
    ours = labels()[20:23]
    written(tmp_path, f"{name}_pyiqa", [replace(label, score=3.9) for label in ours])
    written(tmp_path, name, ours)
    assert [item.raw_score for item in read(dataset, tmp_path)] == [label.score for label in ours]


@pytest.mark.parametrize("name", SETS)
def test_a_root_without_a_label_file_is_rejected_with_their_names(tmp_path, name):
    with pytest.raises(LabelFileError, match=r"none of the label files .*meta_info_\w+\.csv is below it"):
        read(SETS[name][0], tmp_path)


@pytest.mark.parametrize("layout", ["live_wild", "live_wild_pyiqa"])
def test_live_wild_keeps_the_seven_practice_images_when_asked(tmp_path, layout):
    items = read(LIVE_WILD, written(tmp_path, layout, build.live_wild_labels()), "--training-images")
    assert len(items) == 1169
    assert (items[0].name, items[0].raw_score) == ("t1.bmp", 63.963406174124174)
    assert mapped(LIVE_WILD, items[:1])["t1.bmp"] == pytest.approx(3.72068658)


def test_live_wild_rejects_matlab_files_that_do_not_belong_together(tmp_path):
    written(tmp_path, "live_wild", build.live_wild_labels())
    written(tmp_path / "other", "live_wild", build.live_wild_labels()[:5])
    (tmp_path / "other/Data/AllMOS_release.mat").replace(tmp_path / "Data/AllMOS_release.mat")
    with pytest.raises(LabelFileError, match="have 1169 names, 5 scores and 1169 deviations"):
        read(LIVE_WILD, tmp_path, labels=tmp_path / "Data/AllImages_release.mat")


def test_live_wild_needs_no_file_of_deviations(tmp_path):
    written(tmp_path, "live_wild", build.live_wild_labels())
    (tmp_path / "Data/AllStdDev_release.mat").unlink()
    items = read(LIVE_WILD, tmp_path)
    assert (len(items), items[0].details) == (1162, {})


def test_tid2013_rejects_errors_that_do_not_belong_to_its_scores(tmp_path):
    written(tmp_path, "tid2013", build.tid2013_labels()[:9])
    build.text(tmp_path / "mos_std.txt", "0.1\n" * 8)
    with pytest.raises(LabelFileError, match=r"mos_std\.txt: it has 8 lines, mos_with_names\.txt 9"):
        read(TID2013, tmp_path)


def test_tid2013_needs_no_file_of_errors(tmp_path):
    written(tmp_path, "tid2013", build.tid2013_labels()[:9])
    (tmp_path / "mos_std.txt").unlink()
    assert ["standard_error" in item.details for item in read(TID2013, tmp_path)] == [False] * 9


@pytest.mark.parametrize("inside", ["Train_Label", "Train_Label/Train_Label", "training/MOS_Scores_train"])
def test_pipal_finds_its_200_files_in_every_known_folder(tmp_path, inside):
    labels = written(tmp_path / "made", "pipal", build.pipal_labels()) / "Train_Label"
    (tmp_path / "root" / inside).parent.mkdir(parents=True)
    labels.rename(tmp_path / "root" / inside)
    assert len(read(PIPAL, tmp_path / "root")) == 23200


def test_pipal_takes_its_training_labels_before_others_of_the_same_names(tmp_path):
    labels = [label for label in build.pipal_labels() if label.reference == "A0001.bmp"]
    written(tmp_path / "PIPAL", "pipal", labels)
    build.text(tmp_path / "A0001.txt", "A0001_00_00.bmp,1000.0")
    assert [item.raw_score for item in read(PIPAL, tmp_path)] == [label.score for label in labels]


def test_pipal_takes_a_folder_of_labels_from_elsewhere(tmp_path):
    written(tmp_path / "labels", "pipal", build.pipal_labels())
    (tmp_path / "root").mkdir()
    assert len(read(PIPAL, tmp_path / "root", labels=tmp_path / "labels")) == 23200


def test_pyiqas_file_is_known_by_its_name_in_any_case(tmp_path):
    labels = build.kadid_labels()[:3]
    build.kadid_pyiqa(tmp_path, labels).rename(tmp_path / "Meta_Info_KADID10kDataset.csv")
    assert [item.name for item in read(KADID, tmp_path)] == [label.name for label in labels]


@pytest.mark.parametrize(("dataset", "name", "row"), [(SPAQ, "SPAQ", "1.jpg"), (KADID, "KADID10k", "I01.png,a.png")])
def test_a_file_of_pyiqas_with_too_few_columns_is_rejected(tmp_path, dataset, name, row):
    header = ",".join("abc"[: row.count(",") + 1])
    build.text(tmp_path / f"meta_info_{name}Dataset.csv", f"{header}\n{row}\n")
    with pytest.raises(LabelFileError, match=rf"meta_info_{name}Dataset\.csv: it has \d columns, too few"):
        read(dataset, tmp_path)


def test_csiq_takes_other_spellings_of_a_number_and_of_a_type(tmp_path):
    header = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    rows = [
        [1600, 1, "Noise ", 1, 0.1, 0.2],
        ["1600", 6, "JPEG 2000", "2", 0.1, 0.3],
        ["elk", 9, "rain", 1, 0.1, 0.4],
    ]
    build.workbook(tmp_path / "csiq.DMOS.xlsx", {"all_by_image": [header, *rows]})
    names = [item.name for item in read(CSIQ, tmp_path)]
    assert names == ["1600.AWGN.1.png", "1600.jpeg2000.2.png", "elk.rain.1.png"]


# DeQA-Score's files


def deqa_file(path: Path, records: list[dict]) -> Path:
    path.write_text(json.dumps(records))
    return path


def test_deqa_scores_files_give_labels_and_splits_of_every_set(tmp_path):
    image = "CSIQ/images/dst_imgs/awgn/1600.AWGN.1.png"
    train = [{"id": "1600.AWGN.1.png->0.06", "image": image, "gt_score": 0.06, "gt_score_norm": 4.75, "std": 0.1}]
    test = [{"image": "b.png", "gt_score": 1, "gt_score_norm": 1.0, "std": None}, {"image": "c.png"}]
    files = [deqa_file(tmp_path / name, rows) for name, rows in {"train_x.json": train, "test_x.json": test}.items()]
    for dataset in (KONIQ, *(dataset for dataset, _ in SETS.values())):
        given = ("--deqa-meta", *map(str, files))
        items = read(dataset, tmp_path, *given)
        assert [(item.name, item.split, item.raw_score) for item in items] == [
            ("1600.AWGN.1.png", "train", 4.75),
            ("b.png", "test", 1.0),
            ("c.png", "test", None),
        ]
        assert [item.details for item in items] == [
            {"gt_score": 0.06, "standard_deviation": 0.1},
            {"gt_score": 1.0},
            {},
        ]
        assert [item.fault for item in items] == [None, None, "its score None is not a number"]
        # On DeQA-Score's own scale higher is better everywhere, so CSIQ's is not turned round again.
        assert mapped(dataset, items[:2], *given) == {"1600.AWGN.1.png": 4.75, "b.png": 1.0}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("csiq_866.json", "[]", "its name states no split"),
        ("test_csiq.json", "{}", "it is not a JSON list"),
        ("test_csiq.json", '[{"gt_score_norm": 3}]', "entry 1 .*image"),
        ("test_csiq.json", "[", "it is not JSON"),
    ],
)
def test_a_file_that_is_none_of_deqa_scores_is_rejected(tmp_path, name, content, message):
    path = build.text(tmp_path / name, content)
    with pytest.raises(LabelFileError, match=message):
        read(CSIQ, tmp_path, "--deqa-meta", str(path))


@pytest.mark.parametrize(
    ("dataset", "given"), [(CSIQ, ("--split", "by-reference")), (KONIQ, ("--deqa",))], ids=["split", "deqa"]
)
def test_deqa_scores_splits_are_not_mixed_with_others(dataset, given, capsys):
    with pytest.raises(SystemExit, match="2"):
        options_of(dataset, *given, "--deqa-meta", "test_x.json")
    assert f"not allowed with argument {given[0]}" in capsys.readouterr().err


# KonIQ-10k


def koniq_rows() -> list[dict[str, str]]:
    with open(EXCERPT, newline="") as file:
        return list(csv.DictReader(file))


def koniq_folder(folder: Path, name: str, rows: list[dict[str, str]]) -> Path:
    build.table(folder / name, ",".join(rows[0]), (list(row.values()) for row in rows))
    return folder


@pytest.mark.parametrize(
    ("mos", "image", "raw", "score", "reason"),
    [
        ("raw", "10004473376.jpg", 3.82857142857143, 4.400806947958697, "as Refine-IQA stores DeQA-Score's"),
        ("raw", "80184044.jpg", 1.09615384615385, 1.0, "the least"),
        ("raw", "121123359.jpg", 4.31, 5.0, "the greatest"),
        ("zscore", "10004473376.jpg", 77.3836206897, 4.478899486428679, "as in VisualQuality-R1's list"),
        ("zscore", "80184044.jpg", 3.91176470588, 1.0, "the least"),
        ("zscore", "5869585652.jpg", 88.3888888889, 5.0, "the greatest, which is not that of the raw MOS"),
    ],
)
def test_koniq_has_two_labels(mos, image, raw, score, reason):
    items = {item.name: item for item in read(KONIQ, EXCERPT.parent, "--mos", mos, labels=EXCERPT)}
    assert items[image].raw_score == pytest.approx(raw, abs=1e-11), reason
    assert mapped(KONIQ, [items[image]], "--mos", mos)[image] == pytest.approx(score, abs=1e-11), reason


def test_koniq_has_the_official_split_and_deviations():
    items = read(KONIQ, EXCERPT.parent, labels=EXCERPT)
    assert splits(items) == {"train": 148, "val": 17, "test": 44}
    assert items[0].details == {"standard_deviation": 0.527277894494}


def test_koniq_leaves_out_what_deqa_scores_lists_lack_when_asked():
    names = {item.name for item in read(KONIQ, EXCERPT.parent, labels=EXCERPT)}
    left = {item.name for item in read(KONIQ, EXCERPT.parent, "--deqa", labels=EXCERPT)}
    assert names - left == {f"{name}.jpg" for name in NOT_IN_DEQA}
    assert (len(names - left), left <= names) == (17, True)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("split", {"training": "0", "validation": "1", "test": "2"}),
        ("official_split", {"training": "train", "validation": "val", "test": "test"}),
    ],
)
@pytest.mark.parametrize("mos", ["raw", "zscore"])
def test_koniqs_label_file_of_pyiqa_says_the_same(tmp_path, column, words, mos):
    rows = [
        {"img_name": row["image_name"], "mos": row["MOS"], "std": row["SD"], column: words[row["set"]]}
        | {f"c{rating}": row[f"c{rating}"] for rating in range(1, 6)}
        for row in koniq_rows()
    ]
    folder = koniq_folder(tmp_path, "meta_info_KonIQ10kDataset.csv", rows)
    assert read(KONIQ, folder, "--mos", mos) == read(KONIQ, folder, "--mos", mos, labels=EXCERPT)


def test_pyiqas_mos_is_not_taken_for_the_raw_one(tmp_path):
    rows = [{"img_name": row["image_name"], "mos": row["MOS"], "official_split": "test"} for row in koniq_rows()]
    folder = koniq_folder(tmp_path, "meta_info_KonIQ10kDataset.csv", rows)
    with pytest.raises(LabelFileError, match="it has only the z-scored MOS"):
        read(KONIQ, folder)
    assert read(KONIQ, folder, "--mos", "zscore")[0].raw_score == 77.3836206897


def test_koniqs_scores_without_a_split_are_rejected_by_name(tmp_path):
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore"
    row = ["10004473376.jpg", 0, 0, 25, 73, 7, 105, 3.83, 0.53, 77.38362]
    path = build.table(tmp_path / "koniq10k_scores_and_distributions.csv", header, [row])
    message = "koniq10k_scores_and_distributions.csv: it has no split. Fix: add koniq10k_distributions_sets.csv from"
    for labels in (None, path):
        with pytest.raises(LabelFileError, match=message):
            read(KONIQ, tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("set", "holdout", "its set 'holdout' is none of the three"),
        ("c3", "0.9", "are not numbers that add up to 1"),
        ("c3", "", "are not numbers that add up to 1"),
    ],
)
def test_a_spoiled_row_of_koniq_says_why(tmp_path, column, value, fault):
    rows = koniq_rows()[:3]
    rows[1][column] = value
    items = read(KONIQ, koniq_folder(tmp_path, "koniq10k_distributions_sets.csv", rows))
    assert [item.fault is None for item in items] == [True, False, True] and items[1].fault.endswith(fault)


REAL = os.environ.get("OMNIQ_LABELS")


@pytest.mark.skipif(not REAL, reason="OMNIQ_LABELS names no folder with the owners' label files")
def test_the_real_file_of_koniq_has_its_known_counts():
    items = read(KONIQ, Path(REAL))
    assert splits(items) == {"train": 7058, "val": 1000, "test": 2015}
    assert not [item for item in items if item.fault]
    scores = mapped(KONIQ, items)
    assert (len(scores), min(scores.values()), max(scores.values())) == (10073, 1.0, 5.0)
    zscores = mapped(KONIQ, read(KONIQ, Path(REAL), "--mos", "zscore"), "--mos", "zscore")
    assert (min(zscores.values()), max(zscores.values())) == (1.0, 5.0)
    gaps = [abs(scores[name] - zscores[name]) for name in scores]
    assert (sum(gaps) / len(gaps), max(gaps)) == pytest.approx((0.067, 0.33), abs=0.005)
    assert splits(read(KONIQ, Path(REAL), "--deqa")) == {"train": 7046, "val": 1000, "test": 2010}
