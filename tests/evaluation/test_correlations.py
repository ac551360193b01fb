"""Agreement between scores and targets."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from omniq_verl.evaluation.correlations import correlations

unhurried = settings(deadline=None)  # a busy machine is no error
COEFFICIENTS = ("plcc", "srcc", "krcc")


def random_pairs(seed: int, count: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Related scores and targets; few decimals give many ties."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 5, count)
    return np.round(target + rng.normal(0, 0.7, count), decimals), np.round(target, decimals)


@pytest.mark.parametrize("decimals", [0, 1, 8], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize(("seed", "count"), [(0, 3), (1, 10), (2, 500), (3, 1_000_000)])
def test_correlations_agree_with_scipy(seed, count, decimals):
    pred, target = random_pairs(seed, count, decimals)
    found = correlations(pred, target)
    assert found["plcc"] == pytest.approx(stats.pearsonr(pred, target).statistic, abs=1e-12)
    assert found["srcc"] == pytest.approx(stats.spearmanr(pred, target).statistic, abs=1e-12)
    assert found["krcc"] == pytest.approx(stats.kendalltau(pred, target).statistic, abs=1e-12)
    assert found["rmse"] == pytest.approx(math.sqrt(np.square(pred - target).mean()), abs=1e-12)
    assert found["n"] == count


def test_correlations_agree_with_values_worked_by_hand():
    # Deviations from the means (2.5 and 3): (-1.5, -0.5, 0.5, 1.5) and (-2, 0, -1, 3).
    # PLCC = (3 + 0 - 0.5 + 4.5) / sqrt(5 * 14) = 7 / 8.3666. Ranks 1 2 3 4 and 1 3 2 4: SRCC = 1 - 6 * 2 / (4 * 15) =
    # 0.8; one of six pairs is inverted: KRCC = (5 - 1) / 6. RMSE = sqrt((0 + 1 + 1 + 4) / 4).
    assert correlations([1, 2, 3, 4], [1, 3, 2, 6]) == {
        "plcc": pytest.approx(7 / math.sqrt(70)),
        "srcc": pytest.approx(0.8),
        "krcc": pytest.approx(2 / 3),
        "rmse": pytest.approx(math.sqrt(1.5)),
        "n": 4,
    }


def test_tied_scores_share_their_mean_rank():
    # Ranks 1.5 1.5 3 and 1 2 3: deviations (-0.5, -0.5, 1) and (-1, 0, 1), so 1.5 / sqrt(1.5 * 2).
    assert correlations([2, 2, 3], [1, 2, 3])["srcc"] == pytest.approx(1.5 / math.sqrt(3))
    # Two concordant pairs of three, one tied in pred: tau-b = 2 / sqrt((3 - 1) * 3).
    assert correlations([2, 2, 3], [1, 2, 3])["krcc"] == pytest.approx(2 / math.sqrt(6))


def test_equal_scores_agree_perfectly():
    assert correlations([1.5, 2.5, 4.0], [1.5, 2.5, 4.0]) == pytest.approx(
        {"plcc": 1.0, "srcc": 1.0, "krcc": 1.0, "rmse": 0.0, "n": 3}
    )


def test_an_inverted_scale_gives_minus_one():
    found = correlations([5, 4, 2, 1], [1, 2, 4, 5])
    assert [found[name] for name in COEFFICIENTS] == pytest.approx([-1.0, -1.0, -1.0])


def test_a_monotone_bend_costs_plcc_only():
    found = correlations([1, 2, 3, 4, 5], [math.exp(value) for value in (1, 2, 3, 4, 5)])
    assert (found["srcc"], found["krcc"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found["plcc"] < 0.95


@pytest.mark.parametrize(
    ("pred", "target", "rmse"),
    [
        ([], [], None),
        ([3.0], [2.0], 1.0),
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0], math.sqrt(5 / 3)),
        ([1.0, 2.0, 3.0], [3.0, 3.0, 3.0], math.sqrt(5 / 3)),
    ],
    ids=["none", "one pair", "two pairs", "constant scores", "constant targets"],
)
@pytest.mark.filterwarnings("error")
def test_a_correlation_that_is_not_defined_is_none(pred, target, rmse):
    found = correlations(pred, target)
    assert [found[name] for name in COEFFICIENTS] == [None, None, None]
    assert (found["rmse"], found["n"]) == (rmse if rmse is None else pytest.approx(rmse), len(pred))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_value_that_is_not_finite_is_rejected(bad, side):
    pairs = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    pairs[side][1] = bad
    with pytest.raises(ValueError, match="finite"):
        correlations(*pairs)


@pytest.mark.parametrize(("pred", "target"), [([1, 2, 3], [1, 2]), ([[1, 2, 3]], [[1, 2, 3]]), (1.0, 1.0)])
def test_sides_of_other_shapes_are_rejected(pred, target):
    with pytest.raises(ValueError, match="same length"):
        correlations(pred, target)


@unhurried
@given(st.lists(st.tuples(st.integers(10, 50), st.integers(10, 50)), max_size=30))
def test_correlations_are_symmetric_and_stay_between_minus_one_and_one(pairs):
    pred, target = [[pair[side] / 10 for pair in pairs] for side in (0, 1)]
    found, swapped = correlations(pred, target), correlations(target, pred)
    for name in COEFFICIENTS:
        if found[name] is None:
            assert swapped[name] is None
        else:
            assert found[name] == pytest.approx(swapped[name], abs=1e-12)
            assert abs(found[name]) <= 1 + 1e-12
