"""``omniq rali`` from end to end with a tiny CLIP, and its figures beside those of other evaluations."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rali_builders import CRITIC, picture, save_tiny_rali, tiny_encoder_folder, write_labelled
from rich.console import Console
from typer.testing import CliRunner

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.evaluation.compare import compare_runs
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.rali import RaliScorer
from omniq_verl.rali.checkpoint import load_rali
from omniq_verl.rali.cli import app
from omniq_verl.rali.compress import Compression
from omniq_verl.rali.fit import Fit
from omniq_verl.rali.fit_files import compress_and_fit
from omniq_verl.tasks import Scale

LABELS = [round(1 + 4 * (n % 20) / 19, 3) for n in range(60)]
AESTHETIC = [Row("other", str(n), "aesthetic", "train", 3.0, 3.0, (1.0, 5.0)) for n in range(2)]
SIZES = ["--dimensions", "8", "--vectors", "24", "--buckets", "20", "--device", "cpu"]


def omniq(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output.replace("\n", " ")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_labelled(folder / "train.parquet", LABELS)
    write_labelled(folder / "test.parquet", LABELS[::-1], "test")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("model") / "clip")


@pytest.fixture(scope="module")
def fitted(data, clip, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "rali"
    said = omniq("fit", "--model", clip, "--data", data / "train.parquet", "--out", out, *SIZES)
    assert "60 images" in said and "24 basis vectors in 20 buckets" in said and "squared error" in said
    return out


def test_from_a_reasoning_model_to_figures(data, clip, tmp_path):
    words = ["--model", "hostile", "--engine", CRITIC, "--data", data / "train.parquet", "--on", "here", "--seeds", 3]
    said = omniq("pairs", *words, "--out", tmp_path / "pairs")
    assert "60 of 60 images have text; answers: ok 120" in said
    words = ["--pairs", tmp_path / "pairs" / "pairs.parquet", "--model", clip, "--epochs", 1, "--batch", 16]
    assert "trained parameters" in omniq("align", *words, "--precision", "fp32", "--out", tmp_path / "align")
    model = tmp_path / "align" / "model"
    omniq("fit", "--model", model, "--data", data / "train.parquet", "--out", tmp_path / "rali", *SIZES)
    said = omniq("eval", "--model", tmp_path / "rali", "--data", data / "test.parquet", "--out", tmp_path / "eval")
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert "report.html" in said and metrics["sets"]["made"]["scored"] == 60
    images = pd.read_parquet(tmp_path / "eval" / "images.parquet")
    assert metrics["sets"]["made"]["srcc"]["value"] == pytest.approx(correlations(images.score, images.target)["srcc"])
    scores = RaliScorer(tmp_path / "rali", "cpu").score([picture(n) for n in range(60)])
    found = images.set_index("key").score
    assert [found[f"technical/made/{n}"] for n in range(60)] == pytest.approx([one.score for one in scores], abs=1e-5)


def test_an_evaluation_goes_on_and_is_compared(data, clip, fitted, tmp_path):
    words = ["--data", data / "test.parquet", "--device", "cpu", "--resamples", 50]
    omniq("eval", "--model", fitted, *words, "--out", tmp_path / "a")
    before = (tmp_path / "a" / "metrics.json").read_text()
    omniq("eval", "--model", fitted, *words, "--out", tmp_path / "a")
    assert (tmp_path / "a" / "metrics.json").read_text() == before
    assert len(list((tmp_path / "a" / "scores").glob("0*.jsonl"))) == 1
    other = save_tiny_rali(tmp_path / "other", clip)
    assert "other settings" in omniq("eval", "--model", other, *words, "--out", tmp_path / "a", code=1)
    omniq("eval", "--model", other, *words, "--out", tmp_path / "b")
    compared = compare_runs([tmp_path / "a", tmp_path / "b"], "rali:2", None, Console(quiet=True))
    assert [row["name"] for row in compared["rows"]][:2] == ["a", "b"] and compared["pairs"][0]["other"] == "b"


def test_scores_stay_with_their_rows_over_all_parts(fitted, data, tmp_path, monkeypatch):
    monkeypatch.setattr("omniq_verl.rali.evaluate._AT_ONCE", 7)
    omniq("eval", "--model", fitted, "--data", data / "test.parquet", "--out", tmp_path / "out", "--resamples", 10)
    found = pd.read_parquet(tmp_path / "out" / "images.parquet").set_index("key").score
    scores = [one.score for one in RaliScorer(fitted, "cpu").score([picture(n) for n in range(60)])]
    assert len(set(scores)) > 50
    assert [found[f"technical/made/{n}"] for n in range(60)] == pytest.approx(scores, abs=1e-5)


def test_files_are_scored_in_parts_and_stay_with_their_names(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("omniq_verl.rali.score_files._AT_ONCE", 3)
    (tmp_path / "photos").mkdir()
    for number in range(10):
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture(number))
    omniq("score", tmp_path / "photos", "--model", fitted, "--out", tmp_path / "scores.csv")
    table = pd.read_csv(tmp_path / "scores.csv")
    scores = [one.score for one in RaliScorer(fitted, "cpu").score([picture(n) for n in range(10)])]
    assert [Path(name).stem for name in table.image] == list("0123456789")
    assert list(table.score) == pytest.approx(scores, abs=1e-5)


def test_an_image_that_has_gone_costs_its_own_score(fitted, tmp_path):
    files = [tmp_path / f"{n}.png" for n in range(8)]
    for number, file in enumerate(files):
        file.write_bytes(picture(number))
    rows = [Row("made", str(n), "technical", "test", n / 2 + 1, n / 2 + 1, (1.0, 5.0)) for n in range(8)]
    records = (row.record(n, str(file)) for n, (row, file) in enumerate(zip(rows, files, strict=True)))
    write_parquet(records, tmp_path / "test.parquet")
    files[3].write_bytes(b"broken")
    files[5].unlink()
    omniq("eval", "--model", fitted, "--data", tmp_path / "test.parquet", "--out", tmp_path / "out")
    of_set = json.loads((tmp_path / "out" / "metrics.json").read_text())["sets"]["made"]
    assert of_set["status"] == {"ok": 6, "bad_image": 2} and of_set["scored"] == 6
    answers = pd.read_parquet(tmp_path / "out" / "answers.parquet").set_index("key")
    assert "cannot be read" in answers.answer["technical/5"] and np.isnan(answers.score["technical/5"])


def test_the_same_seed_gives_the_same_file(data, clip, fitted, tmp_path):
    omniq("fit", "--model", clip, "--data", data / "train.parquet", "--out", tmp_path, *SIZES)
    for name in ("rali.safetensors", "rali.json", "fit.jsonl"):
        assert (tmp_path / name).read_bytes() == (fitted / name).read_bytes()


def test_the_file_says_what_it_was_fitted_from(data, clip, fitted):
    source = json.loads((fitted / "rali.json").read_text())["source"]
    assert source["encoder"] == str(clip) and source["data"] == [str(data / "train.parquet")]
    assert source["trained_parameters"] == 24 * 8 + 24 and source["images"] == 60
    assert source["compression"]["buckets"] == 20 and source["fit"]["learning_rate"] == 0.03
    lines = [json.loads(line) for line in (fitted / "fit.jsonl").read_text().splitlines()]
    assert len(lines) == 30 and lines[-1]["loss"] < lines[0]["loss"]


def test_cases_of_the_ablations_are_settings(data, clip, tmp_path):
    shapes = {}
    for name, changed in {
        "no_pca": ["--dimensions", 0],
        "plain": ["--buckets", 1],
        "no_fit": ["--epochs", 0],
        "all": ["--fit-projection", "--center", "--temperature", 0.1],
    }.items():
        words = ["--model", clip, "--data", data / "train.parquet", "--out", tmp_path / name]
        sizes = [word for pair in zip(SIZES[::2], SIZES[1::2], strict=True) if pair[0] != changed[0] for word in pair]
        omniq("fit", *words, *sizes, "--save-dtype", "bfloat16", *changed)
        model, about = load_rali(tmp_path / name)
        shapes[name] = (list(model.basis.vectors_KM.shape), about.source["trained_parameters"])
    assert shapes == {
        "no_pca": ([24, 16], 24 * 17),
        "plain": ([24, 8], 24 * 9),
        "no_fit": ([24, 8], 0),
        "all": ([24, 8], 24 * 9 + 16 * 8),
    }


def test_few_images_and_equal_labels_are_said(tmp_path, clip):
    write_labelled(tmp_path / "train.parquet", [2.0] * 10)
    words = ["--model", clip, "--data", tmp_path / "train.parquet", "--out", tmp_path / "rali", "--device", "cpu"]
    assert "needs at least as many images" in omniq("fit", *words, code=1)
    assert "10 basis vectors, because there are no more distinct images" in omniq("fit", *words, "--dimensions", 4)
    scores = [one.score for one in RaliScorer(tmp_path / "rali", "cpu").score([picture(n) for n in range(10)])]
    assert scores == pytest.approx([2.0] * 10, abs=0.05)


def test_rows_that_do_not_belong_together_are_rejected(data, clip, tmp_path):
    words = ["--model", clip, "--out", tmp_path / "rali", *SIZES]
    assert "Fix: give train files" in omniq("fit", "--data", data / "test.parquet", *words, code=1)
    write_parquet((row.record(n, picture(n)) for n, row in enumerate(AESTHETIC)), tmp_path / "other.parquet")
    both = ["--data", data / "train.parquet", "--data", tmp_path / "other.parquet"]
    assert "one task and one scale" in omniq("fit", *both, *words, code=1)


def test_a_folder_is_scored_and_a_table_written(fitted, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):
        (photos / f"{number}.png").write_bytes(picture(number))
    (photos / "note.txt").write_text("not an image")
    Image.new("1", (30_000, 30_000)).save(photos / "bomb.png")
    said = omniq("score", photos, "--model", fitted)
    assert f"{photos}/note.txt: no known image format" in said and said.count("/photos/") == 7
    for ending, read in {"csv": pd.read_csv, "parquet": pd.read_parquet}.items():
        out = tmp_path / f"scores.{ending}"
        assert "5 of 7 files scored" in omniq("score", photos, "--model", fitted, "--out", out)
        table = read(out)
        assert list(table.status) == ["ok"] * 5 + ["bad_image"] * 2 and table.score[:5].notna().all()
        assert not (tmp_path / f"scores.{ending}.unfinished").exists()
    assert "exists already" in omniq("score", photos, "--model", fitted, "--out", out, code=1)
    assert ".csv, .jsonl, .parquet" in omniq("score", photos, "--model", fitted, "--out", tmp_path / "x.txt", code=1)
    omniq("score", photos / "note.txt", "--model", fitted, code=1)
    assert "Fix" in omniq("score", photos, "--model", tmp_path, code=1)


@pytest.mark.parametrize("command", ["pairs", "align", "fit", "eval", "score", "export"])
def test_every_help_has_an_example(command):
    assert f"omniq rali {command}" in omniq(command, "--help")


def test_a_basis_is_fitted_to_a_line_of_quality():
    # Embeddings on a half circle by their label: the whole chain orders them.
    rng = np.random.default_rng(0)
    share = rng.uniform(0, 1, 300)
    embeddings = rng.normal(0, 0.02, (300, 12))
    embeddings[:, :2] += np.stack([np.cos(np.pi * share), np.sin(np.pi * share)], axis=1)
    sizes = Compression(dimensions=6, vectors=40, buckets=30)
    before = compress_and_fit(embeddings, 1 + 4 * share, Scale(1, 5), sizes, Fit(epochs=0))
    after = compress_and_fit(embeddings, 1 + 4 * share, Scale(1, 5), sizes, Fit(epochs=60))
    scores = [found.scorer(torch.tensor(embeddings)).detach().numpy() for found in (before, after)]
    assert all(correlations(one, share)["srcc"] > 0.95 for one in scores)
    errors = [float(np.abs(one - 1 - 4 * share).mean()) for one in scores]
    assert errors[1] < 0.3 < errors[0]  # unfitted, all scores stay in the middle
