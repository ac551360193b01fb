"""Labels that were published with fewer digits than the bounds they are mapped by."""

import importlib
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.koniq import MAPS, SHARES, raw_mos
from omniq_verl.data.digits import Rounded, half_unit, row_roundings, without_rounding_errors
from omniq_verl.evaluation.answers import per_image
from omniq_verl.preparation.cli import DataSet
from omniq_verl.preparation.deqa_labels import NORMALISED
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.readers import labelled, number, shares_of

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[2] / "data_prep").glob("*.py"))
unhurried = settings(deadline=None)  # a busy machine is no error


def all_maps() -> dict[str, LabelMap]:
    """Every map of every script, by name."""
    found = {f"koniq {name}": one for name, one in MAPS.items()} | {"deqa": NORMALISED}
    for script in SCRIPTS:
        for value in vars(importlib.import_module(f"data_prep.{script}")).values():
            if isinstance(value, DataSet):
                found |= {f"{script} {task}": one for task, one in value.tasks.items() if one is not None}
    return found


ALL_MAPS = all_maps()


def test_the_maps_are_those_of_all_readers_with_published_bounds():
    assert {name.split()[0] for name in ALL_MAPS} >= {"koniq", "agiqa3k", "spaq", "kadid", "ava", "deqa", "tid2013"}


@pytest.mark.parametrize(
    ("cell", "half"),
    [("4.31", 0.005), ("4.0", 0.05), ("4", 0.5), ("1.84e+03", 5.0), (" 4.3 ", 0.05), (4.31, 0.005), (4, 0.05)],
)
def test_half_a_unit_of_the_last_digit(cell, half):
    assert half_unit(cell) == pytest.approx(half) and number(cell).rounding == pytest.approx(half)


def written(value: float, form: str) -> str:
    return format(value, form)


FORMS = [f".{digits}{kind}" for kind in "fg" for digits in (1, 2, 3, 4, 6, 8, 12)]


@unhurried
@given(st.sampled_from(sorted(ALL_MAPS)), st.floats(0, 1), st.sampled_from(FORMS), st.booleans())
def test_a_label_within_the_bounds_is_within_them_however_it_is_rounded(name, share, form, as_json):
    labels = ALL_MAPS[name]
    cell = written(min(max(labels.low + share * (labels.high - labels.low), labels.low), labels.high), form)
    item = labelled("a.jpg", cell)
    assert item.fault is None
    low, high = labels.low, labels.high
    assert low <= labels.fields(item.raw_score, "technical", None)["raw_score"] <= high


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(ALL_MAPS))
def test_the_ends_of_every_scale_are_within_it_however_they_are_rounded(name, form):
    labels = ALL_MAPS[name]
    for end in (labels.low, labels.high):
        for cell in (written(end, form), json.loads(json.dumps(float(written(end, ".6g"))))):
            assert labels.fields(number(cell), "technical", None)["raw_score"] == pytest.approx(
                end, abs=number(cell).rounding
            )


@unhurried
@given(st.sampled_from(sorted(ALL_MAPS)), st.booleans(), st.integers(1, 8), st.floats(1.02, 1e6))
def test_a_label_further_out_than_its_digits_allow_is_rejected(name, above, digits, times):
    labels, half = ALL_MAPS[name], 0.5 * 10.0**-digits
    outside = labels.high + times * half if above else labels.low - times * half
    cell = f"{outside:.{digits}f}"
    gap = float(cell) - labels.high if above else labels.low - float(cell)
    if gap > max(half, 1e-9 * (labels.high - labels.low)) * (1 + 1e-6):
        with pytest.raises(ValueError, match="is outside"):
            labels.fields(number(cell), "technical", None)


@pytest.mark.parametrize(
    ("score", "low", "high"), [("6", 1, 5), ("0", 1, 5), ("10", 1, 5), ("5.1", 1, 5), ("100", 0, 88.3889), ("-1", 0, 1)]
)
def test_digits_excuse_no_label_of_another_scale(score, low, high):
    with pytest.raises(ValueError, match="is outside"):
        LabelMap(low, high, "ours").fields(number(score), "technical", None)


def test_an_error_shows_the_digits_that_differ():
    with pytest.raises(ValueError, match=r"the score 88\.3890001 is outside \[3\.91176, 88\.3889\]"):
        LabelMap(3.91176, 88.3889, "ours").fields(number("88.3890001"), "technical", None)


# Shares


@st.composite
def votes(draw: st.DrawFn) -> list[int]:
    counts = draw(st.lists(st.integers(0, 80), min_size=5, max_size=5))
    low, high = MAPS["raw"].low, MAPS["raw"].high
    mean = sum(rating * count for rating, count in enumerate(counts, 1)) / max(sum(counts), 1)
    return counts if low <= mean <= high else [10, 20, 30, 20, 10]


@unhurried
@given(votes(), st.sampled_from(FORMS), st.booleans())
def test_no_row_of_koniq_is_lost_to_rounding(counts, form, with_total):
    total = sum(counts)
    row = {name: written(count / total, form) for name, count in zip(SHARES, counts, strict=True)}
    if with_total:
        row["c_total"] = str(total)
    mean = raw_mos(row)
    true = sum(rating * count for rating, count in enumerate(counts, 1)) / total
    assert abs(mean - true) <= mean.rounding + 1e-9
    MAPS["raw"].fields(mean, "technical", None)
    if with_total and form in (".6f", ".6g", ".8f", ".12f"):
        assert mean == pytest.approx(true, abs=2e-9)


@pytest.mark.parametrize(
    "shares",
    [
        ["0.2000", "0.2000", "0.2000", "0.2000", "0.1900"],
        ["0.200000", "0.200000", "0.200000", "0.200000", "0.100000"],
        ["0", "0", "0", "0", "0"],
        ["1", "1", "0", "0", "0"],
        ["0.3", "0.3", "0.3", "0.3", "0.3"],
        ["-0.1", "0.3", "0.3", "0.3", "0.2"],
        ["nan", "0.3", "0.3", "0.3", "0.1"],
        ["", "0.3", "0.3", "0.3", "0.1"],
        [],
    ],
)
def test_what_is_no_shares_of_a_whole_is_none(shares):
    assert shares_of(shares) is None


def test_zeros_at_the_end_of_a_share_may_be_left_out():
    assert shares_of(["0.1", "0.2", "0.3", "0.388889", "0.011111"]) is not None
    assert row_roundings(["0.1", "0.388889", "0.0111111"]) == pytest.approx([5e-7, 5e-7, 5e-8])


def test_a_rounded_number_is_a_float_in_all_else():
    one = Rounded(4.5, 0.05)
    assert (one + 1, json.dumps(one), repr(one), one == 4.5, hash(one) == hash(4.5)) == (5.5, "4.5", "4.5", True, True)
    again = pickle.loads(pickle.dumps(one))
    assert (again, again.rounding) == (4.5, 0.05) and math.isfinite(again)


@given(st.lists(st.integers(100, 500), min_size=1, max_size=16), st.randoms())
def test_means_that_are_equal_by_hand_are_equal(cents, random):
    again = random.sample(cents, len(cents))
    means = [without_rounding_errors(np.sum([cent / 100 for cent in some]) / len(some)) for some in (cents, again)]
    assert means[0] == means[1] == pytest.approx(sum(cents) / len(cents) / 100, abs=1e-10)
    assert without_rounding_errors(np.sum([cents[0] / 100] * len(cents)) / len(cents)) == cents[0] / 100


def test_the_score_of_an_image_does_not_depend_on_the_order_of_its_answers():
    answers = {"a": [1.03] * 11, "b": [1.03] * 2, "c": [1.0, 1.06] * 3, "d": [1.06, 1.0] * 3}
    lines = [{"key": key, "score": score, "status": "ok"} for key, some in answers.items() for score in some]
    judged = pd.DataFrame(lines).assign(distortion=None, severity=None, level="bad")
    labels = {"target": 2.0, "scale_low": 1.0, "scale_high": 5.0, "task": "technical"}
    labels = pd.DataFrame([labels | {"class_target": None, "level_target": None}] * 4, index=list(answers))
    assert per_image(labels, judged).score.tolist() == [1.03] * 4
