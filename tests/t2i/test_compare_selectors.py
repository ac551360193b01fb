"""Ways to pick side by side: figures against a plain reference, folders, tables."""

import io
import json
import shutil
import statistics
from pathlib import Path

import pandas as pd
import pytest
from evaluation_builders import RATER
from PIL import Image
from rich.console import Console
from t2i_builders import PAINTER, value_of
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.t2i.best_of_n import BestOfN, best_of_n
from omniq_verl.t2i.candidates import candidate_path
from omniq_verl.t2i.compare_selectors import Selector, add_scores, compare_selectors, read_run, read_selector
from omniq_verl.t2i.generator import GeneratorSpec

TEXTS, N = ["a red fox", "two cats", "x", "a boat"], 5


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    prompts = [{"prompt": text, "tag": "colors"} for text in TEXTS]
    weights = {"aesthetic": 1.0, "technical": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = BestOfN(prompts, folder / "out", GeneratorSpec(PAINTER), EngineSpec("", RATER), weights, n=N)
        best_of_n(run, Console(file=io.StringIO()))
    return run.out


@pytest.fixture
def folder(finished, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, "out"))


def write_scores(path: Path, folder: Path, score) -> Path:
    """As ``omniq score`` writes a table; the function has a score or None for text and image."""
    rows = [
        {"image": str(candidate_path(Path("/elsewhere") / folder, text, image)), "score": score(text, image)}
        for text in range(len(TEXTS))
        for image in range(N)
    ]
    {".csv": pd.DataFrame.to_csv, ".parquet": pd.DataFrame.to_parquet}[path.suffix](pd.DataFrame(rows), path)
    return path


def bright(text: int, image: int) -> float:
    return round(1 + 4 * value_of(TEXTS[text], image) / 255, 2)


def odd(text: int, image: int) -> float:
    """Another opinion, with ties."""
    return float((3 * text + 2 * image) % 4)


def test_figures_are_those_of_a_plain_reckoning(folder):
    run = add_scores(read_run(folder), "odd", write_scores(Path("odd.csv"), folder, odd))
    rows, texts = compare_selectors(run, [Selector("bright", {"technical": 1}), Selector("odd", {"odd": 1})])
    assert texts == 4 and [row.name for row in rows] == ["bright", "odd", "at random"]
    picks = {
        "bright": [max(range(N), key=lambda image: bright(text, image)) for text in range(4)],
        "odd": [max(range(N), key=lambda image: odd(text, image)) for text in range(4)],
    }
    for row, criterion in ((row, one) for row in rows[:2] for one in ("technical", "aesthetic", "odd")):
        scored = odd if criterion == "odd" else bright
        values = [scored(text, image) for text, image in enumerate(picks[row.name])]
        assert row.means[criterion] == pytest.approx(statistics.fmean(values))
        assert row.deviations[criterion] == pytest.approx(statistics.pstdev(values)) and row.scored[criterion] == 4
    assert rows[0].same == 1.0
    assert rows[1].same == sum(a == b for a, b in zip(picks["bright"], picks["odd"], strict=True)) / 4
    means = [statistics.fmean(odd(text, image) for image in range(N)) for text in range(4)]
    assert rows[2].means["odd"] == pytest.approx(statistics.fmean(means)) and rows[2].same == pytest.approx(1 / N)
    assert json.loads((folder / "selected" / "table.json").read_text())["rows"][1]["means"] == rows[1].means


def test_picks_lie_in_genevals_form_and_a_pick_that_is_gone_does_not_stay(folder):
    run = read_run(folder)
    compare_selectors(run, [read_selector("mine:technical=1")])
    for text in range(4):
        sample = folder / "selected" / "mine" / f"{text:05d}" / "samples" / "00000.png"
        with Image.open(sample) as image:
            assert image.getpixel((0, 0))[0] == max(value_of(TEXTS[text], n) for n in range(N))
        assert json.loads((sample.parents[1] / "metadata.jsonl").read_text())["tag"] == "colors"
    table = write_scores(Path("few.csv"), folder, lambda text, image: 1.0 if text > 0 else None)
    rows, texts = compare_selectors(
        add_scores(run, "few", table), [read_selector("mine:few=1"), read_selector("technical=1")]
    )
    assert texts == 3 and not sample.parents[2].joinpath("00000", "samples", "00000.png").exists()
    best = [max(range(N), key=lambda image, text=text: bright(text, image)) for text in (1, 2, 3)]
    assert rows[1].same == sum(image == 0 for image in best) / 3
    assert rows[1].means["technical"] == pytest.approx(
        statistics.fmean(bright(text, image) for text, image in zip((1, 2, 3), best, strict=True))
    )


def test_picks_without_a_score_are_left_out_of_its_mean_and_counted(folder):
    table = write_scores(Path("few.parquet"), folder, lambda text, image: 2.0 * text if text > 1 else None)
    rows, texts = compare_selectors(add_scores(read_run(folder), "few", table), [read_selector("technical=1")])
    assert texts == 4 and rows[0].scored == {"aesthetic": 4, "technical": 4, "few": 2}
    assert (rows[0].means["few"], rows[0].deviations["few"]) == (5.0, 1.0)
    nothing = write_scores(Path("none.csv"), folder, lambda text, image: 0.0 if (text, image) == (0, 99) else None)
    rows, _ = compare_selectors(add_scores(read_run(folder), "none", nothing), [read_selector("technical=1")])
    assert rows[0].means["none"] is None
    json.loads((folder / "selected" / "table.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("word", "name", "weights"),
    [
        ("aesthetic=1", "aesthetic", {"aesthetic": 1.0}),
        ("aesthetic=1,technical=0.5", "aesthetic+0.5technical", {"aesthetic": 1.0, "technical": 0.5}),
        ("Q-Align:aesthetic=2", "Q-Align", {"aesthetic": 2.0}),
    ],
)
def test_a_selector_has_weights_and_a_name(word, name, weights):
    assert read_selector(word) == Selector(name, weights)


@pytest.mark.parametrize(
    "word", ["../x:aesthetic=1", ".:aesthetic=1", "a b:aesthetic=1", "aesthetic", "aesthetic=1,", ""]
)
def test_what_is_no_selector_is_named(word):
    with pytest.raises(ValueError, match=r"not a valid folder name|not TASK=WEIGHT"):
        read_selector(word)


def test_what_cannot_be_compared_is_named(folder, tmp_path):
    run = read_run(folder)
    for selectors, said in (
        ([], "must not be empty"),
        ([read_selector("technical=1")] * 2, "distinct names"),
        ([read_selector("beauty=1")], "weights of beauty"),
    ):
        with pytest.raises(ValueError, match=said):
            compare_selectors(run, selectors)
    Path("other.csv").write_text("image,score\na/b/c.png,1\n")
    Path("broken.csv").write_text("name\nx\n")
    Path("words.csv").write_text("image,score\na/b/c.png,good\n")
    name = str(candidate_path(folder, 0, 0))
    Path("shifted.csv").write_text(f"image,score\nx,{name},4\n")
    best = write_scores(Path("best.csv"), folder, odd)
    best.write_text(best.read_text().replace("/candidates/", "/best/"))
    Path("two_runs.csv").write_text(f"image,score\n{name},1\nother/{name},4\n")
    for name, table, said in (
        ("technical", "other.csv", "not a valid new name"),
        ("a/b", "other.csv", "not a valid new name"),
        ("x", "other.csv", "contains no image"),
        ("x", "best.csv", r"best.csv contains no image .*Fix: omniq score .*candidates"),
        ("x", "broken.csv", "not a table of"),
        ("x", "words.csv", "not a table of"),
        ("x", "gone.csv", "not a table of"),
        ("x", "other.txt", "not a table of"),
        ("x", "shifted.csv", "line 2 has 3 cells, the header 2"),
        ("x", "two_runs.csv", r"have the same numbers. Fix: score the images of one run alone"),
    ):
        with pytest.raises(ValueError, match=said):
            add_scores(run, name, Path(table))
    with pytest.raises(ValueError, match="is not a run of"):
        read_run(tmp_path / "gone")


def test_a_run_that_is_not_finished_is_not_compared(folder):
    (store,) = (folder / "scores").glob("*.jsonl")
    whole = store.read_bytes().splitlines(True)
    for left in (whole[:-2], whole[:N], [line for line in whole if b"00001/00002" not in line]):
        store.write_bytes(b"".join(left))
        with pytest.raises(ValueError, match="without scores"):
            read_run(folder)


def test_the_command_prints_the_papers_rows_in_the_same_columns(folder):
    write_scores(Path("deqa.csv"), folder, lambda text, image: odd(text, image) if text else None)
    words = ["t2i", "selectors", "out", "--selector", "DEQA:DEQA=1", "--selector", "technical=1", "--scores"]
    result = CliRunner().invoke(app, [*words, "DEQA=deqa.csv"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "Picks in 3 of 4 texts" in result.output
    printed = result.output.splitlines()
    lines = {name: next(line for line in printed if name in line) for name in ("same pick", "Q-Align select")}
    assert lines["same pick"].split() == ["same", "pick", "aesthetic", "technical", "DEQA", "Q-Insight", "AesMMIT"]
    assert lines["Q-Align select"].split("select")[1].split() == [
        "-", "-", "-", "3.897", "±", "0.461", "4.165", "±", "0.198", "0.480", "±", "0.114"
    ]  # fmt: skip
    plain = CliRunner().invoke(app, ["t2i", "selectors", "out"], env={"COLUMNS": "200"})
    for name in ("aesthetic", "technical", "aesthetic+technical", "at random"):
        assert any(line.startswith(f"  {name}  ") for line in plain.output.splitlines())
    assert CliRunner().invoke(app, ["t2i", "selectors", "gone"]).exit_code == 1
