"""Paired tests of two runs over the same images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from omniq_verl.evaluation.intervals import draws
from omniq_verl.evaluation.paired import absolute_error_difference, holm, paired_difference

unhurried = settings(deadline=None, max_examples=20)  # a busy machine is no error


def two_predictions(images: int, seed: int, noise: tuple[float, float] = (0.5, 0.9)) -> list[np.ndarray]:
    """Two predictions that share half of their noise's variance, and their standard normal target."""
    rng = np.random.default_rng(seed)
    target, shared, own, other = rng.normal(size=(4, images))
    return [target + noise[0] * (shared + own) / 2**0.5, target + noise[1] * (shared + other) / 2**0.5, target]


def plain_difference(a, b, target, statistic, resamples, seed) -> np.ndarray:
    """The resampled differences, image by image and by scipy."""
    agreement = {"plcc": stats.pearsonr, "srcc": stats.spearmanr}[statistic]
    found = []
    for counts in np.concatenate(list(draws(len(target), resamples, seed))):
        chosen = np.repeat(np.arange(len(target)), counts.astype(int))
        found.append(agreement(a[chosen], target[chosen])[0] - agreement(b[chosen], target[chosen])[0])
    return np.array(found)


@pytest.mark.parametrize("decimals", [0, 6], ids=["ties", "no ties"])
@pytest.mark.parametrize("statistic", ["plcc", "srcc"])
def test_the_paired_difference_agrees_with_a_plain_bootstrap(statistic, decimals):
    a, b, target = (np.round(side, decimals) for side in two_predictions(25, seed=3, noise=(0.6, 0.7)))
    expected = plain_difference(a, b, target, statistic, 200, seed=5)
    found = paired_difference(a, b, target, statistic, resamples=200, level=0.9, seed=5)
    agreement = {"plcc": stats.pearsonr, "srcc": stats.spearmanr}[statistic]
    assert (found.a, found.b) == pytest.approx((agreement(a, target)[0], agreement(b, target)[0]))
    assert found.difference == pytest.approx(found.a - found.b)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.05, 0.95])))
    smaller = min((expected <= 0).sum(), (expected >= 0).sum())
    assert found.p == pytest.approx(min(1, 2 * (smaller + 1) / 201))
    assert (found.n, found.resamples, found.reason) == (25, 200, None)


def test_a_perfect_and_an_inverted_prediction_are_two_apart():
    found = paired_difference([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], "plcc", resamples=99)
    assert (found.a, found.b, found.difference) == pytest.approx((1, -1, 2))
    assert (found.low, found.high) == pytest.approx((2, 2))
    assert found.p == 2 / 100  # no resample at or below 0, one added


def test_a_monotone_bend_differs_in_plcc_only():
    target = np.linspace(1, 5, 30)
    bent = [math.exp(value) for value in target]
    assert paired_difference(target, bent, target, "srcc", resamples=50).p == 1
    found = paired_difference(target, bent, target, "plcc", resamples=50)
    assert found.low > 0.01 and found.p < 0.05


@unhurried
@given(st.lists(st.tuples(*[st.integers(10, 50)] * 3), min_size=3, max_size=20), st.sampled_from(["plcc", "srcc"]))
def test_swapping_the_runs_flips_the_sign(images, statistic):
    a, b, target = np.array(images, float).T / 10
    there = paired_difference(a, b, target, statistic, resamples=40)
    back = paired_difference(b, a, target, statistic, resamples=40)
    if there.difference is None or there.low is None:
        assert (there.p, back.p, there.reason is not None) == (None, None, True)
    else:
        assert back.difference == -there.difference
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-12)
        assert back.p == there.p and 0 < there.p <= 1


@unhurried
@given(st.lists(st.tuples(*[st.integers(10, 50)] * 2), min_size=3, max_size=20), st.sampled_from(["plcc", "srcc"]))
def test_equal_runs_do_not_differ(images, statistic):
    pred, target = np.array(images, float).T / 10
    found = paired_difference(pred, pred, target, statistic, resamples=40)
    assert found.difference in (0, None)
    assert (found.low, found.high, found.p) in ((0, 0, 1), (None, None, None))
    assert absolute_error_difference(pred, pred, target).p == 1


def test_the_seed_decides_the_resamples():
    sides = two_predictions(40, seed=0)
    assert paired_difference(*sides, resamples=50, seed=1) == paired_difference(*sides, resamples=50, seed=1)
    assert paired_difference(*sides, resamples=50, seed=1).low != paired_difference(*sides, resamples=50, seed=2).low


@pytest.mark.parametrize("statistic", ["plcc", "srcc"])
def test_the_interval_covers_the_true_difference_about_as_often_as_it_says(statistic):
    # The PLCC of target + noise with the target is 1 / sqrt(1 + variance), and Spearman's of a normal pair
    # 6 / pi * asin(PLCC / 2).
    plcc = [1 / math.sqrt(1 + noise**2) for noise in (0.5, 0.9)]
    srcc = [6 / math.pi * math.asin(value / 2) for value in plcc]
    truth = {"plcc": plcc[0] - plcc[1], "srcc": srcc[0] - srcc[1]}[statistic]
    found = [paired_difference(*two_predictions(60, seed), statistic, resamples=120) for seed in range(100)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.87 <= covered <= 0.99


def test_without_a_difference_p_is_small_about_as_often_as_it_says():
    found = [paired_difference(*two_predictions(60, seed, (0.7, 0.7)), resamples=100).p for seed in range(100)]
    for level in (0.25, 0.5, 0.75):
        assert level - 0.15 <= np.mean(np.array(found) <= level) <= level + 0.15


def test_pairing_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(0)
    target, shared = rng.normal(size=(2, 100))
    a, b = target + shared, target + 1.15 * shared
    found = paired_difference(a, b, target, "plcc", resamples=300)
    assert found.low > 0
    alone = [paired_difference(a, -target, target, "plcc", resamples=300), found]
    assert alone[0].high - alone[0].low > 4 * (found.high - found.low)


@pytest.mark.parametrize(
    ("a", "b", "target", "reason"),
    [
        ([], [], [], "fewer than three images"),
        ([1, 2], [2, 1], [1, 2], "fewer than three images"),
        ([3, 3, 3], [1, 2, 3], [1, 2, 3], "constant scores of the first"),
        ([1, 2, 3], [3, 3, 3], [1, 2, 3], "constant scores of the second"),
        ([1, 2, 3], [1, 3, 2], [2, 2, 2], "constant targets"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_not_defined_is_none_and_says_why(a, b, target, reason):
    found = paired_difference(a, b, target)
    assert (found.difference, found.low, found.high, found.p, found.resamples) == (None, None, None, None, 0)
    assert found.reason == reason


@pytest.mark.filterwarnings("error")
def test_a_side_that_is_constant_in_most_resamples_gives_no_interval():
    found = paired_difference([0, 0, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 2], resamples=1, seed=1)
    drawn = next(draws(6, 1, 1))[0]
    assert drawn[-1] == 0, "take a seed that misses the last image"
    assert found.difference is not None
    assert (found.low, found.p, found.reason) == (None, None, "in 1 of 1 resamples all scores or labels are equal")


@pytest.mark.parametrize("wrong", [{"statistic": "krcc"}, {"resamples": 0}, {"level": 1.0}, {"level": 0.0}])
def test_settings_without_meaning_are_rejected(wrong):
    with pytest.raises(ValueError, match="plcc, srcc"):
        paired_difference([1, 2, 3], [1, 3, 2], [1, 2, 3], **wrong)


@pytest.mark.parametrize("test", [paired_difference, absolute_error_difference])
@pytest.mark.parametrize("wrong", [([1, 2], [1, 2, 3]), ([1, 2, math.nan], [1, 2, 3])], ids=["length", "nan"])
def test_scores_that_are_missing_are_rejected(test, wrong):
    with pytest.raises(ValueError, match=r"same length|finite"):
        test([1, 2, 3], *wrong)


def test_absolute_errors_worked_by_hand():
    # Errors 0.1 0.2 0.3 0.4 0.5 against 1.1 1.2 1.3 1.4 1.5: each of the 2^5 signs is as likely, two as extreme.
    found = absolute_error_difference([0.1, 1.2, 2.3, 3.4, 4.5], [-1.1, -0.2, 0.7, 1.6, 2.5], [0, 1, 2, 3, 4])
    assert (found.n, found.a, found.b, found.difference) == (5, *map(pytest.approx, (0.3, 1.3, -1.0)))
    assert found.p == pytest.approx(2 / 2**5)


def test_errors_that_are_equal_on_paper_are_ties():
    # 3.5 and 2.9 are both 0.3 off 3.2, in floating point not quite: only the last three images count.
    found = absolute_error_difference([3.5, 3.5, 3.1, 3.1, 3.1], [2.9, 2.9, 2.2, 2.1, 2.0], [3.2] * 5)
    assert found.p == pytest.approx(2 / 2**3)


def test_two_images_have_errors_but_no_test():
    found = absolute_error_difference([1, 2], [2, 3], [1, 2])
    assert (found.difference, found.p, found.reason) == (-1, None, "fewer than three images")
    assert absolute_error_difference([], [], []).reason == "no image"


def test_holm_worked_by_hand():
    # Sorted 0.01 0.03 0.04, times 3, 2, 1: 0.03, 0.06, 0.04, and none below the one before it.
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None] and holm([]) == []
