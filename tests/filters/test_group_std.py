"""The group-std filter's mask and its settings."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.filters import group_std_mask
from omniq_verl.filters.settings import FilterSettings

unhurried = settings(deadline=None)


def plain_mask(rewards: list[float], groups: list[str], tau: float) -> list[bool]:
    """The rule of the paper, group by group."""
    members = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        members[group].append(reward)
    stds = {}
    for group, values in members.items():
        mean = math.fsum(values) / len(values)
        stds[group] = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [stds[group] > tau for group in groups]


@pytest.mark.parametrize(
    ("rewards", "tau", "kept", "reason"),
    [
        ([0.0, 1.0], 0.499, True, "the deviation of 0 and 1 is 1/2"),
        ([0.0, 1.0], 0.5, False, "exactly tau is dropped"),
        ([0.0, 0.0, 1.0, 1.0], 0.499, True, "divided by n, not by n - 1: that would give 0.577"),
        ([0.0, 0.0, 1.0, 1.0], 0.55, False, "likewise"),
        ([0.3] * 16, 0.0, False, "equal rewards have no spread, whatever their mean rounds to"),
        ([0.1] * 3, 0.0, False, "likewise"),
        ([0.7], 0.0, False, "a group of one"),
        ([0.5, 0.5008], 0.001, False, "0.0004 is below the paper's tau"),
        ([0.5, 0.504], 0.001, True, "0.002 is above it"),
    ],
)
def test_one_group(rewards, tau, kept, reason):
    assert group_std_mask(rewards, ["g"] * len(rewards), tau).tolist() == [kept] * len(rewards), reason


def test_groups_are_judged_apart_and_may_be_interleaved():
    rewards = [0.0, 0.5, 1.0, 0.5, 0.9]
    assert group_std_mask(rewards, ["a", "b", "a", "b", "c"]).tolist() == [True, False, True, False, False]


def test_the_default_tau_is_the_papers():
    assert group_std_mask([0.0, 0.0019, 0.0, 0.0021], [1, 1, 2, 2]).tolist() == [False, False, True, True]


def test_single_precision_rewards_are_judged_in_double():
    # In float32 the squares of such deviations would vanish beside 1.
    rewards = np.array([1.0, 1.0 + 2**-20], dtype=np.float32)
    assert group_std_mask(rewards, [0, 0], tau=2**-22).all()


def test_nothing_gives_nothing():
    assert group_std_mask([], []).shape == (0,)


@pytest.mark.parametrize(
    ("rewards", "groups", "message"),
    [
        ([1.0, 2.0], ["a"], "same length"),
        ([[1.0], [2.0]], ["a", "a"], "same length"),
        ([1.0, math.nan], ["a", "a"], "finite"),
        ([1.0, math.inf], ["a", "a"], "finite"),
    ],
)
def test_input_that_cannot_be_judged_is_rejected(rewards, groups, message):
    with pytest.raises(ValueError, match=message):
        group_std_mask(rewards, groups)


GROUPED = st.lists(st.tuples(st.integers(0, 100), st.sampled_from("abcd")), min_size=1, max_size=40)


@unhurried
@given(GROUPED, st.sampled_from([0.0005, 0.0505, 0.2503]))
def test_the_mask_is_that_of_the_plain_rule(pairs, tau):
    rewards, groups = [number / 100 for number, _ in pairs], [group for _, group in pairs]
    assert group_std_mask(rewards, groups, tau).tolist() == plain_mask(rewards, groups, tau)


@unhurried
@given(GROUPED, st.randoms())
def test_the_order_of_the_responses_does_not_matter(pairs, random):
    order = list(range(len(pairs)))
    random.shuffle(order)
    rewards, groups = np.array([number / 100 for number, _ in pairs]), np.array([group for _, group in pairs])
    assert (group_std_mask(rewards[order], groups[order]) == group_std_mask(rewards, groups)[order]).all()


@pytest.mark.parametrize(
    "wrong", [{"mode": "off"}, {"mode": False}, {"tau": -0.1}, {"max_refills": -1}, {"poll_interval": 0}]
)
def test_settings_outside_of_their_range_are_rejected(wrong):
    with pytest.raises(ValueError):
        FilterSettings(**wrong)


def test_an_unknown_setting_is_rejected():
    with pytest.raises(TypeError, match="rho"):
        FilterSettings(rho=0.2)
