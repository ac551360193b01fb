"""The alarm for reward hacking: against plain references, and its rate of false alarms by simulation."""

import itertools
import math
import time

import numpy as np
import pytest

from omniq_verl.adapters.drift_alarm import DriftAlarm, rising, rising_by_parts


def ascents(values):
    return sum(values[i] < values[j] for i, j in itertools.combinations(range(len(values)), 2))


@pytest.mark.parametrize("seed", range(6))
def test_the_p_value_is_the_share_of_all_orders_that_rise_as_much(seed):
    values = np.random.default_rng(seed).permutation(6).tolist()
    every = [ascents(order) for order in itertools.permutations(values)]
    assert rising(values).p_value == pytest.approx(np.mean(np.array(every) >= ascents(values)), abs=1e-15)


def test_without_ties_it_is_scipys_exact_test():
    from scipy.stats import kendalltau

    values = np.random.default_rng(3).normal(size=25) + 0.05 * np.arange(25)
    found = kendalltau(np.arange(25), values, alternative="greater", method="exact")
    assert rising(values.tolist()).tau == pytest.approx(found.statistic, abs=1e-12)
    assert rising(values.tolist()).p_value == pytest.approx(found.pvalue, rel=1e-9)


def test_equal_values_never_make_a_rise_more_likely():
    values = [0.1, 0.2, 0.2, 0.3, 0.3, 0.4]
    ways = [rising(np.add(values, np.multiply(1e-6, order)).tolist()) for order in itertools.permutations(range(6))]
    assert rising(values).p_value == pytest.approx(max(way.p_value for way in ways), abs=1e-15)
    assert rising([1.0] * 8).p_value == 1.0


def alarms(level: float, runs: int, steps: int, rise: float, window: int = 10) -> float:
    """Share of runs with an alarm; the judge is noise, the reward noise with a slope."""
    draws = np.random.default_rng(11).normal(size=(runs, 2, steps))
    count = 0
    for reward, judge in draws:
        alarm = DriftAlarm(window, level, correlated=False)
        slope = rise * np.arange(steps)
        count += any(alarm.add(*pair) is not None for pair in zip(reward + slope, judge, strict=True))
    return count / runs


def test_noise_raises_false_alarms_at_most_at_the_stated_rate():
    runs, level = 1500, 0.2
    error = math.sqrt(level * (1 - level) / runs)
    worst = alarms(level, runs, 40, rise=50.0)  # the reward rises for certain; only the judge's noise can save the test
    used = level * sum(1 / (k * (k + 1)) for k in range(1, 5))
    assert worst <= level + 3 * error
    assert used / 2 < worst  # the bound is not met by never raising an alarm
    assert alarms(level, runs, 40, rise=0.0) <= level**2


def test_a_judge_that_falls_while_the_reward_rises_is_reported_with_its_steps():
    noise = np.random.default_rng(0).normal(scale=0.02, size=(2, 60))
    steps = np.arange(60)
    reward = 0.3 + 0.01 * steps + noise[0]
    judge = 0.6 - 0.01 * np.maximum(steps - 20, 0) + noise[1]
    alarm = DriftAlarm(window=20, level=0.01, correlated=False)
    found = [one for pair in zip(reward, judge, strict=True) if (one := alarm.add(*pair))]
    assert [(one.first, one.last) for one in found] == [(20, 39), (40, 59)]
    assert all(max(one.reward.p_value, one.judge.p_value) <= one.level for one in found)
    assert [one.level for one in found] == pytest.approx([0.01 / 6, 0.01 / 12])
    assert str(found[0]).startswith("steps 20 to 39: the reward rises (tau 0.")
    together = DriftAlarm(window=20, level=0.01, correlated=False)
    assert not any(together.add(value, value) for value in reward)


def test_wrong_values_and_settings_are_rejected():
    alarm = DriftAlarm(window=8, correlated=False)
    with pytest.raises(ValueError, match=r"the step 0 has reward nan and judge 1\.0\. Fix"):
        alarm.add(float("nan"), 1.0)
    assert [alarm.add(step, -step) is not None for step in range(8)] == [False] * 7 + [True]
    for settings in ({"window": 7, "correlated": False}, {"window": 14}, {"level": 0.0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="Fix: use"):
            DriftAlarm(**settings)


def plain_p_value(values: np.ndarray, parts: int) -> float:
    """The t-test on the slopes of the parts, by numpy and scipy."""
    from scipy.stats import ttest_1samp

    length = len(values) // parts
    cut = np.asarray(values)[len(values) - parts * length :].reshape(parts, length)
    slopes = np.polyfit(np.arange(length), cut.T, 1)[0]
    return ttest_1samp(slopes, 0, alternative="greater").pvalue


@pytest.mark.parametrize(("number", "parts"), [(40, 5), (43, 5), (30, 4)])
def test_the_test_by_parts_is_the_t_test_of_their_slopes(number, parts):
    values = np.random.default_rng(number).normal(size=number).cumsum() + 0.2 * np.arange(number)
    found = rising_by_parts(values.tolist(), parts)
    assert found.p_value == pytest.approx(plain_p_value(values, parts), rel=1e-9)
    assert found.tau == rising(values.tolist()).tau
    assert rising_by_parts([2.0] * 15).p_value == 1.0
    assert rising_by_parts([float(step) for step in range(15)]).p_value < 1e-12


def autocorrelated(runs: int, steps: int, memory: float, seed: int = 5) -> np.ndarray:
    """Normal AR(1) curves from their stationary distribution; with a memory of 1, random walks."""
    noise = np.random.default_rng(seed).normal(size=(runs, steps))
    curves = noise.copy()
    if memory < 1:
        curves[:, 0] /= math.sqrt(1 - memory**2)
    for step in range(1, steps):
        curves[:, step] = memory * curves[:, step - 1] + noise[:, step]
    return curves


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_curves_that_wander_raise_false_alarms_at_most_at_the_stated_rate(memory):
    runs, steps, level = 1000, 80, 0.2
    count = 0
    for judge in autocorrelated(runs, steps, memory):
        alarm = DriftAlarm(window=20, level=level)
        # The reward rises for certain; only the judge's noise can cause an alarm or prevent it.
        count += any(alarm.add(*pair) is not None for pair in enumerate(judge.tolist()))
    error = math.sqrt(level * (1 - level) / runs)
    assert count / runs <= level + 3 * error
    if memory in (0.0, 1.0):  # here the bound is nearly reached, so that the test has power
        assert count / runs > level / 2


def test_the_test_for_independent_steps_does_not_hold_its_level_for_curves_that_wander():
    """Why it is not the default."""
    found = [rising(curve.tolist()).p_value <= 0.01 for curve in autocorrelated(400, 20, 0.9)]
    assert np.mean(found) > 0.1


def test_a_large_drift_is_found_in_curves_that_wander():
    noise = autocorrelated(400, 40, 0.5)
    curves = np.stack([noise[:200] + 0.5 * np.arange(40), noise[200:] - 0.5 * np.arange(40)], 1)
    alarms = [[DriftAlarm(level=0.05)] for _ in curves]
    found = [any(alarm.add(*pair) for pair in curve.T.tolist()) for (alarm,), curve in zip(alarms, curves, strict=True)]
    assert np.mean(found) > 0.5


@pytest.mark.slow
def test_a_long_window_is_tested_within_seconds():
    began = time.monotonic()
    assert rising(list(range(200))).p_value < 1e-300 and rising(list(range(200, 0, -1))).p_value == 1
    assert time.monotonic() - began < 20  # 43 s where each count was a sum of its own
