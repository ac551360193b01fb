"""Means of several answers: groups by hand, intervals against the plain bootstrap, what is left out."""

import json

import numpy as np
import pytest
from findings_builders import answered_with, setup_of, write_rows
from rich.console import Console
from scipy import stats

from omniq_verl.evaluation.intervals import correlation_intervals
from omniq_verl.findings import self_consistency
from omniq_verl.findings.measures import agreement, correlation_bounds, mean_correlation_bounds
from omniq_verl.findings.self_consistency import group_means, measure, sizes

RNG = np.random.default_rng(0)
TARGET = RNG.uniform(1, 5, 30)


@pytest.mark.parametrize(("samples", "expected"), [(2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
def test_sizes_are_powers_of_two_and_all(samples, expected):
    assert sizes(samples) == expected


def test_groups_are_disjoint_means_of_what_could_be_parsed():
    scores = np.array([[1.0, 3.0, 5.0, np.nan, 2.0], [np.nan, np.nan, 4.0, 2.0, 1.0]])
    assert group_means(scores, 2).tolist() == [[2, pytest.approx(np.nan, nan_ok=True)], [5, 3]]
    assert group_means(scores, 5) == pytest.approx(np.array([[11 / 4, 7 / 3]]))
    equal = group_means(np.array([[3.3] * 7, [3.3] * 6 + [np.nan], [3.3] * 3 + [np.nan] * 4]), 7)
    assert equal.tolist() == [[3.3, 3.3, 3.3]]  # no correlation of rounding errors with the labels


def test_intervals_are_those_of_omniq_eval():
    pred = TARGET + RNG.normal(size=30)
    expected = correlation_intervals(pred, TARGET, 300)
    found = correlation_bounds(pred, TARGET, 300)
    assert {name: expected[name] for name in ("plcc", "srcc")} == found


def test_the_interval_of_a_mean_is_that_of_a_plain_bootstrap():
    preds = [TARGET + RNG.normal(size=30) for _ in range(3)]
    drawn = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=200)
    means = []
    for counts in drawn:
        chosen = np.repeat(np.arange(30), counts)
        means.append(np.mean([stats.spearmanr(pred[chosen], TARGET[chosen])[0] for pred in preds]))
    found = mean_correlation_bounds(preds, TARGET, 200)["srcc"]
    assert [found.low, found.high] == pytest.approx(list(np.quantile(means, [0.025, 0.975])))


def test_agreement_of_too_few_images_is_not_defined():
    assert agreement([1, 2], [1, 2])["srcc"] == {"value": None, "low": None, "high": None, "n": 2}


def test_more_answers_average_the_noise_away(tmp_path):
    target = np.linspace(1.2, 4.8, 40)
    setup = setup_of(tmp_path, [tmp_path], [write_rows(tmp_path / "rows.parquet", list(target))])
    scores = np.clip(target[:, None] + RNG.normal(size=(40, 16)), 1, 5).round(1)
    greedy = np.clip(target + RNG.normal(scale=0.6, size=40), 1, 5).round(1)
    curve = measure(answered_with(setup, greedy[:, None]), answered_with(setup, scores), 16, 200)
    values = [one["srcc"]["value"] for one in curve.points]
    assert [one["k"] for one in curve.points] == [1, 2, 4, 8, 16]
    assert values == sorted(values)
    assert values[0] == pytest.approx(np.mean([stats.spearmanr(one, target)[0] for one in scores.T]))
    assert values[-1] == pytest.approx(stats.spearmanr(scores.mean(axis=1), target)[0])
    assert [one["tokens"] for one in curve.points] == [10, 20, 40, 80, 160] and curve.greedy["tokens"] == 10
    last = curve.points[-1]
    assert last["gain"]["value"] == pytest.approx(last["srcc"]["value"] - curve.greedy["srcc"]["value"])


def test_an_image_that_one_answer_does_not_score_is_left_out_for_all(tmp_path):
    target = [1.0, 2.0, 3.0, 4.0, 5.0]
    setup = setup_of(tmp_path, [tmp_path], [write_rows(tmp_path / "rows.parquet", target)])
    scores = np.array(target)[:, None].repeat(2, axis=1)
    scores[1, 1] = np.nan
    curve = measure(answered_with(setup, np.array(target)[:, None]), answered_with(setup, scores), 2, 50)
    assert (curve.images, curve.left_out) == (4, 1)
    scores[:4, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 images have a readable score in every answer.*Fix"):
        measure(answered_with(setup, np.array(target)[:, None]), answered_with(setup, scores), 2, 50)


def test_the_page_has_every_k(tmp_path, monkeypatch):
    target = list(np.linspace(1.2, 4.8, 12))
    setup = setup_of(tmp_path / "out", [tmp_path], [write_rows(tmp_path / "rows.parquet", target)])

    def ask(_setup, _spec, name, part, sampling, _console):
        assert part == ("model_1_greedy" if sampling.n == 1 else "model_1_sampled")
        assert sampling.temperature == (0 if sampling.n == 1 else 0.7)
        scores = np.array(target)[:, None] + np.random.default_rng(sampling.n).normal(scale=0.3, size=(12, sampling.n))
        return answered_with(setup, np.clip(scores, 1, 5).round(1), name)

    monkeypatch.setattr(self_consistency, "ask", ask)
    self_consistency.find_self_consistency(setup, 4, 0.7, Console(quiet=True))
    numbers = json.loads((tmp_path / "out/self_consistency.json").read_text())
    [model] = numbers["models"].values()
    assert [one["k"] for one in model["sampled"]] == [1, 2, 4]
    page = (tmp_path / "out/self_consistency.html").read_text()
    assert all(f"{k} sampled" in page for k in (1, 2, 4))


def test_one_sample_is_no_mean(tmp_path):
    setup = setup_of(tmp_path / "out", [tmp_path], [write_rows(tmp_path / "rows.parquet", [1.0])])
    with pytest.raises(ValueError, match="--samples is 1"):
        self_consistency.find_self_consistency(setup, 1, 1.0, Console(quiet=True))


@pytest.mark.parametrize("tokens", [10, 0])
def test_equal_scores_and_engines_that_count_no_tokens_are_drawn(tmp_path, tokens):
    setup = setup_of(tmp_path, [tmp_path], [write_rows(tmp_path / "rows.parquet", [1.0, 2.0, 3.0, 4.0])])
    for scores in (np.full((4, 2), 3.3), np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 1.0], [4.0, 4.0]])):
        greedy, sampled = answered_with(setup, scores[:, :1]), answered_with(setup, scores)
        for one in (greedy, sampled):
            one.answers["tokens"] = tokens
        curve = measure(greedy, sampled, 2, 20)
        self_consistency.draw([curve]).savefig(tmp_path / "plot.png")
        assert ("times the tokens" in self_consistency._sentence(curve)) == (tokens > 0)
