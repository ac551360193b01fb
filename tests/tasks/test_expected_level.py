"""Level words and scores: Q-Align's expectation and DeQA's soft labels, against plain references and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from omniq_verl.tasks import Scale
from omniq_verl.tasks.expected_level import NEAR, expected_level, level_values, soft_levels

ONE_TO_FIVE, ZERO_TO_FIVE = Scale(1, 5), Scale(0, 5)


def test_the_values_of_the_words():
    assert level_values(ONE_TO_FIVE).tolist() == [1, 2, 3, 4, 5]
    assert level_values(ZERO_TO_FIVE).tolist() == [0, 1.25, 2.5, 3.75, 5]


def test_the_expected_level_by_hand():
    # exp: 1, 1, 2, 4, 8 -> (1 + 2 + 6 + 16 + 40) / 16
    logits = [0, 0, math.log(2), math.log(4), math.log(8)]
    assert expected_level(logits, ONE_TO_FIVE) == pytest.approx(65 / 16)
    assert expected_level([[0] * 5, [900, 0, 0, 0, 0]], ONE_TO_FIVE) == pytest.approx([3, 1])


@given(st.lists(st.floats(-30, 30), min_size=5, max_size=5), st.floats(-500, 500))
def test_the_expected_level_against_the_equation(logits, shift):
    shares = [math.exp(one) for one in logits]
    by_hand = sum(share * value for share, value in zip(shares, range(1, 6), strict=True)) / sum(shares)
    assert expected_level(logits, ONE_TO_FIVE) == pytest.approx(by_hand)
    assert expected_level([one + shift for one in logits], ONE_TO_FIVE) == pytest.approx(by_hand)


@pytest.mark.parametrize("logits", [[1, 2, 3, 4], 3.0, [1, 2, 3, 4, math.nan], [1, 2, 3, 4, -math.inf]])
def test_other_than_five_numbers_are_rejected(logits):
    with pytest.raises(ValueError, match="five finite logits"):
        expected_level(logits, ONE_TO_FIVE)


def test_without_a_deviation_the_two_neighbours_share_the_score():
    assert soft_levels(3.25, None, ONE_TO_FIVE) == pytest.approx([0, 0, 0.75, 0.25, 0])
    assert soft_levels(5, 0.0, ONE_TO_FIVE) == pytest.approx([0, 0, 0, 0, 1])
    assert soft_levels(2.0, None, ZERO_TO_FIVE) == pytest.approx([0, 0.4, 0.6, 0, 0])


@pytest.mark.parametrize(("mean", "deviation"), [(3.6, 0.7), (2.2, 0.9), (4.4, 0.6), (2.9, 0.4)])
def test_a_soft_label_against_the_equations(mean, deviation):
    raw = np.array([norm.cdf(c + 0.5, mean, deviation) - norm.cdf(c - 0.5, mean, deviation) for c in range(1, 6)])
    # a S + 5 b = 1 and a M + 15 b = mean
    equations = [[raw.sum(), 5], [(raw * np.arange(1, 6)).sum(), 15]]
    factor, summand = np.linalg.solve(equations, [1, mean])
    cut = np.maximum(factor * raw + summand, 0)
    assert soft_levels(mean, deviation, ONE_TO_FIVE) == pytest.approx(cut / cut.sum())
    assert cut.sum() == pytest.approx(1, abs=0.04)  # the cut is a small one


def test_a_label_that_would_miss_its_score_is_split_between_two_levels():
    # All of the raw distribution is within the worst level, and no factor moves it to 1.4.
    assert soft_levels(1.4, 0.02, ONE_TO_FIVE) == pytest.approx([0.6, 0.4, 0, 0, 0])


def test_in_the_middle_the_label_is_symmetric():
    shares = soft_levels(3.0, 0.8, ONE_TO_FIVE)
    raw = [norm.cdf(c + 0.5, 3, 0.8) - norm.cdf(c - 0.5, 3, 0.8) for c in range(1, 6)]
    assert shares == pytest.approx([one / sum(raw) for one in raw])


@given(st.floats(1, 5), st.floats(0, 3))
def test_every_label_is_a_distribution_whose_mean_is_the_score(score, deviation):
    shares = soft_levels(score, deviation, ONE_TO_FIVE)
    assert shares.min() >= 0 and shares.sum() == pytest.approx(1)
    assert (shares * level_values(ONE_TO_FIVE)).sum() == pytest.approx(score, abs=NEAR + 1e-9)


@pytest.mark.parametrize(("score", "deviation"), [(0.9, None), (3, -1.0), (3, math.nan), (math.nan, 1.0)])
def test_impossible_labels_are_rejected(score, deviation):
    with pytest.raises(ValueError, match=r"is outside|standard deviation"):
        soft_levels(score, deviation, ONE_TO_FIVE)
