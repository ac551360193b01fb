"""Which images are asked about, and where the levels of their data sets lie."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cot_builders import Generator  # noqa: F401  (the engine of the settings)
from generation_builders import write_rows
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import pearsonr, spearmanr

from omniq_verl.cot.draw import by_source, draw_rows, even_shares
from omniq_verl.cot.emphasis import count_records, draw_weighted
from omniq_verl.cot.levels import cut_scores, cut_sources
from omniq_verl.cot.run import CotConfig, make_plans, rows_of
from omniq_verl.cot.select import Judged, Selection, sft_records
from omniq_verl.cot.verdict import Verdict
from omniq_verl.data.row_refs import RowRef
from omniq_verl.generation.config import read_config
from omniq_verl.tasks import LEVELS


def ref(source: str, number: int, score: float = 3.0) -> RowRef:
    info = {"task": "technical", "id": f"{source}/{number}", "score": score, "scale_low": 1.0, "scale_high": 5.0}
    info |= {"data_source": source, "split": "train"}
    return RowRef(f"technical/{source}/{number}", "x.parquet", 0, number, info)


SIZES = {"ava": 900, "evalmuse": 300, "koniq": 70}
PLACES = [ref(source, number) for source, size in SIZES.items() for number in range(size)]


def drawn(take=(), limit=None, seed=0, refs=PLACES) -> dict[str, int]:
    return Counter(one.info["data_source"] for one in draw_rows(refs, dict(take), limit, seed))


# The audit's case: limit=40 took 40 rows of AVA and none of the other two.
def test_a_limit_is_shared_between_the_data_sources():
    assert drawn(limit=40) == {"ava": 14, "evalmuse": 13, "koniq": 13}


def test_a_small_data_source_leaves_its_share_to_the_others():
    # A third of 600 is 200; koniq has 70, and the two others share the 130 that are left.
    assert drawn(limit=600) == {"ava": 265, "evalmuse": 265, "koniq": 70}
    assert drawn(limit=5000) == SIZES


def test_so_many_of_each_source_over_all_files():
    assert drawn({"ava": 100, "koniq": 70}) == {"ava": 100, "koniq": 70}
    assert drawn({"ava": 100, "koniq": 70}, limit=30) == {"ava": 15, "koniq": 15}


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 50), min_size=1), st.integers(1, 400))
def test_shares_add_up_and_are_as_even_as_can_be(sizes, limit):
    shares = even_shares(sizes, limit)
    assert sum(shares.values()) == min(limit, sum(sizes.values()))
    assert all(0 <= shares[name] <= sizes[name] for name in sizes)
    short = [shares[name] for name in sizes if shares[name] < sizes[name]]
    assert not short or max(shares.values()) <= min(short) + 1


def test_the_draw_depends_on_seed_and_key_alone():
    first = {one.key for one in draw_rows(PLACES, {}, 40, 0)}
    assert first == {one.key for one in draw_rows(PLACES[::-1], {}, 40, 0)}
    assert first != {one.key for one in draw_rows(PLACES, {}, 40, 1)}
    assert first < {one.key for one in draw_rows(PLACES, {}, 400, 0)}
    numbers = [one.number for one in draw_rows(PLACES, {"ava": 40}, None, 0)]
    assert numbers == sorted(numbers) and max(numbers) > 500  # not the first ones


@pytest.mark.parametrize(
    ("take", "said"),
    [({"avb": 5}, r"no rows of avb\. Fix: .*ava, evalmuse, koniq"), ({"koniq": 71}, r"71 rows of koniq .* has 70")],
)
def test_what_cannot_be_taken_is_named(take, said):
    with pytest.raises(ValueError, match=said):
        draw_rows(PLACES, take, None, 0)


def test_a_greater_run_goes_on_from_a_smaller_one(tmp_path):
    for source in ("alpha", "beta"):
        write_rows(tmp_path / f"{source}.parquet", np.linspace(1, 5, 30), source=source)

    def config(*more: str) -> CotConfig:
        words = [
            f"data=[{tmp_path}/alpha.parquet,{tmp_path}/beta.parquet]",
            f"out={tmp_path / 'out'}",
            "run_options.on=here",
        ]
        return read_config(CotConfig, None, [*words, "engine.model=x", "engine.kind=cot_builders:Generator", *more])

    quiet = Console(quiet=True)
    make_plans(config("limit=8"), quiet)
    small = {one.key for one in rows_of(config("limit=8"))}
    said = Console(record=True, width=200)
    make_plans(config("take={alpha: 10, beta: 5}"), said)
    assert "plans: 7 of 15 rows left" in said.export_text()
    assert small <= {one.key for one in rows_of(config("take={alpha: 10, beta: 5}"))} and len(small) == 8
    assert len(Path(tmp_path / "out/plan/0002.jsonl").read_text().splitlines()) == 7


# Weights


def test_records_of_hard_and_easy_images_by_hand():
    assert [count_records(right, 8, 4, "hard") for right in range(1, 8)] == [4, 3, 3, 2, 2, 1, 1]
    assert [count_records(right, 8, 4, "even") for right in range(1, 8)] == [4] * 7
    assert [count_records(right, 8, 4, "right") for right in range(1, 8)] == [1, 2, 3, 4, 4, 4, 4]
    # Halves go upwards: 9 * 1/6 = 1.5, 15 * 1/10 = 1.5 and 6 * 7/12 = 3.5.
    assert [count_records(*one, "hard") for one in ((5, 6, 9), (9, 10, 15), (5, 12, 6))] == [2, 2, 4]


@given(st.integers(2, 64), st.integers(1, 9))
def test_a_harder_image_never_has_fewer_records(paths, most):
    records = [count_records(right, paths, most, "hard") for right in range(1, paths)]
    assert records == sorted(records, reverse=True) and records[-1] >= 1 and records[0] <= most


def test_chances_are_those_of_the_weights():
    # One of two with weights 3 and 1: the first in 3 of 4 seeds.
    first = sum(draw_weighted([("a", 3.0), ("b", 1.0)], 1, seed) == {"a"} for seed in range(2000))
    assert abs(first / 2000 - 0.75) < 0.04


# Levels


def test_the_three_rules_by_hand():
    scores = [2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 2.8, 2.9, 4.0]
    assert cut_scores(scores, 1, 5, "scale").edges == pytest.approx((1, 1.8, 2.6, 3.4, 4.2, 5))
    assert cut_scores(scores, 1, 5, "range").edges == pytest.approx((2, 2.4, 2.8, 3.2, 3.6, 4))
    # Eleven labels: the quantiles 0.2, 0.4, ... are the labels at the places 2, 4, 6 and 8.
    assert cut_scores(scores, 1, 5, "quantiles").edges == pytest.approx((2, 2.2, 2.4, 2.6, 2.8, 4))
    cut = cut_scores(scores, 1, 5, "quantiles")
    assert [cut.level(score) for score in (1, 2, 2.19, 2.2, 2.79, 2.8, 5)] == [
        *("bad", "bad", "bad", "poor", "good", "excellent", "excellent")
    ]
    assert Counter(map(cut.level, scores)) == {"bad": 2, "poor": 2, "fair": 2, "good": 2, "excellent": 3}


def ava() -> np.ndarray:
    """Labels like AVA's: means of 1-10 that are distributed as N(5.38, 0.73), mapped from 1-10 to 1-5."""
    return 1 + 4 * (np.random.default_rng(0).normal(5.38, 0.73, 20_000).clip(1, 10) - 1) / 9


def learned_numbers(scores: np.ndarray, rule: str) -> list[float]:
    refs = [ref("ava", number, score) for number, score in enumerate(scores)]
    cut, selection = cut_sources(refs, rule, {})["ava"], Selection(levels=rule)
    found = []
    for one in refs:
        judged = Judged(one, cut.level(one.info["score"]), [], "kept", cut, [Verdict(reasoning="x")])
        (record,) = sft_records(judged, {"prompt": [], "images": [], "extra_info": one.info}, selection)
        found.append(float(record["messages"][-1]["content"].split("<answer>")[1][:-9]))
    return found


def test_four_fifths_of_ava_are_fair_on_the_scale_and_a_fifth_by_quantiles():
    scores = ava()
    on_scale = Counter(map(cut_scores(scores, 1, 5, "scale").level, scores))
    assert on_scale["fair"] / len(scores) == pytest.approx(0.777, abs=0.01)
    by_quantiles = Counter(map(cut_scores(scores, 1, 5, "quantiles").level, scores))
    assert all(by_quantiles[level] / len(scores) == pytest.approx(0.2, abs=0.001) for level in LEVELS)


def test_the_number_that_sft_teaches_follows_the_label_by_quantiles():
    scores = ava()[:3000]
    assert spearmanr(scores, learned_numbers(scores, "scale"))[0] == pytest.approx(0.53, abs=0.05)
    numbers = learned_numbers(scores, "quantiles")
    assert spearmanr(scores, numbers)[0] > 0.9 and pearsonr(scores, numbers)[0] > 0.85


def test_each_source_has_its_own_levels():
    refs = [ref("ava", number, 2.5 + number / 100) for number in range(100)] + [ref("koniq", 0, 3.0)]
    cuts = cut_sources(refs, "scale", {"ava": "range"})
    assert cuts["koniq"].edges[0] == 1 and cuts["ava"].edges[0] == 2.5 and list(by_source(refs)) == ["ava", "koniq"]


@pytest.mark.parametrize(
    ("rule", "rules", "said"),
    [
        ("quantiles", {}, "koniq: quantiles of 3 labels from 3 to 3 do not give five levels"),
        ("scale", {"avb": "range"}, "no rows of avb"),
    ],
)
def test_levels_that_cannot_be_are_named(rule, rules, said):
    with pytest.raises(ValueError, match=said):
        cut_sources([ref("koniq", number) for number in range(3)], rule, rules)


@pytest.mark.parametrize("wrong", [{"levels": "x"}, {"levels_of": {"ava": "x"}}, {"emphasis": "x"}, {"images": 0}])
def test_wrong_rules_are_rejected(wrong):
    with pytest.raises(ValueError, match=r"must be one of|must be >= 1"):
        Selection(**wrong)
