"""Scripts for generated images: label files in their owners' form -> items.

Excerpts of real label files are in ``tests/labels``; the environment variable OMNIQ_LABELS may name a folder with the
whole ones (``agiqa3k_data.csv``, ``geneval_evaluation_metadata.jsonl``).
"""

import json
from collections import Counter
from pathlib import Path

import pytest
from reader_builders import (
    GENERATORS,
    LABELS,
    REAL,
    SCALE,
    agiqa3k_files,
    by_name,
    copied,
    evalmi_files,
    evalmuse_files,
    genai_files,
    needs_real_files,
    options_of,
    picture,
    rated,
    read,
    t2i_files,
    written,
)

from data_prep import agiqa3k, evalmi, evalmuse, genai_bench, geneval, t2i_compbench
from omniq_verl.preparation.label_tables import LabelFileError

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
    # 1,000 draws of 0.2: a standard deviation of 12.6; five of them. Of 0.03: 5.4.
    assert sum(found == {"test"} for found in splits.values()) == pytest.approx(200, abs=64)
    assert sum(found == {"val"} for found in splits.values()) == pytest.approx(30, abs=27)


def test_evalmuse_a_validation_share_takes_no_test_image(tmp_path):
    evalmuse_files(tmp_path, *[rated(f"g/{p}.png", [3, 3, 3], f"prompt {p}") for p in range(200)])
    none, some = (
        {item.name: item.split for item in read(evalmuse.EVALMUSE, tmp_path, "--val-share", share)}
        for share in ("0", "0.4")
    )
    assert {(none[name], some[name]) for name in none} == {("test", "test"), ("train", "train"), ("train", "val")}


def test_evalmuse_a_prompt_stays_where_it_is_when_others_are_gone(tmp_path):
    records = [rated(f"g/{p}.png", [3, 3, 3], f"prompt {p}") for p in range(100)]
    evalmuse_files(tmp_path / "all", *records)
    evalmuse_files(tmp_path / "half", *records[::-2])
    splits = [{item.name: item.split for item in read(evalmuse.EVALMUSE, tmp_path / part)} for part in ("all", "half")]
    assert splits[1].items() <= splits[0].items()
    assert set(splits[1].values()) == {"train", "val", "test"}


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
    prompts = tuple(f"prompt {ref}" for ref in range(1, 1202))
    evalmi_files(tmp_path, ["sd3_5/007.png", 50, 50], ["sd3_5/1201.png", 50, 50], prompts=prompts)
    assert [item.text for item in read(evalmi.EVALMI, tmp_path)] == ["prompt 7", "prompt 1201"]


def test_evalmi_is_for_testing_unless_whole_prompts_are_drawn_for_training(tmp_path):
    rows = [[f"{model}/{ref:03d}.png", 50, 50] for ref in range(1, 101) for model in ("a", "b")]
    evalmi_files(tmp_path, *rows, prompts=tuple(f"prompt {ref % 50}" for ref in range(100)))
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
def test_evalmi_rejects_prompts_that_do_not_go_with_the_numbers(tmp_path, prompts):
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
def test_geneval_rejects_a_line_that_is_not_its_own(tmp_path, changes):
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
