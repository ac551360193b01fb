"""Reflection with stand-ins for generator, scorer and writer: rounds, picks, files."""

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_builders import RATER
from PIL import Image
from rich.console import Console
from t2i_builders import CRITIC, PAINTER, STOPPING, WRITER, Critic, value_of
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.generation.request import Answer
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import OtherConfig
from omniq_verl.t2i.generator import GeneratorSpec
from omniq_verl.t2i.reflection import Reflection, reflect

TEXTS = ["a red fox", "two <b>cats</b> & $1", "x", "a boat"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Reflection:
    monkeypatch.chdir(tmp_path)
    prompts = [{"prompt": text, "tag": "colors"} for text in TEXTS]
    return Reflection(prompts, tmp_path / "out", GeneratorSpec(PAINTER), EngineSpec("", CRITIC), batch=3, rounds=4)


def go(run: Reflection) -> list[dict]:
    return reflect(run, Console(file=io.StringIO()))


def log(name: str) -> list[str]:
    return Path(name).read_text().splitlines()


def lines(run: Reflection) -> list[dict]:
    return [json.loads(line) for line in (run.out / "rounds.jsonl").read_text().splitlines()]


def written(text: str, round_number: int) -> str:
    """What the writer makes of a text in so many rounds; tags reach it as brackets."""
    return text if round_number == 0 else text.replace("<", "(").replace(">", ")") + "+" * round_number


def test_each_round_draws_from_the_new_prompt_and_the_best_of_all_is_picked(run):
    picks = go(run)
    for number, (text, pick) in enumerate(zip(TEXTS, picks, strict=True)):
        values = [value_of(written(text, n), n) for n in range(5)]
        best = values.index(max(values))
        assert (pick["prompt"], pick["best"], pick["round"], pick["seed"]) == (text, best, best, best)
        assert pick["drawn_from"] == written(text, best) and pick["rewrites"] == {"ok": 4}
        with Image.open(run.out / "best" / f"{number:05d}" / "samples" / "00000.png") as image:
            assert image.getpixel((0, 0)) == (max(values),) * 3 and image.text["prompt"] == written(text, best)
        assert json.loads((run.out / "best" / f"{number:05d}" / "metadata.jsonl").read_text())["prompt"] == text
        with Image.open(run.out / "sheets" / f"{number:05d}.png") as sheet:
            assert min(sheet.size) > 200
    assert [json.loads(line) for line in (run.out / "picks.jsonl").read_text().splitlines()] == picks


def test_rounds_say_what_was_drawn_from_what_and_why(run):
    go(run)
    found = lines(run)
    assert [(one["text"], one["round"], one["image"]) for one in found] == [
        (text, n, n) for text in range(4) for n in range(5)
    ]
    for one in found:
        assert one["drawn_from"] == written(TEXTS[one["text"]], one["round"]) and one["seed"] == one["round"]
        assert one["rewrite"] == ("ok" if one["round"] else None)
        share = value_of(one["drawn_from"], one["seed"]) / 255
        assert one["value"] == one["scores"]["alignment"] == pytest.approx(round(1 + 4 * share, 2))
        assert one["reasoning"] == {"alignment": f"its brightness is {share:.2f}"}


def test_images_are_scored_as_what_the_text_itself_asks_for(run, monkeypatch):
    asked = []
    monkeypatch.setattr("t2i_builders.Critic.answer", _remembering(asked))
    go(run)
    about = [request for request in asked if request.images]
    assert len(about) == 20 and not any("fox+" in request.messages[0]["content"] for request in about)
    assert sum("a red fox" in request.messages[0]["content"] for request in about) == 5
    rest = [request.messages[0]["content"] for request in asked if not request.images]
    assert len(rest) == 16 and sum("a red fox+++\n" in text and "brightness is" in text for text in rest) == 1


def _remembering(asked: list):
    answer = Critic.answer
    return lambda self, requests, sampling: asked.extend(requests) or answer(self, requests, sampling)


def test_all_texts_are_asked_about_together(run, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "t2i_builders.Writer.answer",
        lambda _self, requests, _sampling: sizes.append(len(requests)) or _same(requests),
    )
    go(run)
    assert sizes == [4] * 4


def _same(requests):
    return [[Answer("<prompt>the same</prompt>")] for _ in requests]


def test_the_earliest_of_equal_images_is_picked(run, monkeypatch):
    monkeypatch.setattr("t2i_builders.value_of", lambda text, seed: 100 if seed != 2 else 50)
    picks = go(run)
    assert [(pick["best"], pick["ranking"]) for pick in picks] == [(0, [0, 1, 3, 4, 2])] * 4


def test_neither_the_order_of_the_texts_nor_the_batch_changes_anything(run):
    picks = go(run)
    turned = go(replace(run, prompts=run.prompts[::-1], out=run.out.with_name("other"), batch=1))
    assert turned[::-1] == picks
    for one, other in ((0, 3), (1, 2), (3, 0)):
        names = [Path("candidates", f"{number:05d}", "samples", "00004.png") for number in (one, other)]
        assert (run.out / names[0]).read_bytes() == (run.out.with_name("other") / names[1]).read_bytes()


def test_started_again_nothing_is_done_twice_and_more_rounds_go_on(run):
    first = go(run)
    assert len(log("drawn.log")) == 20 and len(log("written.log")) == 16
    assert go(run) == first
    assert len(log("drawn.log")) == 20 and len(log("written.log")) == 16
    assert len(go(replace(run, rounds=6))[0]["ranking"]) == 7
    assert len(log("drawn.log")) == 28 and len(log("written.log")) == 24
    assert go(run) == first
    with pytest.raises(OtherConfig, match=f"longest.*delete {run.out}$"):
        go(replace(run, longest=50))


def test_images_drawn_with_other_settings_are_not_scored_as_new_ones(run):
    run = replace(run, generator=GeneratorSpec(STOPPING))
    Path("stop").touch()
    with pytest.raises(RuntimeError, match="out of memory"):
        go(run)
    Path("stop").unlink()
    with pytest.raises(OtherConfig, match=f"seed: '0' there, '100' now.*delete {run.out}$"):
        go(replace(run, seed=100))
    assert json.loads((run.out / "provenance.json").read_text())["seed"] == 0
    go(run)
    assert len(log("drawn.log")) == 20


def test_images_of_other_rewrites_are_not_taken_for_those_of_these(run):
    go(run)
    for name in ("scores", "rewrites"):
        shutil.rmtree(run.out / name)
    with pytest.raises(OtherConfig, match=r"00001\.png was drawn with other settings \(prompt: 'a red fox\+' there"):
        go(replace(run, longest=5))


def test_a_text_with_a_good_image_gets_no_further_rounds(run):
    all_values = [[value_of(written(text, n), n) for n in range(5)] for text in TEXTS]
    picks = go(replace(run, stop_at=4.0))
    drawn = Counter(one["text"] for one in lines(run))
    for number, values in enumerate(all_values):
        good = [n for n, value in enumerate(values) if round(1 + 4 * value / 255, 2) >= 4]
        assert drawn[number] == (good[0] + 1 if good else 5)
        assert picks[number]["best"] == (good[0] if good else values.index(max(values)))
    assert len(set(drawn.values())) > 1 and len(log("drawn.log")) == sum(drawn.values())
    go(run)
    assert sorted(log("drawn.log")) == sorted(f"{written(text, n)}/{n}" for text in TEXTS for n in range(5))


def test_the_best_of_several_first_images_is_reflected_on(run):
    wide = replace(run, n=3, rounds=2)
    picks = go(wide)
    found = lines(wide)
    assert [one["round"] for one in found] == [0, 0, 0, 1, 2] * 4
    assert [one["image"] for one in found] == [0, 1, 2, 3, 4] * 4
    for number, text in enumerate(TEXTS):
        assert [one["drawn_from"] for one in found if one["text"] == number] == [
            *[text] * 3, written(text, 1), written(text, 2)
        ]  # fmt: skip
        values = [value_of(one["drawn_from"], one["seed"]) for one in found if one["text"] == number]
        assert picks[number]["best"] == values.index(max(values))
    with pytest.raises(OtherConfig, match="chosen_by"):
        go(replace(wide, weights={"alignment": 2.0}))
    assert go(replace(wide, weights={"alignment": 1.0, "aesthetic": 0.0})) == picks


def test_a_writer_of_its_own_is_asked_and_the_scorer_is_not(run):
    own = replace(run, scorer=EngineSpec("", RATER), writer=EngineSpec("", WRITER))
    assert go(own) == go(replace(run, out=run.out.with_name("both")))
    # The rater alone cannot answer a question without an image.
    with pytest.raises(IndexError):
        go(replace(own, writer=None, out=run.out.with_name("none")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "must be >= 1"),
        ({"rounds": -1}, "rounds must be >= 0"),
        ({"scorer": None}, "a reasoning model"),
        ({"stop_at": 5.5}, "the scores end at 5"),
        ({"stop_at": float("nan")}, "no image reaches"),
        ({"prompts": []}, "prompts must not be empty"),
        ({"weights": {"degradation": 1.0}}, "degradation gives no score"),
    ],
)
def test_what_cannot_be_asked_is_named(run, change, message):
    with pytest.raises(ValueError, match=message):
        replace(run, **change)


def test_the_end_of_the_scores_bounds_only_values_on_their_scale(run):
    stopping = replace(run, selector="t2i_builders:hundredfold", stop_at=400)
    picks = go(stopping)
    values = [[one["value"] for one in lines(stopping) if one["text"] == number] for number in range(4)]
    assert all(max(some[:-1], default=0) < 400 for some in values) and len(picks) == 4
    assert any(some[-1] >= 400 for some in values)


def test_models_that_are_not_there_are_found_before_anything_is_drawn(run):
    for change in ({"scorer": EngineSpec("/no/such/model")}, {"writer": EngineSpec("/no/such/model")}):
        with pytest.raises(ValueError, match="no such folder"):
            go(replace(run, **change))
    assert not Path("drawn.log").exists()


def test_the_command_counts_what_was_rejected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("a fox\na cat\nnever read\n")
    words = ["t2i", "reflect", "texts.txt", "--generator", PAINTER, "--model", "", "--engine", RATER, "--out", "out"]
    words += ["--writer", "hostile", "--writer-engine", WRITER, "--rounds", "4", "--limit", "2"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert (
        "8 of 8 new prompts were rejected and the previous prompt was used: 2 empty, 2 too_long, 4 truncated"
        in result.output
    )
    assert "of 2 picked images come from a round after" in result.output and "out/picks.jsonl" in result.output
    assert CliRunner().invoke(app, [*words, "--stop-at", "6"]).exit_code == 1
