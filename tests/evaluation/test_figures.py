"""The papers' figures as pages: reasoning side by side, entropies of words, shapes of rewards."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from doctor_builders import png, tiny_model
from evaluation_builders import write_scored
from rich.console import Console
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.evaluation.reward_shapes import draw_reward_shapes, shapes_figure
from omniq_verl.evaluation.run import EvalConfig, evaluate
from omniq_verl.evaluation.side_by_side import choose_keys, length_table, read_runs, write_page
from omniq_verl.evaluation.word_entropy import draw_words, summary, words_of
from omniq_verl.generation.request import Answer
from omniq_verl.generation.runner import RunOptions
from omniq_verl.generation.spec import EngineSpec


class Writer:
    """Gives every image the score that it is named after, and as many tokens as it is told."""

    def __init__(self, spec):
        self.score, _, self.tokens = spec.model.partition("/")

    def answer(self, requests, sampling):
        text = f"<think>I, {self.score}, see <b>grain</b>.</think><answer>{self.score}</answer>"
        return [[Answer(text, tokens=int(self.tokens) + number % 2)] for number, _ in enumerate(requests)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_scored(folder / "made.parquet", [10, 60, 120, 180, 250], [1.0, 2.0, 3.0, 4.0, 5.0])
    for name, script in (("low", "1.5/100"), ("high", "4.5/300")):
        engine = EngineSpec(script, f"{__name__}:Writer")
        config = EvalConfig(
            [folder / "made.parquet"], folder / name, engine, run_options=RunOptions(on="here"), resamples=5
        )
        evaluate(config, Console(quiet=True))
    return folder


def labels_of(root, keys: list[str]) -> list[float]:
    images = read_runs([root / "low"])[0].images
    return [float(images.target[key]) for key in keys]


def test_images_are_spread_over_the_labels(root):
    runs = read_runs([root / "low", root / "high"])
    assert labels_of(root, choose_keys(runs, 3)) == [1, 3, 5]
    assert labels_of(root, choose_keys(runs, 9)) == [1, 2, 3, 4, 5]


def test_images_where_the_error_changes_most_come_first(root):
    # Errors of 1.5 and of 4.5: 0.5 3.5, 0.5 2.5, 1.5 1.5, 2.5 0.5, 3.5 0.5; changes 3, 2, 0, 2, 3.
    runs = read_runs([root / "low", root / "high"])
    assert labels_of(root, choose_keys(runs, 5, "difference")) == [1, 5, 2, 4, 3]
    with pytest.raises(ValueError, match="--order difference needs two runs"):
        choose_keys(runs[:1], 2, "difference")


def test_the_page_has_every_runs_reasoning_as_text(root, tmp_path):
    html = write_page([root / "low", root / "high"], tmp_path, 2).read_text()
    assert html.count("<article>") == 2 and html.count('class="answer"') == 4
    assert html.count("I, 1.5, see &lt;b&gt;grain&lt;/b&gt;.") == html.count("I, 4.5, see &lt;b&gt;grain") == 2
    assert "label 1.00" in html and "low: 1.50" in html and "high: 4.50" in html and (tmp_path / "lengths.png").exists()


def test_lengths_by_hand(root):
    # Five answers of 100, 101, 100, 101 and 100 tokens: mean 100.4, deviation sqrt(0.24).
    (low, high) = length_table(read_runs([root / "low", root / "high"]))
    assert low[0] == "low" and low[2] == "100.4 ± 0.5" and high[2] == "300.4 ± 0.5"


def test_a_folder_that_is_no_evaluation_is_named(root, tmp_path):
    result = CliRunner().invoke(app, ["side-by-side", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1 and "holds no finished evaluation" in result.output


# Words


def test_tokens_are_gathered_into_words_by_hand():
    tokens = ["The", " gr", "ain", " is", "\n", "strong", "."]
    table = words_of(tokens, [0.0, 1.0, 3.0, 0.5, 0.25, 2.0, 1.0])
    assert table["word"].tolist() == ["The", " grain", " is", "\n", "strong."]
    assert table["entropy"].tolist() == [0.0, 2.0, 0.5, 0.25, 1.5] and table["tokens"].tolist() == [1, 2, 1, 1, 2]
    assert words_of([], []).empty
    tags = ["<think>", "gr", "ain", "</", "think", ">", "<answer>", "4", ".", "5", "</answer>", "<|im_end|>"]
    words = ["<think>", "grain", "</think>", "<answer>", "4.5", "</answer>", "<|im_end|>"]
    assert words_of(tags, [0.0] * len(tags))["word"].tolist() == words


def test_the_share_of_high_words_is_measured_by_the_first_checkpoint():
    first = pd.DataFrame({"entropy": np.arange(10) / 10})  # a fifth lies above 0.72
    second = pd.DataFrame({"entropy": [0.7, 0.8, 0.9, 1.0]})
    one, other = summary({("x", "a"): first, ("x", "b"): second}, ["a", "b"])
    assert one["high_from"] == pytest.approx(0.72) and one["high_share"] == 0.2
    assert other["high_share"] == 0.75 and other["mean_entropy"] == pytest.approx(0.85)


def test_each_checkpoint_answers_for_itself(tmp_path):
    model = tiny_model(tmp_path / "model")
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(28 + 28 * number, 56))
    images = [tmp_path / "0.png", tmp_path / "1.png"]
    page = draw_words([model], images, tmp_path / "out", max_tokens=12, device="cpu")
    html, table = page.read_text(), pd.read_csv(tmp_path / "out" / "words.csv")
    assert html.count("<article>") == 2 and set(table["image"]) == set(map(str, images))
    about = json.loads((tmp_path / "out" / "words.json").read_text())
    assert about["checkpoints"][0]["words"] == len(table) and about["provenance"]["device"] == "cpu"
    assert about["checkpoints"][0]["mean_entropy"] == pytest.approx(table["entropy"].mean())
    with pytest.raises(ValueError, match=r"device .*Fix: --device cpu"):
        draw_words([model], images[:1], tmp_path / "out", max_tokens=2, device="nonsense")
    with pytest.raises(ValueError, match=r"missing.png: the file cannot be read .*Fix: give an image"):
        draw_words([model], [tmp_path / "missing.png"], tmp_path / "out", max_tokens=2, device="cpu")


# Rewards


def test_the_shapes_are_the_rewards_themselves(tmp_path):
    (axes,) = shapes_figure([0.8, 1.0], 0.3).axes
    curves = {
        line.get_label(): dict(zip(line.get_xdata().round(3), line.get_ydata(), strict=True)) for line in axes.lines
    }
    assert curves["Gaussian, sigma 0.8"][0.8] == pytest.approx(np.exp(-0.5), abs=0.01)
    assert curves["threshold, 0.3"][0.25] == 1 and curves["threshold, 0.3"][0.35] == 0
    assert draw_reward_shapes(tmp_path / "a" / "rewards.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="must be above 0"):
        draw_reward_shapes(tmp_path / "x.png", [0.0])


def test_any_number_of_widths_is_drawn_and_what_is_none_is_named(tmp_path):
    assert draw_reward_shapes(tmp_path / "many.svg", [0.1 * number for number in range(1, 12)]).is_file()
    for sigma in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0 and finite"):
            draw_reward_shapes(tmp_path / "x.png", [sigma])


def test_no_page_asks_the_network(root, tmp_path):
    html = write_page([root / "low"], tmp_path).read_text()
    assert not re.search(r'(src|href)="(?!data:)', html)
