"""Scoring without reasoning by a real tiny model, against forward passes over whole sequences."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from generation_builders import png, write_rows
from typer.testing import CliRunner

from omniq_verl import Scorer
from omniq_verl.cli import app
from omniq_verl.generation.direct import score_texts
from omniq_verl.generation.expectation import ScoreTexts, Walk
from omniq_verl.generation.request import Request
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.speed import Speed, add_speed, read_speed
from omniq_verl.generation.transformers_direct import expect
from omniq_verl.generation.transformers_model import TransformersModel
from omniq_verl.tasks import Q_INSIGHT_SCORE, TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

SETTINGS = {"engine": "hf", "dtype": "float32"}
IMAGES = [png(seed, side=80) for seed in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("direct") / "model"
    corpus = [*TECHNICAL.questions, "<think>noise</think><answer>3.7</answer>", '{"rating": 3.52}</answer>']
    save_tiny_model(path, corpus * 3, [np.zeros((80, 80, 3), dtype=np.uint8)])
    return path


@pytest.fixture(scope="module")
def scorer(folder) -> Scorer:
    return Scorer(folder, mode="direct", **SETTINGS)


def whole_passes(engine: TransformersModel, inputs, texts: ScoreTexts) -> dict[str, float]:
    """P(t) of each text, with a forward pass over the whole sequence for every next token."""
    vocabulary = {n: text.replace("Ġ", " ").replace("Ċ", "\n") for text, n in engine._tokenizer.get_vocab().items()}
    values, mass = dict(texts.values), dict.fromkeys(dict(texts.values), 0.0)
    ends = [
        n
        for n, text in vocabulary.items()
        if text and any(e.startswith(text) or text.startswith(e) for e in texts.ends)
    ]

    def after(tokens: list[int]) -> torch.Tensor:
        more = torch.tensor([tokens], dtype=torch.long).reshape(1, -1)
        known = {**inputs, "input_ids": torch.cat([inputs["input_ids"], more], 1)}
        known["attention_mask"] = torch.ones_like(known["input_ids"])
        known["mm_token_type_ids"] = torch.cat([known["mm_token_type_ids"], torch.zeros_like(more)], 1)
        with torch.inference_mode():
            return engine._model(**known).logits[0, -1].double().softmax(-1)

    def visit(tokens: list[int], written: str, chance: float) -> None:
        following = [text for text in values if text.startswith(written) and text != written]
        found = after(tokens) if following else None
        if written in values:
            mass[written] += chance * (float(found[ends].sum()) if following else 1.0)
        for number, text in vocabulary.items() if following else ():
            if text and any(one.startswith(written + text) for one in following):
                visit([*tokens, number], written + text, chance * float(found[number]))

    visit([], "", 1.0)
    return mass


@pytest.mark.parametrize("task", [TECHNICAL, Q_INSIGHT_SCORE], ids=lambda task: task.name)
@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_it_equals_forward_passes_over_whole_sequences(folder, task, at_once):
    engine = TransformersModel(EngineSpec(str(folder), "hf", dtype="float32"))
    values = (("3", 3.0), ("3.5", 3.5), ("3.52", 3.52), ("4.1", 4.1), ("4.2", 4.2), ("5", 5.0))
    texts = replace(score_texts(task), values=values)
    inputs = engine._prepare([Request("a", task.messages(None), (IMAGES[0],), texts=texts)])
    found = expect(engine._model, inputs, Walk(engine._vocabulary.spelling(texts), smallest=0.0), at_once)
    mass = whole_passes(engine, inputs, texts)
    total = sum(mass.values())
    assert 0 < total < 1 and found.outside == pytest.approx(1 - total, rel=1e-6)
    assert found.mean == pytest.approx(sum(mass[text] * value for text, value in values) / total, rel=1e-5)
    assert found.likeliest == max(mass, key=mass.get) and found.read >= 6


def test_it_depends_on_the_image_alone_bit_by_bit(scorer):
    together = scorer.score(IMAGES)
    assert len({one.score for one in together}) == 3
    assert [one.score for one in scorer.score(IMAGES[::-1])] == [one.score for one in together[::-1]]
    assert [scorer.score(image).score for image in IMAGES] == [one.score for one in together]
    assert all(one.reasoning is None and 0 <= one.outside < 1 and one.std > 0 for one in together)


def test_how_many_prefixes_share_a_pass_changes_no_more_than_rounding(folder, scorer):
    alone = Scorer(folder, mode="direct", **SETTINGS)
    alone.engine.at_once = 1
    assert alone.score(IMAGES[0]).score == pytest.approx(scorer.score(IMAGES[0]).score, abs=1e-5)


def test_mistakes_are_named_before_anything_is_asked(folder, scorer):
    with pytest.raises(ValueError, match=r"unknown mode 'think'.*Fix"):
        Scorer(folder, mode="think", **SETTINGS)
    with pytest.raises(ValueError, match="asks for no number"):
        scorer.score(IMAGES, task="degradation")
    with pytest.raises(ValueError, match=r"samples.*Fix"):
        scorer.score(IMAGES, samples=3)
    with pytest.raises(ValueError, match=r"returns no probabilities.*Fix"):
        Scorer("any", engine="generation_builders:Echo", mode="direct")


def test_both_modes_are_measured_into_one_report(folder, tmp_path):
    data = write_rows(tmp_path / "test.parquet", [1, 2, 3, 4, 5])
    words = ["eval", "--model", str(folder), "--engine", "hf", "--data", str(data), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*words, "--mode", "both", "--max-tokens", "8", "--resamples", "20"])
    assert done.exit_code == 0, done.output
    rows = {row["mode"]: row for row in json.loads((tmp_path / "run/modes.json").read_text())["rows"]}
    assert rows["direct"]["scored"] == 5 and rows["direct"]["srcc"]["value"] is not None
    assert rows["direct"]["outside"] > 0 and rows["reason"]["outside"] is None
    assert all(row["images_per_second"] > 0 and row["tokens_per_image"] > 0 for row in rows.values())
    assert "| direct |" in (tmp_path / "run/modes.md").read_text()
    again = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "run/direct"), "--max-tokens", "8"])
    assert again.exit_code == 1 and "mode" in again.output


def test_the_command_scores_and_writes_the_mass_outside(folder, tmp_path):
    (tmp_path / "a.png").write_bytes(IMAGES[0])
    words = ["score", str(tmp_path / "a.png"), "--model", str(folder), "--engine", "hf", "--mode", "direct"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "scores.jsonl")])
    assert done.exit_code == 0, done.output
    line = json.loads((tmp_path / "scores.jsonl").read_text())
    assert line["status"] == "ok" and 0 < line["outside"] < 1 and math.isfinite(line["score"])
    idle = CliRunner().invoke(app, [*words, "--reasoning"])
    assert idle.exit_code == 2 and "has no effect with --mode direct" in " ".join(idle.output.split())


def test_speed_adds_up_over_starts(tmp_path):
    add_speed(tmp_path, Speed(4, 2.0, 40))
    add_speed(tmp_path, Speed(0, 9.0, 0))
    add_speed(tmp_path, Speed(2, 1.0, 8))
    found = read_speed(tmp_path)
    assert (found.rows_per_second, found.tokens_per_row) == (2.0, 8.0)
    assert Speed().rows_per_second is None and Speed().tokens_per_row is None
