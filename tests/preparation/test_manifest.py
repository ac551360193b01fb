"""Any table of images and scores -> rows: columns, scale, direction, task, splits."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import skimage.data
from data_builders import undrawn
from PIL import Image

from data_prep.manifest import run
from omniq_verl.tasks import TASKS

NEEDED = ("--data-source", "mine", "--low", "0", "--high", "100")
TABLE = "image,score\na.png,0\nb.png,100\nc.png,25\n"


def pictures(root: Path, *names: str) -> None:
    photo = skimage.data.chelsea()
    for ref, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[ref : ref + 48, :64]).save(root / name)


def prepared(root: Path, table: str, *options: str, name: str = "manifest.csv") -> tuple[dict, list[dict], list[dict]]:
    """Card, rows and rejects of a run on a table."""
    (root / name).write_text(table)
    with undrawn():
        run(["--root", str(root), "--out", str(root / "out"), "--workers", "1", *options])
    card = json.loads((root / "out" / "dataset_card.json").read_text())
    rows = [row for file in card["files"] for row in pq.read_table(root / "out" / file).to_pylist()]
    return card, rows, [json.loads(line) for line in (root / "out" / "rejects.jsonl").read_text().splitlines()]


def scores(rows: list[dict]) -> dict[str, float]:
    return {row["extra_info"]["id"]: row["extra_info"]["score"] for row in rows}


def rejected(root: Path, *options: str) -> str:
    with pytest.raises(SystemExit) as finish_reason:
        run(["--root", str(root), "--out", str(root / "out"), *options])
    assert not (root / "out").exists()
    return str(finish_reason.value)


# Scores


@pytest.mark.parametrize(
    ("options", "expected", "why"),
    [
        (
            (),
            {"mine/a.png": 1.0, "mine/b.png": 5.0, "mine/c.png": 2.0},
            "the ends of the scale are the ends of answers",
        ),
        (("--lower-is-better",), {"mine/a.png": 5.0, "mine/b.png": 1.0, "mine/c.png": 4.0}, "the other way round"),
        (("--scale", "0-5"), {"mine/a.png": 0.0, "mine/b.png": 5.0, "mine/c.png": 1.25}, "answers on another scale"),
    ],
)
def test_scores_are_mapped_from_the_scale_that_was_given(tmp_path, options, expected, why):
    pictures(tmp_path, "a.png", "b.png", "c.png")
    card, rows, _ = prepared(tmp_path, TABLE, *NEEDED, *options)
    assert scores(rows) == expected, why
    assert (card["data_source"], card["task"], card["rejects"]) == ("mine", "technical", {"all": 0})
    assert card["label_map"]["raw"] == [0.0, 100.0]
    assert card["label_map"]["higher_is_better"] == (options != ("--lower-is-better",))


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        ("", "label: score is ''"),
        ("good", "label: score is 'good'"),
        ("nan", "label: score is 'nan'"),
        ("1_0", "label: score is '1_0'"),
        ("100.5", "label: the score 100.5 is outside [0, 100]"),
        ("-1", "label: the score -1 is outside [0, 100]"),
        ("1.5e2", "label: the score 150 is outside [0, 100]"),
        ("2e2", "label: the score 200 is outside [0, 100]"),
    ],
)
def test_a_bad_score_is_a_reject_by_name(tmp_path, score, reason):
    pictures(tmp_path, "a.png", "b.png")
    _, rows, rejects = prepared(tmp_path, f"image,score\na.png,50\nb.png,{score}\n", *NEEDED)
    assert list(scores(rows)) == ["mine/a.png"]
    assert rejects == [{"row_id": "mine/b.png", "image": "b.png", "reason": reason}]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.png", "image: there is no such file"),
        ("../b.png", "path: '../b.png' is not the name of a file below the root"),
        ("/b.png", "path: '/b.png' is not the name of a file below the root"),
        ("", "path: '' is not the name of a file below the root"),
        ("a.png", "duplicate: the label file names this image again"),
        ("photos/b.png", "image: there is no such file"),
    ],
)
def test_a_bad_name_is_a_reject_by_name(tmp_path, name, reason):
    pictures(tmp_path, "a.png", "b.png")
    _, rows, rejects = prepared(tmp_path, f"image,score\na.png,50\n{name},50\n", *NEEDED)
    assert list(scores(rows)) == ["mine/a.png"]
    assert [reject["reason"] for reject in rejects] == [reason]


def test_an_absolute_name_below_the_root_is_rejected_with_the_right_name(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    _, _, rejects = prepared(tmp_path, f"image,score\na.png,50\n{tmp_path.resolve()}/b.png,50\n", *NEEDED)
    assert rejects[0]["reason"].endswith("is an absolute path, and names begin below the root. Fix: write 'b.png'")


# Columns


def test_columns_may_have_other_names(tmp_path):
    pictures(tmp_path, "photos/a.png")
    options = ("--image-column", "file", "--score-column", "MOS", "--split-column", "set")
    _, rows, _ = prepared(tmp_path, "id,MOS,set,file\n7,75,Validation,photos/a.png\n", *NEEDED, *options)
    assert scores(rows) == {"mine/photos/a.png": 4.0}
    assert rows[0]["extra_info"]["split"] == "val"


PROMPT = 'a "sign"\nthat says {stop}, in red'
JSON_LINES = "".join(
    json.dumps({"image": image, "score": 50, "prompt": prompt}) + "\n"
    for image, prompt in (("a.png", PROMPT), ("b.png", None))
)
CSV = 'image,score,prompt\na.png,50,"a ""sign""\nthat says {stop}, in red"\nb.png,50,\n'


@pytest.mark.parametrize(("name", "table"), [("manifest.jsonl", JSON_LINES), ("manifest.csv", CSV)])
def test_the_task_alignment_asks_about_the_prompts_as_they_are(tmp_path, name, table):
    pictures(tmp_path, "a.png", "b.png")
    options = ("--task", "alignment", "--text-column", "prompt")
    _, rows, rejects = prepared(tmp_path, table, *NEEDED, *options, name=name)
    assert rows[0]["prompt"] == TASKS["alignment"].messages("mine/a.png", PROMPT)
    assert [reject["reason"] for reject in rejects] == ["label: the task alignment needs the prompt of the image"]


@pytest.mark.parametrize("task", ["technical", "aesthetic"])
def test_a_task_can_be_chosen(tmp_path, task):
    pictures(tmp_path, "a.png")
    _, rows, _ = prepared(tmp_path, "image,score\na.png,50\n", *NEEDED, "--task", task)
    assert rows[0]["prompt"] == TASKS[task].messages("mine/a.png")


def test_the_table_may_lie_elsewhere(tmp_path):
    root = tmp_path / "photos"
    pictures(root, "a.png")
    (tmp_path / "scores.csv").write_text("image,score\na.png,50\n")
    given = ["--root", str(root), "--out", str(tmp_path / "out"), "--labels", str(tmp_path / "scores.csv"), *NEEDED]
    with undrawn():
        run([*given, "--workers", "1"])
    assert pq.read_metadata(tmp_path / "out" / "train.parquet").num_rows == 1


# Splits


def table_of(count: int, versions: int = 1) -> str:
    lines = [f"{ref:04d}_{version}.png,50,{ref}" for ref in range(count) for version in range(versions)]
    return "\n".join(["image,score,original", *lines]) + "\n"


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *(("train", "train"), ("training", "train"), ("val", "val"), ("valid", "val"), ("validation", "val")),
        *(("test", "test"), (" Test", "test")),
    ],
)
def test_a_split_column_says_where_an_image_belongs(tmp_path, word, split):
    pictures(tmp_path, "a.png")
    card, rows, _ = prepared(tmp_path, f"image,score,set\na.png,50,{word}\n", *NEEDED, "--split-column", "set")
    assert list(card["files"]) == [f"{split}.parquet"]
    assert rows[0]["extra_info"]["split"] == split


def test_an_unknown_split_is_a_reject_by_name(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    table = "image,score,set\na.png,50,train\nb.png,50,dev\n"
    _, _, rejects = prepared(tmp_path, table, *NEEDED, "--split-column", "set")
    assert [reject["reason"] for reject in rejects] == ["label: set is 'dev'"]


def test_splits_are_drawn_in_the_shares_asked_for(tmp_path):
    pictures(tmp_path, *(f"{ref:04d}_0.png" for ref in range(200)))
    options = ("--val-fraction", "0.2", "--test-fraction", "0.3")
    card, rows, _ = prepared(tmp_path, table_of(200), *NEEDED, *options)
    counts = Counter(row["extra_info"]["split"] for row in rows)
    # 200 draws of 0.2, 0.3 and 0.5: standard deviations of 5.7, 6.5 and 7.1; five of them.
    assert counts["val"] == pytest.approx(40, abs=28)
    assert counts["test"] == pytest.approx(60, abs=32)
    assert counts["train"] == pytest.approx(100, abs=35)
    assert card["options"]["val_fraction"] == 0.2


def test_versions_of_a_picture_stay_in_one_split(tmp_path):
    pictures(tmp_path, *(f"{ref:04d}_{version}.png" for ref in range(40) for version in range(3)))
    options = ("--test-fraction", "0.5", "--group-column", "original")
    _, rows, _ = prepared(tmp_path, table_of(40, 3), *NEEDED, *options)
    found: dict[str, set] = {}
    for row in rows:
        found.setdefault(row["extra_info"]["id"].partition("_")[0], set()).add(row["extra_info"]["split"])
    assert Counter(map(tuple, found.values())).keys() == {("train",), ("test",)}
    assert len(rows) == 120


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("manifest.csv", "image,score,of\na.png,50,x\nb.png,50,\n"),
        ("manifest.jsonl", '{"image": "a.png", "score": 50, "of": 0}\n{"image": "b.png", "score": 50, "of": null}\n'),
    ],
)
def test_rows_without_a_group_are_not_taken_for_one(tmp_path, name, table):
    pictures(tmp_path, "a.png", "b.png")
    options = ("--test-fraction", "0.5", "--group-column", "of")
    _, rows, rejects = prepared(tmp_path, table, *NEEDED, *options, name=name)
    assert list(scores(rows)) == ["mine/a.png"]
    assert [reject["reason"] for reject in rejects] == [f"label: of is {'None' if name.endswith('l') else chr(39) * 2}"]


def test_the_draw_depends_on_the_seed_alone(tmp_path):
    drawn = []
    for run_number, seed in enumerate(("0", "0", "1")):
        root = tmp_path / str(run_number)
        pictures(root, *(f"{ref:04d}_0.png" for ref in range(40)))
        _, rows, _ = prepared(root, table_of(40), *NEEDED, "--test-fraction", "0.5", "--seed", seed)
        drawn.append({row["extra_info"]["id"] for row in rows if row["extra_info"]["split"] == "test"})
    assert drawn[0] == drawn[1] != drawn[2]


# What cannot be done is said before anything is written


@pytest.mark.parametrize(
    ("options", "message", "why"),
    [
        (("--low", "0", "--high", "0"), "a label map needs low < high, got [0.0, 0.0]", "no extent"),
        (("--low", "nan", "--high", "5"), "a label map needs low < high, got [nan, 5.0]", "no number"),
        (("--low", "0", "--high", "inf"), "a label map needs finite bounds, got [0.0, inf]", "all would be the worst"),
        (("--low=-1e308", "--high", "1e308"), "a label map needs finite bounds", "their distance overflows"),
        (("--task", "alignment"), "Fix: give their column with --text-column", "a task about prompts without prompts"),
        (("--score-column", "mos"), "manifest.csv: it has no column mos (it has image, score)", "no such column"),
        (("--split-column", "set"), "manifest.csv: it has no column set (it has image, score)", "no such column"),
        (("--split-column", "set", "--test-fraction", "0.2"), "--test-fraction belongs to the draw", "two splits"),
        (("--split-column", "set", "--group-column", "of"), "--group-column belongs to the draw", "the same"),
        (("--labels", "scores.tsv"), "its name ends neither in .csv nor in .jsonl", "another format"),
    ],
)
def test_an_impossible_request_is_rejected(tmp_path, options, message, why):
    (tmp_path / "manifest.csv").write_text(TABLE)
    assert message in rejected(tmp_path, *NEEDED, *options), why


@pytest.mark.parametrize(
    ("options", "message", "why"),
    [
        (("--low", "0", "--high", "1"), "required: --data-source", "rewards and reports go by it"),
        ((*NEEDED, "--labels", ""), "the path is empty; if it is a variable of the shell", "not the current folder"),
        (("--data-source", "mine", "--high", "1"), "required: --low", "the scale cannot be guessed from the scores"),
        (("--data-source", "mine", "--low", "1"), "required: --high", "the scale cannot be guessed from the scores"),
        (("--data-source", "../mine", "--low", "0", "--high", "1"), "'../mine' has characters other than", "a path"),
        ((*NEEDED, "--test-fraction", "1.5"), "'1.5' is not a share from 0 to 1", "more than all"),
        ((*NEEDED, "--task", "degradation"), "invalid choice: 'degradation'", "it has no scores"),
    ],
)
def test_a_command_line_that_lacks_something_is_rejected(tmp_path, capsys, options, message, why):
    (tmp_path / "manifest.csv").write_text(TABLE)
    assert rejected(tmp_path, *options) == "2", why
    assert message in capsys.readouterr().err


def test_fractions_of_more_than_all_are_rejected(tmp_path):
    (tmp_path / "manifest.csv").write_text(TABLE)
    said = rejected(tmp_path, *NEEDED, "--val-fraction", "0.6", "--test-fraction", "0.6")
    assert said == "--val-fraction and --test-fraction make more than 1"


# Options that would do nothing, and the user's own table


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        (("--seed", "3"), "--seed"),
        (("--group-column", "image"), "--group-column"),
        (("--engine", "ray", "--workers", "2"), "--workers"),
    ],
)
def test_an_option_that_would_do_nothing_is_rejected_by_name(tmp_path, capsys, options, idle):
    (tmp_path / "manifest.csv").write_text(TABLE)
    assert rejected(tmp_path, *NEEDED, *options) == "2"
    assert f"{idle} has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("table", ["", "image,score\na.png\n", "image,score\n\0,1\n"])
def test_nobody_is_sent_to_the_owners_of_a_table_of_his_own(tmp_path, table):
    (tmp_path / "manifest.csv").write_text(table)
    said = rejected(tmp_path, *NEEDED)
    assert "its owners" not in said and "manifest.csv" in said and "columns image, score" in said


@pytest.mark.parametrize(
    ("scores", "warned"),
    [
        ([0.1, 0.9, 0.5], True),
        ([0, 1], True),
        ([1, 2, 5, 3, 4, 1, 2, 5, 3, 4], True),
        ([1, 9, 10, 3, 4, 1, 2, 5, 3, 4], True),
        ([91, 99, 90, 93, 94, 91, 92, 95, 93, 94], True),
        ([10, 90, 50], False),
        ([40, 41], False),
        ([20, 70, 60, 30, 40, 55, 45, 65, 35, 50], False),
    ],
)
def test_scores_of_another_scale_are_warned_of(tmp_path, capsys, scores, warned):
    names = [f"{number}.png" for number in range(len(scores))]
    pictures(tmp_path, *names)
    table = "image,score\n" + "".join(f"{name},{score}\n" for name, score in zip(names, scores, strict=True))
    prepared(tmp_path, table, *NEEDED)
    assert ("warning: all scores lie" in capsys.readouterr().err) == warned


def test_what_is_written_below_the_root_is_not_read_again(tmp_path):
    pictures(tmp_path, "a.png", "scores.png")
    table = "image,score\na.png,10\nscores.png,90\n"
    first = prepared(tmp_path, table, *NEEDED)
    (tmp_path / "out" / "scores.png").write_bytes(b"a plot")
    assert prepared(tmp_path, table, *NEEDED) == first and first[0]["rejects"]["all"] == 0
