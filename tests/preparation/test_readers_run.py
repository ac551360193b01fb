"""Scripts for beauty, fit to a prompt and degradations from the command line: rows, rejects, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from reader_builders import (
    AVA_LINES,
    SCALE,
    Case,
    agiqa3k_files,
    ava_files,
    dq495k_files,
    evalmi_files,
    evalmuse_files,
    genai_files,
    picture,
    prepared,
    run_in_vain,
    t2i_files,
    tad66k_files,
    written,
)

from data_prep import agiqa3k, ava, dq495k, evalmi, evalmuse, genai_bench, t2i_compbench, tad66k
from omniq_verl.tasks import TASKS

# A few images, with the traps of real copies; the others are missing


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dataset.name}-{case.why}")
def test_images_become_rows_and_missing_ones_counted_rejects(tmp_path, case):
    case.files(tmp_path)
    files = [picture(tmp_path / path, ref) for ref, path in enumerate(case.images.values())]
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
    for ref, path in enumerate(case.images.values()):
        picture(tmp_path / path, ref)
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
    assert reasons["evalmuse/Dreamina/0002.png"].startswith("label: its text contains <image>")


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


# Errors that end a script


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
def test_genai_bench_rejects_images_of_the_other_version(tmp_path, name):
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
    assert "AVA.txt is not a folder. Fix: give the one that holds AVA.txt, generic_test.jpgl" in said


def test_t2i_compbench_rejects_a_scale_without_extent(tmp_path):
    t2i_files(tmp_path)
    said = run_in_vain(t2i_compbench.T2I_COMPBENCH, tmp_path, "--low", "5", "--high", "1")
    assert said == "--low and --high: a label map needs low < high, got [5.0, 1.0]"


@pytest.mark.parametrize(
    ("dataset", "name", "content", "message"),
    [
        (evalmuse.EVALMUSE, "train_list.json", '{"a": 1}', "it is not a JSON list"),
        (evalmuse.EVALMUSE, "train_list.json", "[1]", "entry 1 is not a JSON object"),
        (evalmuse.EVALMUSE, "train_list.json", '[{"img_path": 3, "prompt": "x"}]', "entry 1 lacks img_path, prompt_id"),
        (evalmuse.EVALMUSE, "train_list.json", "[", "it is not JSON"),
        (genai_bench.GENAI_BENCH, "genai_image.json", '{"00000": {"models": 3}}', "not a JSON object whose entries"),
        (agiqa3k.AGIQA3K, "data.csv", "name,prompt\na,b\n", "it has no column adj1"),
    ],
)
def test_a_broken_label_file_ends_the_script_with_its_name(tmp_path, dataset, name, content, message):
    written(tmp_path / name, content)
    said = run_in_vain(dataset, tmp_path)
    assert message in said
    assert name in said
