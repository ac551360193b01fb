"""What holds for every batch reward, whatever the rollouts are."""

import dataclasses
import math

import numpy as np
import pytest
from batch_reward_builders import rollouts_from
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.rewards.batch import SHELF, BatchRewardSettings, Rollouts, batch_reward

SETTINGS = {name: {} for name in SHELF} | {
    "listwise": {"kind": "srcc"},
    "together": {"parts": [{"function": "visualquality_r1"}, {"function": "length_penalty", "settings": {"limit": 8}}]},
}
CHOSEN = {name: BatchRewardSettings(name, values) for name, values in SETTINGS.items()}
BY_LABEL_ORDER = ("visualquality_r1", "evoquality", "pairwise_accuracy", "listwise")
"""Rewards that look at the order of the labels alone, or at none."""
PENALTIES = ("length_penalty", "repetition_penalty", "together")
UNLABELLED = ("length_penalty", "repetition_penalty", "evoquality")
"""Rewards that read no label."""

SCORES = st.one_of(st.none(), st.sampled_from([1.0, 1.5, 2.0, 2.75, 3.0, 3.1, 4.0, 4.6, 5.0]))
LABELS = st.sampled_from([1.0, 1.2, 2.0, 2.5, 3.0, 3.7, 4.0, 4.9, 5.0])
IMAGES = st.lists(st.tuples(st.lists(SCORES, min_size=1, max_size=5), LABELS), min_size=1, max_size=7)


@st.composite
def drawn(draw) -> Rollouts:
    images = draw(IMAGES)
    count = sum(len(answers) for answers, _ in images)
    rollouts = rollouts_from(
        images,
        sources=[draw(st.sampled_from(["koniq", "spaq"])) for _ in images],
        tasks=[draw(st.sampled_from(["technical", "aesthetic"])) for _ in images],
        stds=[draw(st.sampled_from([0.0, 0.3, 0.9])) for _ in images],
        texts=[draw(st.sampled_from(["", "a b c", "a b a b a b a b", "sharp"])) for _ in range(count)],
        tokens=[draw(st.integers(1, 20)) for _ in range(count)],
    )
    return rollouts


@pytest.mark.parametrize("name", SHELF)
@settings(max_examples=25, deadline=None)
@given(rollouts=drawn(), seed=st.integers(0, 2**16))
def test_neither_the_order_of_the_rollouts_nor_the_numbers_of_the_groups_matter(name, rollouts, seed):
    found = batch_reward(rollouts, CHOSEN[name])
    order = np.random.default_rng(seed).permutation(len(rollouts))
    assert batch_reward(rollouts.take(order), CHOSEN[name]) == pytest.approx(found[order], abs=1e-9)
    renamed = dataclasses.replace(rollouts, groups=1000 - 7 * rollouts.groups)
    assert batch_reward(renamed, CHOSEN[name]) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("name", SHELF)
@settings(max_examples=25, deadline=None)
@given(rollouts=drawn())
def test_an_answer_that_cannot_be_read_is_never_better_than_one_that_can(name, rollouts):
    found, unread = batch_reward(rollouts, CHOSEN[name]), np.isnan(rollouts.pred)
    if name in PENALTIES:
        assert np.all((found >= -1) & (found <= 1))
    else:
        assert np.all((found >= 0) & (found <= 1 + 1e-12)) and not found[unread].any()


@pytest.mark.parametrize("name", SHELF)
@settings(max_examples=25, deadline=None)
@given(rollouts=drawn(), bad=st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=3))
def test_a_label_that_is_no_number_earns_nothing_and_changes_no_other_reward(name, rollouts, bad):
    target = rollouts.target.copy()
    for group, label in enumerate(bad):
        target[rollouts.groups == group] = label
    found = batch_reward(dataclasses.replace(rollouts, target=target), CHOSEN[name])
    if name in UNLABELLED:
        assert np.array_equal(found, batch_reward(rollouts, CHOSEN[name]))
        return
    labelled = np.flatnonzero(np.isfinite(target))
    assert found[labelled] == pytest.approx(batch_reward(rollouts.take(labelled), CHOSEN[name]), abs=1e-12)
    if name not in PENALTIES:
        assert not found[~np.isfinite(target)].any()


@pytest.mark.parametrize("name", SHELF)
@settings(max_examples=25, deadline=None)
@given(rollouts=drawn(), score=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_answers_without_a_score_change_no_other_reward(name, rollouts, score):
    pred = rollouts.pred.copy()
    pred[::3] = score
    found = batch_reward(dataclasses.replace(rollouts, pred=pred), CHOSEN[name])
    read = np.flatnonzero(np.isfinite(pred))
    assert found[read] == pytest.approx(batch_reward(rollouts.take(read), CHOSEN[name]), abs=1e-12)
    if name not in PENALTIES:
        assert not found[~np.isfinite(pred)].any()


@pytest.mark.parametrize("name", BY_LABEL_ORDER)
@settings(max_examples=25, deadline=None)
@given(rollouts=drawn())
def test_a_ranking_reward_does_not_change_under_monotone_maps_of_the_labels(name, rollouts):
    found = batch_reward(rollouts, CHOSEN[name])
    for bent in (lambda y: 1 + 4 * ((y - 1) / 4) ** 3, lambda y: np.exp(y) / 30, lambda y: 100 * y - 40):
        moved = dataclasses.replace(rollouts, target=bent(rollouts.target))
        assert batch_reward(moved, CHOSEN[name]) == pytest.approx(found, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(rollouts=drawn())
def test_turning_scores_and_labels_round_changes_no_ranking(rollouts):
    turned = dataclasses.replace(rollouts, pred=6 - rollouts.pred, target=6 - rollouts.target)
    for name in ("visualquality_r1", "pairwise_accuracy", "listwise", "evoquality", "tatar"):
        assert batch_reward(turned, CHOSEN[name]) == pytest.approx(batch_reward(rollouts, CHOSEN[name]), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(rollouts=drawn(), factor=st.sampled_from([0.5, 2.0, 8.0]), shift=st.sampled_from([-2.0, 0.25, 3.0]))
def test_plcc_is_the_same_on_another_scale(rollouts, factor, shift):
    plcc = BatchRewardSettings("listwise", {"kind": "plcc"})
    moved = dataclasses.replace(rollouts, pred=factor * rollouts.pred + shift)
    assert batch_reward(moved, plcc) == pytest.approx(batch_reward(rollouts, plcc), abs=1e-9)


@pytest.mark.parametrize("name", ["visualquality_r1", "pairwise_accuracy", "listwise", "tatar", "evoquality"])
def test_a_score_that_orders_its_image_rightly_earns_more(name):
    """The middle image of five, answered rightly, too low and too high: a reward that cannot tell them is useless."""
    others = [([1.0, 1.1], 1.0), ([2.0, 2.1], 2.0), ([4.0, 4.1], 4.0), ([5.0, 4.9], 5.0)]
    images = [*others[:2], ([3.0, 1.5, 4.5, 2.9], 3.0), *others[2:]]
    tasks = ["aesthetic"] * 5
    right, low, high, near = batch_reward(rollouts_from(images, tasks=tasks), CHOSEN[name])[4:8]
    assert min(right, near) > max(low, high) and not math.isclose(right, low)
