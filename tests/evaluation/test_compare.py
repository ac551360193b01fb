"""Runs side by side: what is shown of them."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from omniq_verl.evaluation.compare import compare_runs
from omniq_verl.evaluation.paired import holm
from omniq_verl.evaluation.papers import load_table

NOWHERE = Console(file=io.StringIO(), width=100)


def a_set(source: str, task: str = "technical", images: int = 30, noise: float = 0.3, seed: int = 0) -> pd.DataFrame:
    """Lines of images.parquet; the labels depend on source and task alone."""
    labels = np.random.default_rng([len(source), len(task), images]).uniform(1, 5, images)
    scores = labels + noise * np.random.default_rng(seed).normal(size=images)
    ids = [f"{number}.jpg" for number in range(images)]
    keys = [f"{task}/{name}" for name in ids]
    return pd.DataFrame(
        {"key": keys, "set": source, "data_source": source, "task": task, "id": ids, "target": labels, "score": scores}
    )


def write_run(folder: Path, *sets: pd.DataFrame, **more: dict) -> Path:
    """An evaluation whose figures are round numbers, so that they are found in what is printed."""
    folder.mkdir(parents=True)
    about = {
        lines.set.iloc[0]: {
            "data_source": lines.data_source.iloc[0],
            "task": lines.task.iloc[0],
            "images": len(lines),
            "scored": int(lines.score.notna().sum()),
            "plcc": {"value": 0.8 + 0.01 * number, "low": 0.75, "high": 0.85},
            "srcc": {"value": 0.7 + 0.01 * number, "low": 0.65, "high": 0.775},
        }
        for number, lines in enumerate(sets)
    }
    metrics = {"made_by": "omniq_verl", "model": "models/one", "sampling": {"n": 4}, "seed": 7, "sets": about | more}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if sets:
        pd.concat(sets).to_parquet(folder / "images.parquet")
    return folder


def compare(*runs: Path, paper: str | None = None, out: Path | None = None, width: int = 400) -> tuple[dict, str]:
    console = Console(file=io.StringIO(), width=width)
    return compare_runs(runs, paper, out, console), console.file.getvalue()


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip(" |").startswith(start)]


def test_runs_stand_above_the_papers_rows_which_are_called_the_papers(tmp_path):
    run = write_run(tmp_path / "mine", a_set("koniq"), a_set("my_photos"))
    found, text = compare(run, paper="omniquality_r:1", out=tmp_path / "out")
    labels = [column["label"] for column in found["columns"]]
    assert labels == ["KonIQ", "SPAQ", "LiveW", "KADID", "PIPAL", "AGIQA3k", "AVG.", "my_photos"]
    assert len(found["rows"]) == 1 + 11
    mine, paper = found["rows"][0], found["rows"][-1]
    assert (mine["name"], mine["measured"]) == ("mine", True)
    assert mine["cells"][0] == {"values": [0.8, 0.7], "intervals": [[0.75, 0.85], [0.65, 0.775]]}
    assert mine["cells"][1:7] == [None] * 6
    assert mine["cells"][7]["values"] == pytest.approx([0.81, 0.71])
    assert (paper["name"], paper["measured"]) == ("paper: OmniQuality-R (ours)", False)
    assert paper["cells"][0]["values"] == [0.941, 0.927] and paper["cells"][7] is None
    for shown in (text, (tmp_path / "out/compare.md").read_text()):
        assert "not measured here" in shown and "arXiv:2510.10609" in shown
        assert "AVG. srcc of ManIQA is printed as 0.718; the row's mean is 0.6628" in shown
    assert found["pairs"] == []


def test_markdown_and_json_say_the_same(tmp_path):
    one, two = (write_run(tmp_path / name, a_set("koniq", seed=seed)) for seed, name in enumerate(("one", "two")))
    found, _ = compare(one, two, paper="omniquality_r:6", out=tmp_path / "new/out")
    assert json.loads((tmp_path / "new/out/compare.json").read_text()) == json.loads(json.dumps(found))
    text = (tmp_path / "new/out/compare.md").read_text()
    assert text.startswith("# Comparison\n\n- one: models/one; n 4; seed 7\n- two: ")
    (header,) = lines_of(text, "AVA")
    assert [cell.strip() for cell in header.split("|")] == ["", "", "AVA", "EvalMuse-50k", "KonIQ", ""]
    (mine,) = lines_of(text, "one ")
    assert [cell.strip() for cell in mine.split("|")][2:5] == ["-", "-", "0.800 / 0.700 [0.750, 0.850] [0.650, 0.775]"]
    (naive,) = lines_of(text, "paper: Naive GRPO")
    assert [cell.strip() for cell in naive.split("|")][2:5] == ["0.733 / 0.732", "0.640 / 0.641", "0.899 / 0.882"]
    assert "## one minus two" in text
    test = found["pairs"][0]["srcc"]
    (pair,) = lines_of(text, "koniq/technical")
    interval = f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}] p {test['p_holm']:.3f}"
    assert pair.split("|")[2].strip() == "30" and interval in pair
    assert "corrected by Holm's method, for each statistic over all 1 pairs of runs and sets" in text


@pytest.mark.parametrize("width", [40, 80, 160, 400])
def test_every_set_is_shown_however_wide_the_terminal_is(tmp_path, width):
    sources = ["koniq", "spaq", "kadid", "pipal", "csiq", "my_photos"]
    run = write_run(tmp_path / "mine", *(a_set(source) for source in sources))
    _, text = compare(run, width=width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= width
    assert all(text.count(source) == 1 for source in sources)
    for number in range(len(sources)):
        assert f"{0.8 + 0.01 * number:.3f} / {0.7 + 0.01 * number:.3f}" in text


def test_pairs_are_tested_over_the_images_both_scored(tmp_path):
    mine, theirs = a_set("koniq", images=40, noise=0.2), a_set("koniq", images=40, noise=1.0, seed=1)
    mine.loc[:2, "score"] = np.nan
    theirs = theirs.drop(index=[10]).sample(frac=1, random_state=0)
    theirs.loc[2, "score"] = np.nan
    found, text = compare(write_run(tmp_path / "a", mine), write_run(tmp_path / "b", theirs))
    (pair,) = found["pairs"]
    assert (pair["images"], pair["only_first"], pair["only_other"]) == (36, 1, 2)
    both = mine.merge(theirs, on="key", suffixes=("_a", "_b")).dropna()
    sides = both.score_a, both.score_b, both.target_a
    expected = [stats.spearmanr(side, both.target_a)[0] for side in sides[:2]]
    assert [pair["srcc"]["a"], pair["srcc"]["b"]] == pytest.approx(expected)
    assert pair["srcc"]["difference"] > 0 > pair["mae"]["difference"]
    errors = [np.abs(side - both.target_a) for side in sides[:2]]
    assert pair["mae"]["p"] == pytest.approx(stats.wilcoxon(*errors).pvalue)
    assert pair["mae"]["p_holm"] == pair["mae"]["p"]  # the only comparison
    assert "a, images without a readable answer: koniq/technical 3 of 40" in text
    assert "a and b, images that only a scored: koniq/technical 1" in text
    assert "a and b, images that only b scored: koniq/technical 2" in text


def test_the_first_run_is_compared_with_each_other_one_and_p_corrected_over_all(tmp_path):
    sets = [[a_set("koniq", seed=seed), a_set("spaq", images=25, seed=9 + seed)] for seed in range(3)]
    found, _ = compare(*(write_run(tmp_path / f"run{number}", *some) for number, some in enumerate(sets)))
    assert [(pair["first"], pair["other"], pair["data_source"]) for pair in found["pairs"]] == [
        ("run0", other, source) for other in ("run1", "run2") for source in ("koniq", "spaq")
    ]
    for test in ("plcc", "srcc", "mae"):
        plain = [pair[test]["p"] for pair in found["pairs"]]
        assert [pair[test]["p_holm"] for pair in found["pairs"]] == holm(plain) != plain


def test_many_comparisons_get_resamples_enough_to_find_something(tmp_path):
    # 2,000 resamples give no p below 2 / 2001, which times 12 would be above 0.01.
    sources = [f"set{number}" for number in range(12)]
    good = write_run(tmp_path / "good", *(a_set(source, noise=0.05) for source in sources))
    bad = write_run(tmp_path / "bad", *(a_set(source, noise=3, seed=1) for source in sources))
    found, text = compare(good, bad)
    assert all(pair["srcc"]["p_holm"] < 0.01 for pair in found["pairs"])
    assert "2,400 resamples" in text


def test_equal_runs_differ_nowhere(tmp_path):
    one, two = (write_run(tmp_path / name, a_set("koniq")) for name in "ab")
    (pair,) = compare(one, two)[0]["pairs"]
    for test in ("plcc", "srcc", "mae"):
        assert (pair[test]["difference"], pair[test]["p"], pair[test]["p_holm"]) == (0, 1, 1)


def test_a_set_with_too_few_common_images_is_said_to_have_no_test(tmp_path):
    one, two = (write_run(tmp_path / name, a_set("koniq", images=2)) for name in "ab")
    found, text = compare(one, two, out=tmp_path)
    assert found["pairs"][0]["srcc"]["p_holm"] is None
    assert "a and b, no test: koniq/technical (fewer than three images)" in text
    assert lines_of((tmp_path / "compare.md").read_text(), "koniq/technical")[0].count(" - ") == 2


def test_a_label_that_differs_between_runs_is_an_error_that_names_the_image(tmp_path):
    changed = a_set("koniq")
    changed.loc[4, "target"] += 0.5
    label = a_set("koniq").target[4]
    runs = write_run(tmp_path / "a", a_set("koniq")), write_run(tmp_path / "b", changed)
    said = rf"4\.jpg of koniq has the label {label:g} in a and {label + 0.5:g} in b \(1 images differ\)"
    with pytest.raises(ValueError, match=said):
        compare(*runs)


def test_the_same_file_name_in_two_sets_is_two_images(tmp_path):
    sets = a_set("koniq"), a_set("spaq", images=20)
    assert sets[0].key[0] == sets[1].key[0] and sets[0].target[0] != sets[1].target[0]
    found, _ = compare(write_run(tmp_path / "a", *sets), write_run(tmp_path / "b", *sets))
    assert [pair["images"] for pair in found["pairs"]] == [30, 20]


def test_an_image_twice_in_a_run_is_an_error(tmp_path):
    twice = pd.concat([a_set("koniq"), a_set("koniq").iloc[[3]]])
    runs = write_run(tmp_path / "a", a_set("koniq")), write_run(tmp_path / "b", twice)
    with pytest.raises(ValueError, match=r"b/images\.parquet: 3\.jpg of koniq occurs twice"):
        compare(*runs)


def test_a_source_that_was_asked_two_tasks_has_two_columns(tmp_path):
    run = write_run(tmp_path / "a", a_set("agiqa3k"), a_set("agiqa3k", "alignment").assign(set="agiqa3k/alignment"))
    labels = [column["label"] for column in compare(run)[0]["columns"]]
    assert labels == ["agiqa3k/technical", "agiqa3k/alignment", "mean of 2"]
    labels = [column["label"] for column in compare(run, paper="omniquality_r:1")[0]["columns"]]
    assert labels[5:] == ["AGIQA3k", "AVG.", "agiqa3k/alignment"]


def test_a_set_called_like_a_column_of_the_paper_stays_apart(tmp_path):
    found, _ = compare(write_run(tmp_path / "a", a_set("AVA")), paper="omniquality_r:3")
    assert [column["label"] for column in found["columns"]] == ["AVA", "TAD66k", "AVG.", "AVA/technical"]
    assert [cell is None for cell in found["rows"][0]["cells"]] == [True, True, True, False]


def test_the_papers_average_is_of_a_run_only_where_it_has_all_of_its_sets(tmp_path):
    two = a_set("ava", "aesthetic"), a_set("tad66k", "aesthetic")
    runs = write_run(tmp_path / "all", *two), write_run(tmp_path / "part", two[0])
    rows = compare(*runs, paper="omniquality_r:3")[0]["rows"]
    assert rows[0]["cells"][2]["values"] == pytest.approx([0.805, 0.705])
    assert rows[1]["cells"][2] is None


def test_without_a_papers_average_the_mean_is_over_the_sets_all_runs_have(tmp_path):
    sets = [a_set(name) for name in ("koniq", "spaq", "csiq")]
    found, _ = compare(write_run(tmp_path / "a", *sets), write_run(tmp_path / "b", *sets[:2]))
    assert found["columns"][-1]["mean_of"] == ["koniq", "spaq"]
    assert [row["cells"][-1]["values"] for row in found["rows"]] == [pytest.approx([0.805, 0.705])] * 2
    assert found["rows"][1]["cells"][2] is None


def test_a_degradation_set_shows_its_accuracies_and_is_not_paired(tmp_path):
    about = {"data_source": "dq495k", "task": "degradation", "images": 9, "scored": 9}
    about["class_accuracy"] = {"value": 0.925, "low": 0.9, "high": 0.95}
    about["level_accuracy"] = {"value": 0.475, "low": None, "high": None}
    runs = [write_run(tmp_path / name, a_set("koniq"), dq495k=about) for name in "ab"]
    found, _ = compare(*runs)
    assert found["columns"][-1]["label"] == "dq495k"
    assert found["rows"][0]["cells"][-1] == {"values": [0.925, 0.475], "intervals": [[0.9, 0.95], None]}
    assert [pair["data_source"] for pair in found["pairs"]] == ["koniq"]


def test_the_papers_classes_stand_beside_those_of_a_run(tmp_path):
    def of_class(right, level):
        return {
            name: {"value": value, "low": None, "high": None}
            for name, value in (("class_accuracy", right), ("level_accuracy", level))
        }

    classes = {"noise": of_class(1.0, 0.6), "blur": of_class(0.9, 0.4), "compression": of_class(0.8, 0.2)}
    classes |= {"darken": of_class(0.7, 0.0), "null": of_class(0.6, None)}
    about = {"data_source": "dq495k", "task": "q_insight_degradation", "images": 9, "scored": 9, "classes": classes}
    about |= of_class(0.5, 0.5)
    part = about | {"classes": {"noise": classes["noise"]}}
    rows = [
        compare(write_run(tmp_path / name, dq495k=one), paper="q_insight:3")
        for name, one in (("all", about), ("part", part))
    ]
    (found, text), (of_part, _) = rows
    assert [one["label"] for one in found["columns"]] == ["Noise", "Blur", "JPEG", "Darken", "Null", "Average"]
    cells = [cell and cell["values"] for cell in found["rows"][0]["cells"]]
    # The paper's average of the levels is over the four classes that have one.
    assert cells == [[1.0, 0.6], [0.9, 0.4], [0.8, 0.2], [0.7, 0.0], [0.6, None], pytest.approx([0.8, 0.3])]
    assert [cell and cell["values"] for cell in of_part["rows"][0]["cells"]] == [[1.0, 0.6], *[None] * 5]
    assert "class accuracy / level accuracy" in text and "0.9339 / -" in text


def test_a_correlation_that_is_not_defined_is_a_dash(tmp_path):
    nothing = {"value": None, "low": None, "high": None}
    about = {"data_source": "koniq", "task": "technical", "images": 2, "scored": 2, "plcc": nothing, "srcc": nothing}
    found, text = compare(write_run(tmp_path / "a", koniq=about))
    assert found["rows"][0]["cells"][0]["values"] == [None, None]
    assert "- / -" in text


def test_equal_folder_names_are_told_apart_by_their_parents(tmp_path):
    folders = [tmp_path / "x/stage1/eval", tmp_path / "x/stage2/eval", tmp_path / "base"]
    found, _ = compare(*(write_run(folder, a_set("koniq")) for folder in folders))
    assert [run["name"] for run in found["runs"]] == ["stage1/eval", "stage2/eval", "base"]


def test_a_name_that_looks_like_markup_is_shown_as_it_is(tmp_path):
    found, text = compare(write_run(tmp_path / "[red]a|b", a_set("koniq")), out=tmp_path)
    assert "[red]a|b" in text and found["rows"][0]["name"] == "[red]a|b"
    assert r"| [red]a\|b |" in (tmp_path / "compare.md").read_text()


def test_one_run_needs_no_images_and_two_do(tmp_path):
    one, two = (write_run(tmp_path / name, a_set("koniq")) for name in "ab")
    (two / "images.parquet").unlink()
    assert len(compare(two)[0]["rows"]) == 1
    with pytest.raises(
        FileNotFoundError, match=r"b/images\.parquet is missing\. Fix: give the folder of a finished `omniq eval`"
    ):
        compare(one, two)


def test_a_folder_that_is_no_evaluation_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nothing/metrics\.json is missing\. Fix: give the folder of a finished `omniq eval`"
    ):
        compare(tmp_path / "nothing")
    (tmp_path / "metrics.json").write_text('{"greedy": {}}')
    with pytest.raises(ValueError, match=r"metrics\.json has no `sets`.*`omniq eval`"):
        compare(tmp_path)


def test_runs_have_to_be_named_each_once(tmp_path):
    run = write_run(tmp_path / "a", a_set("koniq"))
    for runs in ([], [run, run / "../a"]):
        with pytest.raises(ValueError, match="each once"):
            compare_runs(runs, None, None, NOWHERE)


def test_an_unknown_paper_is_rejected_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="omniquality_r:1"):
        compare(tmp_path / "nothing", paper="omniquality_r:12")


def test_long_names_are_broken_and_not_cut(tmp_path):
    long = "photographs_of_the_last_holiday_in_the_mountains"
    runs = [write_run(tmp_path / name, a_set(long)) for name in ("run_" + "a" * 30, "run_" + "b" * 30)]
    _, text = compare(*runs, width=80)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text and long[-10:] in text.replace("\n", "")


@pytest.mark.parametrize("paper", ["omniquality_r:5", "omniquality_r:7", "rali:A.2", "rali:A.5"])
def test_tables_of_every_kind_can_stand_beside_a_run(tmp_path, paper):
    run = write_run(tmp_path / "a", a_set("koniq"))
    _, text = compare(run, paper=paper, out=tmp_path)
    shown = (tmp_path / "compare.md").read_text()
    for row in load_table(paper).rows:
        assert f"paper: {row.method} " in shown
    assert "paper: " in text


def test_another_wording_of_a_task_is_compared_as_the_task(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    figure = {"value": 0.9, "low": 0.8, "high": 0.95}
    one = {"data_source": "koniq", "task": "q_insight_score", "images": 3, "scored": 3, "status": {"ok": 3}}
    one |= {"plcc": figure, "srcc": figure, "mae": 0.1}
    metrics = {"model": "m", "sampling": {}, "seed": 0, "sets": {"koniq": one}, "mean": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    found = compare_runs([folder], "q_insight:2", None, NOWHERE)
    koniq = [column["data_source"] for column in found["columns"]].index("koniq")
    assert found["columns"][koniq]["task"] == "technical"
    assert found["rows"][0]["cells"][koniq]["values"] == [0.9, 0.9]
    metrics["sets"]["koniq/technical"] = {**one, "task": "technical"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match="two wordings"):
        compare_runs([folder], None, None, NOWHERE)
