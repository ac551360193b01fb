"""Validation in the field's own terms."""

import math

import pytest
from scipy import stats

from omniq_verl.rewards import Status
from omniq_verl.rewards.reward_function import STATUS_NUMBERS
from omniq_verl.trainer.validation import validation_metrics, with_lost

OK, NO_ANSWER = STATUS_NUMBERS[Status.OK], STATUS_NUMBERS[Status.NO_ANSWER]


def answers(*rows: tuple[float, float], class_right: float = math.nan) -> dict[str, list[float]]:
    """Metrics of (pred, target) pairs; a NaN prediction was rejected, and equal whole numbers have the right level."""
    return {
        "status": [NO_ANSWER if math.isnan(pred) else OK for pred, _ in rows],
        "pred": [pred for pred, _ in rows],
        "target": [target for _, target in rows],
        "task": [0.0] * len(rows),
        "level_right": [float(pred == target) for pred, target in rows],
        "level_asked": [1.0] * len(rows),
        "class_right": [class_right] * len(rows),
        "choice_right": [math.nan] * len(rows),
    }


def choices(*right: float) -> dict[str, list[float]]:
    """The choices of comparisons that were parsed: 1 for the better image, 0 for the other."""
    found = answers(*[(math.nan, math.nan)] * len(right))
    return found | {"status": [OK] * len(right), "choice_right": [*right], "level_asked": [0.0] * len(right)}


def joined(*parts: dict[str, list[float]]) -> dict[str, list[float]]:
    return {key: [value for part in parts for value in part[key]] for key in parts[0]}


def test_one_source_by_hand():
    found = validation_metrics(["koniq"] * 5, answers((1, 1), (2, 3), (3, 2), (4, 4), (math.nan, 5)))
    assert found["val-core/koniq/srcc"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert found["val-core/koniq/plcc"] == pytest.approx(0.8)
    assert found["val-core/koniq/mae"] == pytest.approx(0.5)  # of the four that were read
    assert found["val-core/koniq/level_accuracy"] == pytest.approx(0.4)  # the rejected one is wrong
    assert found["val-core/koniq/parse_failure"] == pytest.approx(0.2)
    assert found["val-aux/koniq/rejected/no_answer"] == pytest.approx(0.2)
    assert "val-aux/koniq/rejected/ok" not in found


def test_sources_are_apart_and_their_mean_is_of_sources_not_answers():
    pairs = [(1, 1), (2, 2), (3, 3), (4, 4)], [(1, 3), (2, 2), (3, 1)]
    found = validation_metrics(["a"] * 4 + ["b"] * 3, joined(answers(*pairs[0]), answers(*pairs[1])))
    assert found["val-core/a/srcc"] == pytest.approx(1.0)
    assert found["val-core/b/srcc"] == pytest.approx(-1.0)
    assert found["val-core/mean/srcc"] == pytest.approx(0.0)
    assert found["val-core/mean/mae"] == pytest.approx((0 + 4 / 3) / 2)


def test_it_agrees_with_scipy():
    pairs = [(1.5, 2.0), (3.2, 3.0), (2.2, 2.9), (4.9, 4.1), (2.2, 1.0)]
    found = validation_metrics(["a"] * 5, answers(*pairs))
    pred, target = zip(*pairs, strict=True)
    assert found["val-core/a/plcc"] == pytest.approx(stats.pearsonr(pred, target)[0])
    assert found["val-core/a/srcc"] == pytest.approx(stats.spearmanr(pred, target)[0])


@pytest.mark.parametrize(
    "pairs", [[(3, 1), (3, 2), (3, 3)], [(1, 2), (2, 1)], [(math.nan, 2)] * 4], ids=["constant", "two", "all rejected"]
)
def test_what_is_not_defined_is_left_out_and_said(pairs, caplog):
    found = validation_metrics(["a"] * len(pairs), answers(*pairs))
    assert not any("cc" in name.split("/")[-1].replace("accuracy", "") for name in found)
    assert "no correlation" in caplog.text
    assert all(math.isfinite(value) for value in found.values())


def test_scores_and_classes_in_one_source_are_judged_apart():
    mixed = joined(answers((1, 1), (2, 2), (3, 3)), answers((math.nan, math.nan), class_right=1.0))
    mixed["status"][-1] = OK
    found = validation_metrics(["a"] * 4, mixed)
    assert found["val-core/a/srcc"] == pytest.approx(1.0)
    assert found["val-core/a/class_accuracy"] == 1.0


def test_a_rollout_without_a_reward_counts_as_rejected():
    lost = {key: [*values, None] for key, values in answers((1, 1), (2, 2), (3, 3)).items()}
    found = validation_metrics(["a"] * 4, lost)
    assert found["val-core/a/parse_failure"] == 0.25
    assert found["val-core/a/level_accuracy"] == 0.75


def test_over_how_many_rows_and_answers_the_metrics_are_is_one_of_them():
    given = {key: [*values, None] for key, values in answers((1, 1), (2, 2), (3, 3), (math.nan, 2)).items()}
    given["status"] = [OK, OK, OK, NO_ANSWER, None]
    found = validation_metrics(["a"] * 5, given, ["x", "x", "y", "y", "z"])
    counts = {name: found[f"val-aux/a/{name}"] for name in ("rows", "answers", "scored", "unreadable", "lost")}
    assert counts == {"rows": 3.0, "answers": 5.0, "scored": 3.0, "unreadable": 1.0, "lost": 1.0}


def test_a_task_without_scores_has_accuracies_only():
    degradation = answers((math.nan, math.nan), (math.nan, math.nan), class_right=1.0)
    degradation["status"] = [OK, OK]
    degradation["level_right"] = [1.0, 0.0]
    found = validation_metrics(["dq"] * 2, degradation)
    assert found == {
        **{"val-aux/dq/answers": 2.0, "val-aux/dq/unreadable": 0.0, "val-aux/dq/lost": 0.0},
        "val-core/dq/parse_failure": 0.0,
        "val-core/dq/level_accuracy": 0.5,
        "val-core/dq/class_accuracy": 1.0,
        "val-core/mean/parse_failure": 0.0,
        "val-core/mean/level_accuracy": 0.5,
        "val-core/mean/class_accuracy": 1.0,
    }


def test_an_image_without_distortion_has_no_level_to_be_right():
    nulls = answers((math.nan, math.nan), class_right=1.0) | {"status": [OK], "level_asked": [0.0]}
    worn = answers((math.nan, math.nan), class_right=1.0) | {"status": [OK], "level_right": [1.0]}
    found = validation_metrics(["dq"] * 4, joined(nulls, nulls, nulls, worn))
    assert found["val-core/dq/level_accuracy"] == 1.0
    assert "val-core/dq/level_accuracy" not in validation_metrics(["dq"] * 2, joined(nulls, nulls))


def test_two_tasks_of_one_source_are_not_pooled():
    """Two clouds without a correlation of their own, one above the other, would have a high one together."""
    low = answers(*((pred, target) for pred in (1.0, 1.5) for target in (1.0, 1.5)))
    high = answers(*((pred, target) for pred in (4.0, 4.5) for target in (4.0, 4.5)))
    high["task"] = [2.0] * 4
    found = validation_metrics(
        ["agiqa3k"] * 8 + ["koniq"] * 4, joined(low, high, answers((1, 1), (2, 3), (3, 2), (4, 4)))
    )
    assert found["val-core/agiqa3k/technical/srcc"] == found["val-core/agiqa3k/alignment/srcc"] == pytest.approx(0.0)
    assert "val-core/agiqa3k/srcc" not in found and found["val-core/koniq/srcc"] == pytest.approx(0.8)
    assert found["val-core/mean/srcc"] == pytest.approx(0.8 / 3)


def test_a_lost_rollout_counts_for_each_task_of_its_source():
    both = joined(answers((1, 1), (2, 2), (3, 3)), answers((1, 1), (2, 2), (3, 3)) | {"task": [1.0] * 3})
    found = validation_metrics(["a"] * 7, {key: [*values, None] for key, values in both.items()})
    assert found["val-core/a/technical/parse_failure"] == found["val-core/a/aesthetic/parse_failure"] == 0.25


def test_comparisons_have_the_share_of_right_choices_and_no_level():
    found = validation_metrics(["pairs"] * 4, choices(1.0, 0.0, 1.0, 1.0) | {"status": [OK, NO_ANSWER, OK, OK]})
    assert found == {
        "val-core/pairs/parse_failure": 0.25,
        "val-core/pairs/choice_accuracy": 0.75,
        "val-aux/pairs/rejected/no_answer": 0.25,
        **{"val-aux/pairs/answers": 4.0, "val-aux/pairs/unreadable": 1.0, "val-aux/pairs/lost": 0.0},
        "val-core/mean/parse_failure": 0.25,
        "val-core/mean/choice_accuracy": 0.75,
    }


def test_a_lost_rollout_counts_as_a_wrong_class():
    named = answers(*[(math.nan, math.nan)] * 3, class_right=1.0)
    found = validation_metrics(["a"] * 4, {key: [*values, None] for key, values in named.items()})
    assert found["val-core/a/class_accuracy"] == 0.75


def test_a_comparison_without_a_reward_counts_as_wrong():
    lost = {key: [*values, None] for key, values in choices(1.0, 1.0, 1.0).items()}
    found = validation_metrics(["pairs"] * 4, lost)
    assert found["val-core/pairs/choice_accuracy"] == 0.75 and "val-core/pairs/level_accuracy" not in found


def test_scores_beside_comparisons_are_judged_without_them():
    both = joined(answers((1, 1), (2, 2), (3, 4)), choices(0.0, 1.0))
    found = validation_metrics(["a"] * 3 + ["pairs"] * 2, both)
    assert found["val-core/a/level_accuracy"] == found["val-core/mean/level_accuracy"] == pytest.approx(2 / 3)
    assert "val-core/a/choice_accuracy" not in found
    assert found["val-core/pairs/choice_accuracy"] == found["val-core/mean/choice_accuracy"] == 0.5
    of_one = validation_metrics(["a"] * 5, both)
    assert of_one["val-core/a/level_accuracy"] == pytest.approx(2 / 3)
    assert of_one["val-core/a/choice_accuracy"] == 0.5


def test_rollouts_that_failed_are_counted_although_verl_leaves_them_out():
    given = answers((1, 1), (2, 2), (3, 3))
    expected = {("a", "x"): 2, ("a", "y"): 2, ("b", "z"): 1}
    found = validation_metrics(*with_lost(["a"] * 3, given, ["x", "x", "y"], expected))
    assert {name: found[f"val-aux/a/{name}"] for name in ("rows", "answers", "scored", "lost")} == {
        **{"rows": 2.0, "answers": 4.0},
        **{"scored": 3.0, "lost": 1.0},
    }
    assert found["val-core/a/level_accuracy"] == found["val-core/a/parse_failure"] + 0.5 == 0.75
    assert found["val-aux/b/lost"] == found["val-aux/b/answers"] == 1.0  # all of it


def test_a_lost_rollout_belongs_to_the_task_of_its_row():
    both = joined(answers((1, 1), (2, 2), (3, 3)), answers((1, 1), (2, 2), (3, 3)) | {"task": [1.0] * 3})
    rows = ["x", "y", "z", "u", "v", "w"]
    expected = dict.fromkeys((("a", row) for row in rows), 1) | {("a", "x"): 2}
    found = validation_metrics(*with_lost(["a"] * 6, both, rows, expected))
    assert found["val-core/a/technical/parse_failure"] == 0.25 and found["val-core/a/aesthetic/parse_failure"] == 0.0


def test_without_failures_nothing_is_added():
    given = answers((1, 1), (2, 2))
    assert with_lost(["a", "a"], given, ["x", "y"], {("a", "x"): 1, ("a", "y"): 1}) == (["a", "a"], given, ["x", "y"])
    assert with_lost(["a", "a"], given, ["x", "y"], {}) == (["a", "a"], given, ["x", "y"])
