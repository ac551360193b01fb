"""GenEval's prompts, folders and results, in their exact form."""

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.t2i.geneval import (
    TAGS,
    BadGenEval,
    check_scorer_log,
    prompt_folder,
    read_prompts,
    read_results,
    sample_name,
)

PROMPTS = Path(__file__).parents[1] / "labels" / "geneval" / "evaluation_metadata.jsonl"


def result(tag: str, number: int, correct: bool, prompt: str = "a photo of a bench") -> dict:
    metadata = {"tag": tag, "include": [{"class": "bench", "count": 1}], "prompt": prompt}
    return {
        "filename": f"images/{tag}/samples/{number:05d}.png",
        "tag": tag,
        "prompt": prompt,
        "correct": correct,
        "reason": "" if correct else "expected bench>=1, found 0",
        "metadata": json.dumps(metadata),
        "details": json.dumps({"bench": [[1.0, 2.0, 3.0, 4.0, 0.9]]}),
    }


def written(path: Path, lines: list) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def some(right: dict[str, int], of: dict[str, int]) -> list[dict]:
    return [result(tag, number, number < right[tag]) for tag in TAGS for number in range(of[tag])]


def test_real_prompts_are_read():
    prompts = read_prompts(PROMPTS)  # two of each tag, out of 553
    assert Counter(prompt["tag"] for prompt in prompts) == dict.fromkeys(TAGS, 2)
    first = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
    assert first in prompts


def test_a_prompts_folder_holds_its_own_line(tmp_path):
    prompt = read_prompts(PROMPTS)[7]
    samples = prompt_folder(tmp_path, 7, prompt)
    assert samples == tmp_path / "00007" / "samples" and samples.is_dir()
    assert json.loads((tmp_path / "00007" / "metadata.jsonl").read_text()) == prompt
    assert sample_name(3) == "00003.png" and prompt_folder(tmp_path, 7, prompt) == samples


def test_overall_is_the_mean_over_tags_and_not_over_images(tmp_path):
    right = dict(zip(TAGS, (4, 3, 2, 1, 0, 1), strict=True))
    of = dict(zip(TAGS, (4, 4, 4, 4, 4, 2), strict=True))
    found = read_results(written(tmp_path / "results.jsonl", some(right, of)))
    assert found.by_tag == dict(zip(TAGS, (1.0, 0.75, 0.5, 0.25, 0.0, 0.5), strict=True))
    assert found.overall == 0.5 and found.images == 22  # 11 of 22 images would be the same here by chance
    assert found.row() == [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.5] and found.notes == ()
    uneven = {**of, "position": 40}
    assert read_results(written(tmp_path / "results.jsonl", some(right, uneven))).overall == 0.5


def test_missing_images_and_strange_prompts_are_noted(tmp_path):
    prompts = [{"tag": tag, "prompt": f"a {tag}"} for tag in TAGS]
    lines = [result(tag, number, True, f"a {tag}") for tag in TAGS for number in range(4)]
    assert read_results(written(tmp_path / "all.jsonl", lines), prompts).notes == ()
    lines[3] = result("single_object", 3, True, "a dragon")
    notes = read_results(written(tmp_path / "some.jsonl", lines), prompts).notes
    assert "1 of 6 prompts have fewer than 4 images, the first 'a single_object'" in notes[0]
    assert "a dragon" in notes[1]


def test_a_detector_that_sees_nothing_is_doubted(tmp_path):
    of = dict.fromkeys(TAGS, 4)
    notes = read_results(written(tmp_path / "results.jsonl", some(dict.fromkeys(TAGS, 1), of))).notes
    assert "25% of the single objects" in notes[0] and "ms_deformable_im2col_cuda" in notes[0]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("not json", "line 7 is not JSON"),
        ("[" * 100_000, "line 7 is not JSON"),
        ([1], "line 7 is not a JSON object"),
        ({"filename": "x.png", "tag": "colors"}, "line 7: not a result"),
        ({"filename": "x.png", "tag": "smell", "correct": True}, "line 7: not a result"),
        ({"filename": "x.png", "tag": ["colors"], "correct": True}, "line 7: not a result"),
        ({"filename": "x.png", "tag": "colors", "correct": 1}, "line 7: not a result"),
        (result("colors", 0, True), "occurs twice"),
    ],
)
def test_a_line_that_is_no_result_is_named(tmp_path, broken, said):
    path = written(tmp_path / "results.jsonl", [*(result(tag, 0, True) for tag in TAGS), broken])
    with pytest.raises(BadGenEval, match=said):
        read_results(path)


def test_a_tag_without_images_has_no_mean(tmp_path):
    path = written(tmp_path / "results.jsonl", [result(tag, 0, True) for tag in TAGS if tag != "counting"])
    with pytest.raises(BadGenEval, match="no image of counting"):
        read_results(path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [([], "it is empty"), ([{"tag": "colors"}], "line 1"), ([{"prompt": "x", "tag": "y"}], "line 1")],
)
def test_a_file_that_holds_no_prompts_is_named(tmp_path, lines, said):
    with pytest.raises(BadGenEval, match=said):
        read_prompts(written(tmp_path / "prompts.jsonl", lines))
    with pytest.raises(BadGenEval, match="there is no such file"):
        read_prompts(tmp_path / "gone.jsonl")


def test_the_broken_kernel_is_found_in_what_the_scorer_printed():
    check_scorer_log("loading\n100%|####| 2212/2212\n")
    with pytest.raises(BadGenEval, match="build mmcv for this GPU"):
        check_scorer_log(
            "loading\nerror in ms_deformable_im2col_cuda: no kernel image is available for execution\n100%"
        )


def test_the_command_prints_the_table_beside_the_papers_rows(tmp_path):
    right = dict(zip(TAGS, (4, 3, 2, 1, 0, 1), strict=True))
    path = written(tmp_path / "r.jsonl", some(right, dict.fromkeys(TAGS, 4)))
    result = CliRunner().invoke(app, ["t2i", "geneval", str(path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    ours, paper = (
        next(line for line in result.output.splitlines() if name in line) for name in ("r.jsonl", "+ Best-of-20 ")
    )
    assert ours.split()[-7:] == ["0.46", "1.00", "0.75", "0.50", "0.25", "0.00", "0.25"]
    assert paper.split()[-7:] == ["0.75", "0.99", "0.87", "0.73", "0.88", "0.54", "0.55"]
    (tmp_path / "log").write_text("error in ms_deformable_im2col_cuda")
    assert CliRunner().invoke(app, ["t2i", "geneval", str(path), "--log", str(tmp_path / "log")]).exit_code == 1
