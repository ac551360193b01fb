"""Best of n with stand-ins for generator and scorer: picks, files, restarts."""

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_builders import RATER
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rali_builders import save_tiny_rali, tiny_encoder_folder
from rich.console import Console
from t2i_builders import PAINTER, STOPPING, killed_five_times, stored_keys, value_of
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import OtherConfig
from omniq_verl.rali.scorer import RaliScorer
from omniq_verl.t2i.best_of_n import BestOfN, best_of_n
from omniq_verl.t2i.generator import GeneratorSpec
from omniq_verl.t2i.prompts import read_texts
from omniq_verl.t2i.ranking import read_weights
from omniq_verl.tasks import Scale

TEXTS = ["a red fox", "two <b>cats</b> & $1", "x"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> BestOfN:
    monkeypatch.chdir(tmp_path)
    prompts = [{"prompt": text, "tag": "colors"} for text in TEXTS]
    return BestOfN(prompts, tmp_path / "out", GeneratorSpec(PAINTER), EngineSpec("", RATER), n=5, batch=2)


def go(run: BestOfN) -> list[dict]:
    return best_of_n(run, Console(file=io.StringIO()))


def drawn() -> list[str]:
    return Path("drawn.log").read_text().splitlines()


def test_the_brightest_image_of_each_text_is_picked(run):
    picks = go(run)
    for number, (text, pick) in enumerate(zip(TEXTS, picks, strict=True)):
        values = [value_of(text, seed) for seed in range(5)]
        assert pick["best"] == values.index(max(values)) and pick["seed"] == pick["best"]
        assert pick["scores"]["alignment"] == pytest.approx([round(1 + 4 * value / 255, 2) for value in values])
        with Image.open(run.out / "best" / f"{number:05d}" / "samples" / "00000.png") as image:
            assert image.getpixel((0, 0)) == (max(values),) * 3
            assert (image.text["prompt"], image.text["seed"]) == (text, str(pick["best"]))
        assert json.loads((run.out / "best" / f"{number:05d}" / "metadata.jsonl").read_text())["tag"] == "colors"
        with Image.open(run.out / "sheets" / f"{number:05d}.png") as sheet:
            assert min(sheet.size) > 200
    assert [json.loads(line) for line in (run.out / "picks.jsonl").read_text().splitlines()] == json.loads(
        json.dumps(picks)
    )


def test_started_again_nothing_is_drawn_or_scored_twice(run):
    first = go(run)
    assert len(drawn()) == 15
    assert go(run) == first
    assert len(drawn()) == 15
    assert [path.name for path in (run.out / "scores").glob("*.jsonl")] == ["0001.jsonl"]


def test_more_images_of_the_same_run_add_to_those_that_are_there(run):
    go(run)
    before = {path: path.read_bytes() for path in (run.out / "candidates").rglob("*.png")}
    picks = go(replace(run, n=7))
    assert len(drawn()) == 21 and len(picks[0]["ranking"]) == 7
    assert all(path.read_bytes() == data for path, data in before.items())


def test_the_same_seed_gives_the_same_images_in_another_batch(run):
    go(run)
    other = replace(run, out=run.out.with_name("other"), batch=5)
    assert go(other) == go(run)
    names = sorted(path.relative_to(run.out) for path in (run.out / "candidates").rglob("*.png"))
    assert len(names) == 15 and all((run.out / name).read_bytes() == (other.out / name).read_bytes() for name in names)
    assert go(replace(run, out=run.out.with_name("third"), seed=5))[0]["seed"] >= 5


def test_other_ways_to_choose_need_no_new_scores_but_other_tasks_do(run):
    both = replace(run, weights={"alignment": 1.0, "aesthetic": 0.5})
    go(both)
    by_order = go(replace(both, weights={}, order=("aesthetic", "alignment")))
    assert len(drawn()) == 15 and set(by_order[0]["scores"]) == {"aesthetic", "alignment"}
    with pytest.raises(OtherConfig, match="tasks"):
        go(run)


@pytest.fixture
def stopped(run) -> BestOfN:
    """A run that has drawn three images and scored none."""
    run = replace(run, generator=GeneratorSpec(STOPPING, guidance=4.5), batch=3)
    Path("stop").touch()
    with pytest.raises(RuntimeError, match="out of memory"):
        go(run)
    Path("stop").unlink()
    assert len(drawn()) == 3 and not list((run.out / "scores").glob("*.jsonl"))
    return run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 100}, "seed: '0' there, '100' now"),
        ({"generator": GeneratorSpec(STOPPING, guidance=7.0)}, "guidance: '4.5' there, '7.0' now"),
        ({"generator": GeneratorSpec(PAINTER, guidance=4.5)}, "model: .*StoppingPainter' there"),
        ({"prompts": [{"prompt": "a blue fox"}]}, "prompt: 'a red fox' there, 'a blue fox' now"),
    ],
)
def test_images_drawn_with_other_settings_are_not_scored_as_new_ones(stopped, change, said):
    before = (stopped.out / "provenance.json").read_bytes()
    with pytest.raises(OtherConfig, match=rf"00000\.png was drawn with other settings \({said}.*delete {stopped.out}$"):
        go(replace(stopped, **change))
    assert (stopped.out / "provenance.json").read_bytes() == before and len(drawn()) == 3
    go(stopped)
    assert len(drawn()) == 15


def test_deleted_scores_do_not_make_the_images_those_of_another_seed(run):
    go(run)
    shutil.rmtree(run.out / "scores")
    with pytest.raises(OtherConfig, match=f"seed: '0' there, '1' now.*delete {run.out}$"):
        go(replace(run, seed=1))
    assert set(go(replace(run, weights={"aesthetic": 1.0}))[0]["scores"]) == {"aesthetic"}
    assert len(drawn()) == 15


def test_images_of_older_versions_name_only_their_prompt_and_seed(run):
    go(run)
    for path in (run.out / "candidates").rglob("*.png"):
        with Image.open(path) as image:
            about = PngInfo()
            for name in ("prompt", "seed"):
                about.add_itxt(name, image.text[name])
            image.save(path, "PNG", pnginfo=about)
    go(run)
    assert len(drawn()) == 15
    with pytest.raises(OtherConfig, match="seed: '0' there, '1' now"):
        go(replace(run, seed=1))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{path} cannot be read .*Fix: delete it"):
        go(run)


def test_a_task_with_a_weight_of_0_is_not_scored(run):
    picks = go(replace(run, weights={"alignment": 1.0, "aesthetic": 0.0}))
    assert [pick["best"] for pick in picks] == [pick["best"] for pick in go(replace(run, out=run.out.with_name("one")))]
    assert set(picks[0]["scores"]) == {"alignment"}
    found = json.loads((run.out / "provenance.json").read_text())
    assert found["chosen_by"]["weights"] == {"alignment": 1.0}


def test_an_image_nobody_can_score_is_never_picked(run):
    picks = go(replace(run, scorer=EngineSpec("hostile", RATER)))
    for text, pick in zip(TEXTS, picks, strict=True):
        dark = [seed for seed in range(5) if value_of(text, seed) / 255 < 0.25]
        assert list(pick["rejected"]) == dark and pick["best"] not in dark
        assert all(why == {"alignment": "truncated"} for why in pick["rejected"].values())


@pytest.fixture(scope="module")
def rali(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rali")
    return save_tiny_rali(folder / "fitted", tiny_encoder_folder(folder / "clip"))


def test_a_rali_scores_alone_or_beside_a_reasoning_model(run, rali):
    alone = replace(run, scorer=None, rali=rali, weights={"technical": 1.0})
    picks = go(alone)
    for number, pick in enumerate(picks):
        files = [run.out / "candidates" / f"{number:05d}" / "samples" / f"{image:05d}.png" for image in range(5)]
        scores = [score.score for score in RaliScorer(rali, batch=64).score(files)]
        assert pick["scores"]["technical"] == pytest.approx(scores, abs=1e-4)
        assert pick["best"] == max(range(5), key=scores.__getitem__) and len(set(scores)) > 1
    both = go(replace(run, rali=rali, weights={"technical": 1.0, "alignment": 1.0}, out=run.out.with_name("both")))
    for pick, expected, text in zip(both, picks, TEXTS, strict=True):
        assert pick["scores"]["technical"] == pytest.approx(expected["scores"]["technical"], abs=1e-4)
        assert pick["scores"]["alignment"][0] == pytest.approx(1 + 4 * value_of(text, 0) / 255, abs=0.005)
    other = save_tiny_rali(rali.with_name("other"), tiny_encoder_folder(rali.with_name("other_clip"), seed=1))
    with pytest.raises(OtherConfig, match="rali"):
        go(replace(alone, rali=other))


def test_a_rali_on_a_scale_of_its_own_is_weighed_on_the_tasks(run, tmp_path, rali):
    wide = save_tiny_rali(tmp_path / "wide", tiny_encoder_folder(tmp_path / "clip"), Scale(0.0, 100.0))
    asked = replace(run, scorer=None, weights={"technical": 1.0})
    narrow = go(replace(asked, rali=rali))[0]["scores"]["technical"]
    found = go(replace(asked, rali=wide, out=run.out.with_name("wide")))[0]["scores"]["technical"]
    assert found == pytest.approx([1 + 4 * score / 100 for score in narrow], abs=1e-4)


def test_a_judge_without_a_task_and_a_task_without_a_judge_are_named(run, rali):
    for change, message in (
        ({"rali": rali}, r"the RALI in .* scores technical, but the requested tasks are alignment"),
        ({"rali": rali, "weights": {"technical": 1.0}}, "is not needed"),
        ({"scorer": None}, "nothing scores alignment"),
        ({"rali": rali, "scorer": None, "weights": {"technical": 1.0, "alignment": 1.0}}, "nothing scores alignment"),
        ({"rali": rali / "gone", "scorer": None, "weights": {"technical": 1.0}}, "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            go(replace(run, **change))
    assert not Path("drawn.log").exists()


@pytest.mark.slow
def test_killed_at_five_moments_each_image_is_there_once(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(f"text {number}" for number in range(12)))
    words = [sys.executable, "-m", "omniq_verl.cli", "t2i", "best-of-n", "texts.txt", "--generator", PAINTER]
    words += ["--model", "slow", "--engine", RATER, "--n", "10", "--out", "out"]
    killed_five_times(words, tmp_path, every=29)
    images = sorted((tmp_path / "out" / "candidates").rglob("*.png"))
    assert len(images) == 120
    lines = (tmp_path / "drawn.log").read_text().splitlines()
    # At most the batch that was under way when it was killed is drawn again.
    assert len(set(lines)) == 120 and len(lines) <= 120 + 5 * 4
    keys = stored_keys(tmp_path / "out" / "scores")
    assert len(keys) == len(set(keys)) == 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n must be >= 1"),
        ({"prompts": []}, "prompts must not be empty"),
        ({"prompts": [{"text": "x"}]}, "under 'prompt'"),
        ({"weights": {"alignment": -1}}, "weights"),
        ({"weights": {}}, "weights"),
        ({"order": ("alignment", "alignment")}, "each once"),
        ({"weights": {"beauty": 1.0}}, "unknown task 'beauty'"),
        ({"weights": {"degradation": 1.0}}, "degradation gives no score"),
    ],
)
def test_what_cannot_be_asked_is_named(run, change, message):
    with pytest.raises(ValueError, match=message):
        replace(run, **change)


@pytest.mark.parametrize("word", ["alignment", "alignment=", "alignment=much"])
def test_a_weight_is_a_task_and_a_number(word):
    assert read_weights(["aesthetic=0.5", "alignment=1"]) == {"aesthetic": 0.5, "alignment": 1.0}
    with pytest.raises(ValueError, match="is not TASK=WEIGHT"):
        read_weights([word])


def test_a_scorer_that_is_not_there_is_found_before_anything_is_drawn(run):
    with pytest.raises(ValueError, match="no such folder"):
        go(replace(run, scorer=EngineSpec("/no/such/model")))
    assert not Path("drawn.log").exists()


def test_texts_are_read_from_lines_and_objects(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    assert read_texts(tmp_path / "a.txt") == [{"prompt": "one"}, {"prompt": "two"}]
    (tmp_path / "a.jsonl").write_text('{"prompt": "one", "tag": "colors"}\n')
    assert read_texts(tmp_path / "a.jsonl") == [{"prompt": "one", "tag": "colors"}]
    for text, said in (
        ("", "it is empty"),
        ("\n \n", "no texts"),
        ("{", "line 1 is not JSON"),
        ('{"text": 1}', "line 1 is not an object"),
    ):
        (tmp_path / "b.jsonl").write_text(text)
        with pytest.raises(ValueError, match=said):
            read_texts(tmp_path / "b.jsonl")
    with pytest.raises(ValueError, match="there is no such file"):
        read_texts(tmp_path / "gone.txt")


def test_the_command_says_where_everything_lies(tmp_path, monkeypatch, rali):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("a fox\na cat\n")
    words = ["t2i", "best-of-n", "texts.txt", "--generator", PAINTER, "--model", "", "--engine", RATER, "--out", "out"]
    result = CliRunner().invoke(app, [*words, "--n", "3", "--limit", "1"])
    assert result.exit_code == 0, result.output
    assert "out/picks.jsonl" in result.output and len(drawn()) == 3
    assert CliRunner().invoke(app, [*words, "--weight", "beauty=1"]).exit_code == 1
    rest = ["t2i", "best-of-n", "texts.txt", "--generator", PAINTER, "--out", "other", "--n", "2"]
    assert "give a reasoning model (--model)" in CliRunner().invoke(app, rest, env={"COLUMNS": "200"}).output
    result = CliRunner().invoke(app, [*rest, "--rali", str(rali), "--weight", "technical=1"])
    assert result.exit_code == 0 and Path("other", "picks.jsonl").is_file()
    assert "there is no such file" in CliRunner().invoke(app, ["t2i", "best-of-n", "gone.txt", *words[3:]]).output
