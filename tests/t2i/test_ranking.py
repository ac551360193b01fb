"""The best of several images: by hand, against a plain reference, with ties and missing scores."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniq_verl.t2i.ranking import choose_in_order, choose_weighted

NAN = math.nan
SCORES = {"alignment": [3.0, 4.0, 4.0, NAN, 2.0], "aesthetic": [5.0, 1.0, 3.0, 5.0, None]}
score = st.one_of(st.none(), st.just(NAN), st.integers(10, 50).map(lambda number: number / 10))


@pytest.mark.parametrize(
    ("weights", "best", "ranking"),
    [
        # Means of both: 4.0, 2.5, 3.5; the last two lack one.
        (None, 0, (0, 2, 1)),
        ({"alignment": 1}, 1, (1, 2, 0, 4)),
        ({"aesthetic": 2, "alignment": 0}, 0, (0, 3, 2, 1)),
        # (3 * 3 + 5) / 4 = 3.5, (12 + 1) / 4 = 3.25, (12 + 3) / 4 = 3.75.
        ({"alignment": 3, "aesthetic": 1}, 2, (2, 0, 1)),
    ],
)
def test_weighted_by_hand(weights, best, ranking):
    found = choose_weighted(SCORES, weights)
    assert (found.best, found.ranking) == (best, ranking)
    assert set(found.without) == set(range(5)) - set(ranking)


def test_a_weight_of_0_needs_no_scores():
    assert choose_weighted({"alignment": [3, 4]}, {"alignment": 1, "aesthetic": 0}).best == 1


def test_the_value_is_the_weighted_mean():
    found = choose_weighted(SCORES, {"alignment": 3, "aesthetic": 1})
    assert found.values == (3.5, 3.25, 3.75, None, None)


@pytest.mark.parametrize(
    ("order", "within", "ranking"),
    [
        (["alignment"], 0, (1, 2, 0, 4)),
        (["alignment", "aesthetic"], 0, (2, 1, 0)),
        (["aesthetic", "alignment"], 0, (0, 2, 1)),
        # Within 1 of the best alignment, 4: three of them, and the first has the best aesthetic.
        (["alignment", "aesthetic"], 1, (0, 2, 1)),
    ],
)
def test_in_order_by_hand(order, within, ranking):
    assert choose_in_order(SCORES, order, within).ranking == ranking


def test_equal_candidates_keep_their_order_and_none_has_no_best():
    assert choose_weighted({"a": [2, 2, 2]}).ranking == (0, 1, 2)
    assert choose_in_order({"a": [2, 2], "b": [1, 1]}, ["b", "a"]).best == 0
    nothing = choose_weighted({"a": [NAN, None, math.inf]})
    assert (nothing.best, nothing.ranking, nothing.without) == (None, (), (0, 1, 2))
    assert choose_weighted({"a": []}).best is None


@given(st.lists(st.tuples(score, score), max_size=8))
def test_the_best_is_that_of_a_plain_reference(rows):
    scores = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    known = [n for n, row in enumerate(rows) if all(one is not None and not math.isnan(one) for one in row)]
    plain = max(known, key=lambda n: (rows[n][0] + rows[n][1], -n), default=None)
    found = choose_weighted(scores)
    # Sums of tenths may differ in their last bit: the same sum, if not the same candidate.
    assert (found.best is None) == (plain is None)
    if plain is not None:
        assert sum(rows[found.best]) == pytest.approx(sum(rows[plain]), abs=1e-12)
    ordered = choose_in_order(scores, ["a", "b"])
    assert ordered.ranking == tuple(sorted(known, key=lambda n: (-rows[n][0], -rows[n][1], n)))


@given(st.lists(st.tuples(score, score), max_size=8), st.floats(0, 5))
def test_a_ranking_names_every_candidate_with_scores_once(rows, within):
    scores = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    for found in (choose_weighted(scores), choose_in_order(scores, ["b", "a"], within)):
        assert sorted([*found.ranking, *found.without]) == list(range(len(rows)))


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda: choose_weighted({"a": [1], "b": [1, 2]}), "for each candidate"),
        (lambda: choose_weighted({}), "no criterion"),
        (lambda: choose_weighted({"a": [1]}, {"b": 1}), "weights of b"),
        (lambda: choose_weighted({"a": [1]}, {"a": 0}), "at least one > 0"),
        (lambda: choose_weighted({"a": [1]}, {"a": -1}), "must be >= 0"),
        (lambda: choose_weighted({"a": [1]}, {"a": NAN}), "must be >= 0"),
        (lambda: choose_in_order({"a": [1]}, []), "got none"),
        (lambda: choose_in_order({"a": [1]}, ["a", "a"]), "each once"),
        (lambda: choose_in_order({"a": [1]}, ["b"]), "out of a"),
        (lambda: choose_in_order({"a": [1]}, ["a"], -1), "within"),
        (lambda: choose_in_order({"a": [1]}, ["a"], NAN), "within"),
    ],
)
def test_what_cannot_be_asked_is_named(choose, message):
    with pytest.raises(ValueError, match=message):
        choose()
