"""Every batch reward against its equation, as plain loops and by hand."""

import math

import numpy as np
import pytest
from batch_reward_builders import (
    given,
    mean,
    ordered_pair,
    reference,
    rollouts_from,
    soft_ranking,
    thurstone_pair,
    voted_pair,
)
from scipy import stats

from omniq_verl.rewards.batch import SHELF, BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.evoquality import evoquality
from omniq_verl.rewards.batch.length_penalty import length_penalty
from omniq_verl.rewards.batch.listwise import listwise
from omniq_verl.rewards.batch.pairwise_accuracy import pairwise_accuracy
from omniq_verl.rewards.batch.repetition_penalty import repetition_penalty
from omniq_verl.rewards.batch.soft_label import soft_label
from omniq_verl.rewards.batch.tatar import tatar
from omniq_verl.rewards.batch.together import together
from omniq_verl.rewards.batch.uncertain_gaussian import uncertain_gaussian
from omniq_verl.rewards.batch.visualquality_r1 import visualquality_r1
from omniq_verl.rewards.gaussian import gaussian_reward

IMAGES = [
    ([3.0, 4.0, None, 3.5], 4.2),
    ([2.0, 2.0, 2.5, 1.0], 1.5),
    ([3.0, 3.0, 3.0, 3.0], 3.0),
    ([5.0, None, 1.0, 2.0], 3.0),
]
RANKINGS = {
    visualquality_r1: thurstone_pair,
    evoquality: voted_pair,
    pairwise_accuracy: ordered_pair,
}


@pytest.mark.parametrize("function", RANKINGS, ids=lambda function: function.__name__)
def test_a_ranking_reward_is_its_equation(function):
    assert function(rollouts_from(IMAGES)) == pytest.approx(reference(IMAGES, RANKINGS[function]), abs=1e-12)


def test_two_images_by_hand():
    # Means 4 and 2, variances 1 and 0: z = (3 - 2) / 1 = 1 and (5 - 2) / 1 = 3; the first label is higher.
    found = visualquality_r1(rollouts_from([([3.0, 5.0], 4.0), ([2.0, 2.0], 2.0)]), gamma=1e-12)
    assert found[:2] == pytest.approx([math.sqrt(0.8413447461), math.sqrt(0.9986501020)], abs=1e-6)
    # Both answers of the second are 2 below the first's mean: Phi(-2), and the true preference is 0.
    assert found[2:] == pytest.approx([math.sqrt(1 - 0.0227501319)] * 2, abs=1e-6)
    found = visualquality_r1(rollouts_from([([3.0], 4.0), ([3.0], 4.0)]))
    assert found == pytest.approx([1.0, 1.0])  # the same label, the same score: p = 0.5 on both sides


LIST = [([1.0], 1.0), ([2.0, 4.0], 2.0), ([3.0], 3.0)]
BY_HAND = {
    # 3 is right about 2 and wrong about 4, and right about 1. The last two images have the same label.
    "pairwise_accuracy": ({}, [([3.0, 5.0], 4.0), ([2.0, 4.0], 2.0), ([1.0], 2.0)], [0.75, 1.0, 1.0, 0.5, 1.0]),
    # Three of four votes are for the first image. Means 3 and 2, variances 1: z = 0 and 2 / sqrt(2), Phi = 0.9213504.
    "evoquality": ({}, [([2.0, 4.0], 1.0), ([1.0, 3.0], 5.0)], [0.7071068, 0.9598700, 0.9598700, 0.7071068]),
    # (1, 3, 3), (1, 2, 3), (1, 4, 3), (1, 3, 3) against (1, 2, 3): r = sqrt(3) / 2, 1, 2 / sqrt(28 / 3), sqrt(3) / 2.
    "plcc": ({"kind": "plcc"}, LIST, [0.9330127, 1.0, 0.8273268, 0.9330127]),
    # The same as ranks: (1, 2.5, 2.5), (1, 2, 3), (1, 3, 2).
    "srcc": ({"kind": "srcc"}, LIST, [0.9330127, 1.0, 0.75, 0.9330127]),
    # Undecided on both sides: the cross-entropy is ln 2, its bound -ln 1e-6.
    "tatar": ({"ranked_tasks": ["technical"]}, [([3.0], 3.0), ([3.0], 3.0)], [1 - math.log(2) / 13.8155106] * 2),
    # 1 off where the raters' standard deviation is 0.5: exp(-2).
    "uncertain_gaussian": ({}, [([3.0, 4.0], 3.0)], [1.0, 0.1353353]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_few_answers_by_hand(name):
    settings, images, expected = BY_HAND[name]
    chosen = BatchRewardSettings("listwise" if name in ("plcc", "srcc") else name, settings)
    assert batch_reward(rollouts_from(images, stds=[0.5] * 3), chosen) == pytest.approx(expected, abs=1e-5)


def test_tatar_ranks_answers_where_the_task_says_so_and_is_a_gaussian_elsewhere():
    ranked = tatar(rollouts_from(IMAGES, tasks=["aesthetic"] * 4))
    for wording in ("code_aesthetic", "aesthetic_direct"):
        np.testing.assert_array_equal(tatar(rollouts_from(IMAGES, tasks=[wording] * 4)), ranked)
    assert ranked == pytest.approx(soft_ranking(IMAGES), abs=1e-12)
    assert len(set(ranked.round(3))) > 8 and ranked[2] == 0.0
    close = tatar(rollouts_from(IMAGES), sigma=0.6)
    plain = [0.0 if q is None else gaussian_reward(q, label, 0.6) for answers, label in IMAGES for q in answers]
    assert close == pytest.approx(plain, abs=1e-12)
    mixed = tatar(rollouts_from(IMAGES, tasks=["technical", "aesthetic", "aesthetic", "technical"]))
    assert mixed[4:12] == pytest.approx(soft_ranking(IMAGES[1:3]), abs=1e-12)
    with pytest.raises(ValueError, match=r"ranked_tasks is 'aesthetic', not a list .* Fix: write \[aesthetic\]"):
        tatar(rollouts_from(IMAGES), ranked_tasks="aesthetic")


def test_evoquality_reads_no_label():
    without = rollouts_from([(answers, math.nan) for answers, _ in IMAGES])
    assert evoquality(without) == pytest.approx(evoquality(rollouts_from(IMAGES)), abs=0)
    # Three of four pairs of answers prefer the first image, whatever the labels say: its better answer earns more.
    found = evoquality(rollouts_from([([2.0, 4.0], 1.0), ([1.0, 3.0], 5.0)]))
    assert found[1] > found[0] and found[2] > found[3]


@pytest.mark.parametrize("kind", ["plcc", "srcc"])
def test_the_listwise_reward_is_the_correlation_with_one_answer_in_the_place_of_its_mean(kind):
    measure = stats.pearsonr if kind == "plcc" else stats.spearmanr
    labels, means = [label for _, label in IMAGES], [mean(given(answers)) for answers, _ in IMAGES]
    expected = []
    for number, (answers, _) in enumerate(IMAGES):
        for score in answers:
            scores = [*means[:number], score, *means[number + 1 :]]
            expected.append(0.0 if score is None else (1 + measure(scores, labels).statistic) / 2)
    assert listwise(rollouts_from(IMAGES), kind) == pytest.approx(expected, abs=1e-9)


def test_a_correlation_that_is_not_defined_teaches_nothing():
    assert listwise(rollouts_from(IMAGES[:2])).tolist() == [0.0] * 8
    assert listwise(rollouts_from([(answers, 3.0) for answers, _ in IMAGES])).tolist() == [0.0] * 16
    flat = listwise(rollouts_from([([0.1 + 0.2], 1.0), ([0.1 + 0.2], 2.0), ([0.1 + 0.2], 4.0)]))
    assert flat.tolist() == [0.5] * 3  # equal scores: r counts as 0


@pytest.mark.parametrize("kind", ["plcc", "srcc"])
def test_means_of_equal_scores_are_equal_however_many_there_are(kind):
    # As binary numbers, the mean of seven 3.3 is not that of six; both images of a tie share their rank.
    flat = [([3.3] * 7, 1.0), ([3.3] * 6 + [None], 2.0), ([3.3] * 5 + [None] * 2, 4.0)]
    assert set(listwise(rollouts_from(flat), kind).tolist()) == {0.0, 0.5}
    answers = [3.1, 3.3, 3.2, 3.0, 2.9, 3.6]
    first, second = ([(some, 1.0), ([3.2] * 6, 2.0), ([4.0] * 6, 4.0)] for some in (answers, answers[::-1]))
    assert sum(listwise(rollouts_from(first), kind)) == pytest.approx(sum(listwise(rollouts_from(second), kind)))


def test_a_soft_label_is_the_mass_of_the_level():
    images, std = [([1.2, 2.0, 3.5, 4.9], 3.3)], 0.7
    cuts = [-math.inf, 1.5, 2.5, 3.5, 4.5, math.inf]
    masses = np.diff([stats.norm.cdf(cut, 3.3, std) for cut in cuts])
    expected = [masses[level] / masses.max() for level in (0, 1, 3, 4)]  # 3.5 begins the fourth level
    assert soft_label(rollouts_from(images, stds=[std])) == pytest.approx(expected, abs=1e-12)
    assert soft_label(rollouts_from(images), std=std) == pytest.approx(expected, abs=1e-12)
    assert soft_label(rollouts_from([([3.0, 4.9], 3.0)], stds=[0.0])) == pytest.approx([1.0, 0.0])
    with pytest.raises(
        ValueError, match=r"image0 of koniq has no standard deviation .* Fix: set reward.batch_settings"
    ):
        soft_label(rollouts_from(images))


def test_the_width_of_the_gaussian_is_the_raters():
    found = uncertain_gaussian(rollouts_from(IMAGES, stds=[0.5, 0.01, 9.0, math.nan]), factor=2.0, most=1.5)
    widths = [1.0, 0.2, 1.5, 0.8]
    plain = [
        0.0 if q is None else gaussian_reward(q, label, width)
        for (answers, label), width in zip(IMAGES, widths, strict=True)
        for q in answers
    ]
    assert found == pytest.approx(plain, abs=1e-12)
    with pytest.raises(ValueError, match=r"least is 3\.0 and most is 2\.0"):
        uncertain_gaussian(rollouts_from(IMAGES), least=3.0)


def test_long_and_repeating_answers_are_penalised():
    lengths = rollouts_from([([3.0] * 5, 3.0)], tokens=[1, 768, 832, 1024, 5000])
    assert length_penalty(lengths).tolist() == [0.0, 0.0, -0.25, -1.0, -1.0]
    texts = ["a b c d", "a b c A B c", "sharp", "so so so so so"]
    # In "a b c a b c" four trigrams are three distinct ones; "so" three times is the same each of three times.
    found = repetition_penalty(rollouts_from([([3.0] * 4, 3.0)], texts=texts))
    assert found == pytest.approx([0.0, -1 / 4, 0.0, -2 / 3])
    assert repetition_penalty(rollouts_from([([3.0] * 4, 3.0)], texts=texts), size=1)[3] == pytest.approx(-4 / 5)


def test_several_rewards_add_up():
    rollouts = rollouts_from(IMAGES, tokens=[900] * 16)
    parts = [
        {"function": "visualquality_r1"},
        {"function": "length_penalty", "weight": 0.5, "settings": {"limit": 800}},
    ]
    expected = visualquality_r1(rollouts) + 0.5 * length_penalty(rollouts, limit=800)
    assert together(rollouts, parts) == pytest.approx(expected, abs=0)
    for wrong in ([], "visualquality_r1", [{"weight": 1.0}], [{"function": "listwise", "wait": 1}]):
        with pytest.raises(ValueError, match=r"Fix: list functions"):
            together(rollouts, wrong)


def test_nothing_is_compared_across_data_sources_tasks_and_scales():
    images, sources = IMAGES * 2, ["koniq"] * 4 + ["spaq"] * 4
    for name, settings in SETTINGS.items():
        alone = batch_reward(rollouts_from(IMAGES, stds=[0.5] * 4), BatchRewardSettings(name, settings))
        moved = [([None if q is None else 6 - q for q in answers], label) for answers, label in images[4:]]
        both = rollouts_from(images[:4] + moved, sources=sources, stds=[0.5] * 8)
        assert batch_reward(both, BatchRewardSettings(name, settings))[:16] == pytest.approx(alone, abs=1e-12), name


SETTINGS = {name: {} for name in SHELF} | {"together": {"parts": [{"function": "listwise"}]}}


@pytest.mark.parametrize("name", SHELF)
def test_an_image_alone_and_answers_without_a_score_earn_nothing_and_break_nothing(name):
    chosen = BatchRewardSettings(name, SETTINGS[name])
    for images in ([([3.0, None], 3.0)], [([None, None], 3.0), ([None], 2.0)]):
        found = batch_reward(rollouts_from(images, stds=[0.5] * len(images)), chosen)
        unread = np.isnan(rollouts_from(images).pred)
        assert np.all(found[unread] == 0.0) and np.all(np.abs(found) <= 1.0)


EDGES = {
    "one answer to an image": [([3.0], 2.0), ([4.0], 3.0), ([1.0], 1.0)],
    "equal labels": [([3.0, 4.0], 3.0), ([1.0, 2.0], 3.0), ([5.0, 2.0], 3.0)],
    "equal scores": [([3.0, 3.0], 1.0), ([3.0, 3.0], 2.0), ([3.0, 3.0], 5.0)],
    "two images": [([3.0, 4.0], 3.0), ([1.0, 2.0], 1.0)],
}
"""Steps with nothing to compare, or without any spread."""
HALF = math.sqrt(0.5)  # fidelity of a preference that is undecided on one side
OF_EDGES = {
    # A lone answer has the variance 0: Phi is a step, and every order of these scores is right.
    "visualquality_r1": [[1, 1, 1], None, [HALF] * 6, None],
    "evoquality": [[1, 1, 1], None, [1] * 6, None],  # no vote decides between equal scores: p is 0.5 on both sides
    "pairwise_accuracy": [[1, 1, 1], [0] * 6, [0.5] * 6, [1] * 4],
    "listwise": [None, [0] * 6, [0.5] * 6, [0] * 4],  # two points always correlate
    # Raters who all agree: s is ``least``, 0.2, and a score that is 1 off earns exp(-12.5).
    "uncertain_gaussian": [[math.exp(-12.5), math.exp(-12.5), 1], None, [0, 0] + [math.exp(-12.5)] * 2 + [0, 0], None],
}


@pytest.mark.parametrize("name", SHELF)
def test_a_step_without_spread_has_a_defined_reward(name):
    for number, images in enumerate(EDGES.values()):
        found = batch_reward(rollouts_from(images, stds=[0.0] * 3), BatchRewardSettings(name, SETTINGS[name]))
        assert np.all(np.abs(found) <= 1.0)
        expected = OF_EDGES.get(name, [None] * len(EDGES))[number]
        if expected is not None:
            assert found == pytest.approx(expected, abs=1e-5), list(EDGES)[number]


def test_a_standard_deviation_that_is_no_number_is_none():
    images = [([3.0, 4.0], 3.0), ([1.0, 2.0], 1.0)]
    for wrong in (math.nan, math.inf, -math.inf, -0.5):
        rollouts = rollouts_from(images, stds=[wrong, 0.5])
        assert uncertain_gaussian(rollouts)[1] == pytest.approx(gaussian_reward(4.0, 3.0, 0.8))
        assert soft_label(rollouts, std=0.7) == pytest.approx(soft_label(rollouts_from(images, stds=[0.7, 0.5])))
        with pytest.raises(ValueError, match=r"image0 of koniq has no standard deviation"):
            soft_label(rollouts)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("visualquality_r1", {"gamma": 0.0}, "gamma must be a positive number, got 0.0"),
        ("evoquality", {"gamma": math.nan}, "gamma must be a positive number, got nan"),
        ("tatar", {"sigma": True}, "sigma must be a positive number, got True"),
        ("tatar", {"gamma": 0.5}, "gamma must be below 0.5"),
        ("listwise", {"kind": "krcc"}, "kind is 'krcc'"),
        ("pairwise_accuracy", {"tie": 1.5}, "tie must be at most 1"),
        ("soft_label", {"levels": 2.5}, "levels must be a whole number from 2"),
        ("soft_label", {"levels": 1}, "levels must be a whole number from 2, got 1"),
        ("uncertain_gaussian", {"factor": "2"}, "factor must be a positive number"),
        ("length_penalty", {"buffer": 0}, "buffer must be a whole number from 1"),
        ("repetition_penalty", {"size": -1}, "size must be a whole number from 1"),
    ],
)
def test_a_setting_outside_of_its_range_is_named_with_its_fix(name, settings, said):
    with pytest.raises(ValueError, match=rf"reward.batch_reward={name} fails .*{said}.*Fix: "):
        batch_reward(rollouts_from(IMAGES, stds=[0.5] * 4), BatchRewardSettings(name, settings))
