"""Bootstrap intervals: against a plain bootstrap, by their coverage, and where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from omniq_verl.evaluation.intervals import (
    Interval,
    Ranks,
    correlation_intervals,
    draws,
    mean_interval,
    percentiles,
    weighted_pearson,
)


def pairs(seed: int, count: int, rho: float = 0.8, decimals: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=count)
    return np.round(x, decimals), np.round(rho * x + np.sqrt(1 - rho**2) * rng.normal(size=count), decimals)


@pytest.mark.parametrize("decimals", [0, 8], ids=["ties", "no ties"])
def test_intervals_are_those_of_a_plain_bootstrap_of_the_same_draws(decimals):
    x, y = pairs(0, 40, decimals=decimals)
    found = correlation_intervals(x, y, resamples=100, seed=3)
    plain = {"plcc": [], "srcc": [], "krcc": [], "rmse": []}
    for counts in np.concatenate(list(draws(40, 100, 3))):
        again_x, again_y = np.repeat(x, counts.astype(int)), np.repeat(y, counts.astype(int))
        plain["plcc"].append(stats.pearsonr(again_x, again_y)[0])
        plain["srcc"].append(stats.spearmanr(again_x, again_y)[0])
        plain["krcc"].append(stats.kendalltau(again_x, again_y)[0])
        plain["rmse"].append(np.sqrt(np.mean((again_x - again_y) ** 2)))
    for name, values in plain.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found[name].low, found[name].high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_every_resample_draws_as_many_images_as_there_are():
    counts = np.concatenate(list(draws(50, 300, 0)))
    assert counts.shape == (300, 50) and (counts.sum(axis=1) == 50).all()
    assert abs(counts.mean(axis=0) - 1).max() < 0.3


def test_the_draws_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch):
    one = np.concatenate(list(draws(30, 20, 5)))
    monkeypatch.setattr("omniq_verl.evaluation.intervals._AT_ONCE", 30)
    assert (np.concatenate(list(draws(30, 20, 5))) == one).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 1000))
def test_ranks_among_what_was_drawn_are_scipys(values, seed):
    counts = np.random.default_rng(seed).integers(0, 4, len(values))
    counts[0] += 1
    found = Ranks(np.array(values, dtype=float)).among(counts[None].astype(float))[0]
    drawn = np.repeat(np.arange(len(values)), counts)
    assert found[drawn] == pytest.approx(stats.rankdata(np.array(values)[drawn]))


def test_a_constant_side_has_no_correlation():
    counts = np.array([[1.0, 1, 1], [3, 0, 0], [0, 2, 1]])
    # All three; one image only; two images whose x are equal.
    found = weighted_pearson(np.array([1.0, 0.1, 0.1]), np.array([1.0, 2, 4]), counts)
    assert np.isfinite(found[0]) and np.isnan(found[1:]).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_pairs_have_no_interval(count):
    assert set(correlation_intervals([1.0] * count, [2.0] * count).values()) == {Interval()}


def test_equal_scores_have_no_interval_of_a_correlation_but_one_of_rmse():
    found = correlation_intervals([3.0] * 20, list(range(20)), resamples=50)
    assert found["plcc"] == found["srcc"] == found["krcc"] == Interval()
    assert 0 < found["rmse"].low < found["rmse"].high


def test_the_same_seed_gives_the_same_bounds():
    x, y = pairs(1, 60)
    assert correlation_intervals(x, y, 80, seed=4) == correlation_intervals(x, y, 80, seed=4)
    assert correlation_intervals(x, y, 80, seed=4) != correlation_intervals(x, y, 80, seed=5)


@pytest.mark.parametrize("name", ["plcc", "srcc"])
def test_coverage_is_near_nominal(name):
    # Of normal pairs; Spearman's of them is 6 / pi * asin(rho / 2).
    rho = 0.8
    true = rho if name == "plcc" else 6 / np.pi * np.arcsin(rho / 2)
    hits = 0
    for seed in range(300):
        x, y = pairs(seed, 100, rho)
        counts = np.concatenate(list(draws(100, 400, seed)))
        sides = (x, y) if name == "plcc" else (Ranks(x).among(counts), Ranks(y).among(counts))
        found = percentiles(weighted_pearson(*sides, counts), 0.95)
        hits += found.low <= true <= found.high
    assert 0.91 <= hits / 300 <= 0.98  # 0.95 give or take 2.5 standard errors, and the percentile's known shortfall


def test_coverage_of_a_mean_is_near_nominal():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        found = mean_interval(rng.random(200) < 0.3, 400, seed=seed)
        hits += found.low <= 0.3 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


@pytest.mark.parametrize(
    ("undefined", "there"), [(0, True), (1, True), (5, True), (6, False), (37, False), (99, False)]
)
def test_undefined_resamples_are_counted_and_more_than_a_twentieth_leave_no_interval(undefined, there):
    values = np.linspace(0.4, 0.6, 100)
    values[:undefined] = np.nan
    found = percentiles(values, 0.95)
    assert found.undefined == undefined and (found.low is not None) == there
    if there:
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values[undefined:], [0.025, 0.975])))


def test_a_single_value_has_no_interval():
    assert mean_interval([1.0]) == Interval()


def test_of_fourteen_images_with_thirteen_equal_scores_the_undefined_resamples_are_reported():
    pred, target = [3.0] * 13 + [4.0], np.linspace(1, 5, 14)
    counts = np.concatenate(list(draws(14, 1000, 0)))
    missed = int((counts[:, -1] == 0).sum() + (counts[:, -1] == 14).sum())
    found = correlation_intervals(pred, target, 1000)
    assert 300 < missed < 450 and found["plcc"].undefined == found["srcc"].undefined == missed
    assert found["plcc"].low is None and found["rmse"].undefined == 0 and found["rmse"].low is not None
