"""The logistic curves of VQEG."""

import math

import numpy as np
import pytest

from omniq_verl.evaluation.correlations import correlations
from omniq_verl.evaluation.logistic import CURVES, fit_curve, logistic4, logistic5

KNOWN = {"logistic4": (4.5, 1.2, 5.0, 1.3), "logistic5": (3.0, 0.8, 5.0, 0.1, 2.0)}


def test_curves_by_hand():
    x = np.array([5.0, 5.0 + 1.3 * math.log(3)])
    # In the middle half of the way from 1.2 to 4.5; log 3 widths on, three quarters.
    assert logistic4(x, *KNOWN["logistic4"]) == pytest.approx([2.85, 1.2 + 0.75 * 3.3])
    assert logistic4(x, 4.5, 1.2, 5.0, -1.3) == pytest.approx([2.85, 1.2 + 0.75 * 3.3])  # |b4|
    # 1/2 - 1/(1 + e^0) = 0, so b4 x + b5; at b2 (x - b3) = log 3: 1/2 - 1/4.
    x = np.array([5.0, 5.0 + math.log(3) / 0.8])
    assert logistic5(x, *KNOWN["logistic5"]) == pytest.approx([2.5, 3 * 0.25 + 0.1 * x[1] + 2.0])


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_fit_recovers_known_parameters(name, noise):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, 4000)
    fit = fit_curve(x, CURVES[name](x, *KNOWN[name]) + rng.normal(0, noise, 4000), name)
    assert fit.parameters == pytest.approx(KNOWN[name], rel=1e-6 if not noise else 0.15, abs=0.02 if noise else 0)
    assert fit.rmse == pytest.approx(noise, abs=0.003)
    assert fit.plcc > 0.99


@pytest.mark.parametrize("name", CURVES)
def test_scores_that_fall_are_mapped_as_well_as_those_that_rise(name):
    x = np.linspace(0, 10, 200)
    y = CURVES[name](x, *KNOWN[name])
    assert fit_curve(-x, y, name).rmse == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", CURVES)
def test_another_unit_of_the_scores_changes_nothing_after_the_fit(name):
    rng = np.random.default_rng(1)
    x = rng.uniform(1, 5, 300)
    y = CURVES[name](2.5 * x - 2, *KNOWN[name]) + rng.normal(0, 0.2, 300)
    fits = [fit_curve(scale * x + shift, y, name) for scale, shift in ((1, 0), (20, -3), (0.01, 100))]
    assert [fit.rmse for fit in fits] == pytest.approx([fits[0].rmse] * 3, rel=1e-4)


def test_after_the_fit_the_agreement_is_no_worse():
    rng = np.random.default_rng(2)
    x = rng.uniform(1, 5, 500)
    y = np.exp(x) + rng.normal(0, 5, 500)
    before = correlations(x, y)["plcc"]
    assert fit_curve(x, y, "logistic4").plcc > before + 0.02
    assert fit_curve(x, y, "logistic5").plcc > before + 0.02


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_fitted_says_why(name):
    assert "0 pairs" in fit_curve([], [], name).why
    assert fit_curve([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], name).parameters is None
    assert fit_curve([2.0] * 50, list(range(50)), name).why
    assert fit_curve(list(range(50)), [2.0] * 50, name).why


def test_an_unknown_curve_is_named():
    with pytest.raises(ValueError, match="logistic4"):
        fit_curve([1], [1], "cubic")
