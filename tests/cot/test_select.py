"""Rejection sampling: levels at their edges, easy and hard images by hand, what is learned."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniq_verl.cot.select import Selection, count, draw_images, judge_row, scale_cut, sft_records
from omniq_verl.cot.verdict import Fault
from omniq_verl.data.row_refs import RowRef

PLAN = "1. a step of the plan\n2. another one"


def ref(score: float = 4.4, low: float = 1.0, high: float = 5.0) -> RowRef:
    info = {
        "task": "technical",
        "id": "made/0",
        "score": score,
        "scale_low": low,
        "scale_high": high,
        "data_source": "made",
        "split": "train",
        "text": None,
    }
    return RowRef("technical/made/0", "x.parquet", 0, 0, info)


def right_level(info) -> str:
    return scale_cut(info).level(info["score"])


def path(level: str, words: str) -> dict:
    return {"text": f"<think>{words}</think><answer>{level}</answer>", "finish_reason": "stop", "tokens": 9}


def paths(*levels: str) -> list[dict]:
    return [path(level, f"reason {number}") for number, level in enumerate(levels)]


ROW = {
    "prompt": [{"role": "user", "content": "<image>Rate it."}],
    "images": [{"bytes": b"x"}],
    "extra_info": {"id": "made/0", "task": "technical"},
}


@pytest.mark.parametrize(
    ("score", "level"),
    # Five equal parts of 1 to 5: 1.8, 2.6, 3.4 and 4.2 belong to the upper one.
    [
        (1, "bad"),
        (1.7999, "bad"),
        (1.8, "poor"),
        (2.5999, "poor"),
        (2.6, "fair"),
        (3.3999, "fair"),
        (3.4, "good"),
        (4.1999, "good"),
        (4.2, "excellent"),
        (5, "excellent"),
    ],
)
def test_the_level_of_a_label(score, level):
    assert right_level(ref(score).info) == level


def test_the_level_follows_the_scale_of_the_row():
    assert [right_level(ref(score, 0, 5).info) for score in (0.9999, 1, 3.9999, 4)] == [
        "bad",
        "poor",
        "good",
        "excellent",
    ]


@pytest.mark.parametrize(
    ("right", "of", "bounds", "outcome"),
    [
        (0, 8, (0, 1), "too_hard"),
        (1, 8, (0, 1), "kept"),
        (7, 8, (0, 1), "kept"),
        (8, 8, (0, 1), "too_easy"),
        (2, 8, (0.25, 0.75), "too_hard"),
        (3, 8, (0.25, 0.75), "kept"),
        (5, 8, (0.25, 0.75), "kept"),
        (6, 8, (0.25, 0.75), "too_easy"),
        (1, 1, (0, 1), "too_easy"),
        (0, 1, (0, 1), "too_hard"),
    ],
)
def test_both_bounds_are_exclusive(right, of, bounds, outcome):
    assert Selection(*bounds).judge_rate(right, of) == outcome


@given(st.integers(1, 64), st.floats(0, 0.9), st.floats(0.01, 1))
def test_every_image_has_one_outcome_and_more_right_paths_never_make_it_harder(of, low, width):
    rule = Selection(low, min(low + width, 1.0))
    order = ["too_hard", "kept", "too_easy"]
    found = [order.index(rule.judge_rate(right, of)) for right in range(of + 1)]
    assert found == sorted(found) and found[0] == 0


@pytest.mark.parametrize("bounds", [(0.5, 0.5), (-0.1, 1), (0, 1.1), (1, 0)])
def test_bounds_that_keep_nothing_are_rejected(bounds):
    with pytest.raises(ValueError, match="0 <= min < max <= 1"):
        Selection(*bounds)


def test_broken_paths_count_as_wrong_ones():
    # Two right of four: one is broken, one wrong.
    answers = [*paths("excellent", "excellent", "good"), {"text": "", "finish_reason": "stop", "tokens": 0}]
    assert judge_row(ref(), answers, PLAN, Selection(max_pass_rate=0.6)).outcome == "kept"
    assert judge_row(ref(), answers[:2], PLAN, Selection()).outcome == "too_easy"


def test_the_same_words_are_learned_once_and_still_count_as_right():
    judged = judge_row(ref(), [path("excellent", "clean")] * 3 + paths("good"), PLAN, Selection())
    assert [verdict.fault for verdict in judged.verdicts] == [
        None,
        Fault.SAME_AGAIN,
        Fault.SAME_AGAIN,
        Fault.WRONG_LEVEL,
    ]
    assert (judged.right, len(judged.chosen)) == (3, 1)


def test_at_most_so_many_paths_of_an_image():
    for emphasis in ("right", "even"):
        judged = judge_row(ref(), paths(*["excellent"] * 5, "bad"), PLAN, Selection(max_paths=2, emphasis=emphasis))
        assert [verdict.reasoning for verdict in judged.chosen] == ["reason 0", "reason 1"]


@pytest.mark.parametrize(
    ("emphasis", "hard", "easy"),
    # One of eight paths is right, or seven are.
    [
        ("hard", ["reason 0"] * 4, ["reason 0"]),
        ("even", ["reason 0"] * 4, ["reason 0", "reason 1", "reason 2", "reason 3"]),
        ("right", ["reason 0"], ["reason 0", "reason 1", "reason 2", "reason 3"]),
    ],
)
def test_an_image_right_once_in_eight_weighs_more_than_one_right_seven_times(emphasis, hard, easy):
    rule = Selection(emphasis=emphasis)
    for right, expected in ((1, hard), (7, easy)):
        judged = judge_row(ref(), paths(*["excellent"] * right, *["bad"] * (8 - right)), PLAN, rule)
        assert [verdict.reasoning for verdict in judged.chosen] == expected


def test_a_path_that_is_learned_again_has_another_number_of_its_level():
    judged = judge_row(ref(), paths("excellent", *["bad"] * 7), PLAN, Selection())
    records = list(sft_records(judged, ROW, Selection()))
    assert len(records) == 4 and len({record["messages"][-1]["content"] for record in records}) == 4
    assert [record["extra_info"]["path"] for record in records] == [0, 1, 2, 3]


def many(rights: list[int], rule: Selection) -> list:
    found = []
    for number, right in enumerate(rights):
        one = dataclasses.replace(ref(), key=f"technical/made/{number}")
        found.append(judge_row(one, paths(*["excellent"] * right, *["bad"] * (8 - right)), PLAN, rule))
    return found


def test_the_images_beyond_the_target_are_drawn_by_their_share_of_wrong_paths():
    # Chances of 7 to 1: of 400 images of each kind, 200 are wanted in all.
    rights = [1, 7] * 400
    for emphasis, low, high in (("hard", 160, 190), ("even", 80, 120)):
        rule = Selection(images=200, emphasis=emphasis)
        judged = many(rights, rule)
        draw_images(judged, rule)
        kept = [one for one in judged if one.outcome == "kept"]
        assert len(kept) == 200 and low < sum(one.right == 1 for one in kept) < high
        assert {one.outcome for one in judged} == {"kept", "not_drawn"}
        assert all(bool(one.chosen) == (one.outcome == "kept") for one in judged)


def test_the_draw_does_not_hang_on_the_order_and_a_smaller_target_is_part_of_a_greater_one():
    def drawn(images: int, step: int = 1) -> set[str]:
        rule = Selection(images=images)
        judged = many([1, 3, 5, 7] * 20, rule)[::step]
        draw_images(judged, rule)
        return {one.ref.key for one in judged if one.outcome == "kept"}

    assert drawn(30) == drawn(30, -1) and drawn(10) < drawn(30) and len(drawn(500)) == 80


def test_nothing_is_learned_from_images_that_are_not_kept():
    for levels in (["excellent"] * 4, ["bad"] * 4):
        assert judge_row(ref(), paths(*levels), PLAN, Selection()).chosen == []


def learned(rule: Selection, score: float = 4.4) -> list[str]:
    judged = judge_row(ref(score), paths(*["excellent"] * 40, "bad"), PLAN, dataclasses.replace(rule, max_paths=40))
    return [record["messages"][-1]["content"].split("<answer>")[1][:-9] for record in sft_records(judged, ROW, rule)]


def test_a_record_holds_the_rows_own_question_and_not_the_plan():
    judged = judge_row(ref(), paths("excellent", "bad"), PLAN, Selection(jitter=0, max_paths=1))
    (record,) = sft_records(judged, ROW, Selection(jitter=0))
    assert record["messages"] == [
        *ROW["prompt"],
        {"role": "assistant", "content": "<think>reason 0</think><answer>4.60</answer>"},  # the middle of 4.2 to 5
    ]
    assert record["images"] == ROW["images"] and "plan" not in str(record)


LABELS = [(1.2, "bad"), (2.2, "poor"), (3.0, "fair"), (3.9, "good"), (4.9, "excellent")]


@pytest.mark.parametrize("decimals", [1, 2, 3])
@pytest.mark.parametrize(("score", "level"), LABELS)
def test_the_number_is_one_of_the_level(score, level, decimals):
    found = []
    for number in range(300):
        one = dataclasses.replace(ref(score), key=f"technical/made/{number}")
        judged = judge_row(one, paths(level, "x"), PLAN, Selection(max_paths=1))
        (record,) = sft_records(judged, ROW, Selection(decimals=decimals))
        found.append(record["messages"][-1]["content"].split("<answer>")[1][:-9])
    assert {right_level(ref(float(text)).info) for text in found} == {level}
    assert len(set(found)) > 6


def test_too_few_decimals_for_a_level_are_rejected():
    narrow = judge_row(ref(1.2, 1.1, 1.9), paths("bad", "x"), PLAN, Selection())
    with pytest.raises(ValueError, match=r"Fix: increase select\.decimals"):
        list(sft_records(narrow, ROW, Selection(decimals=0)))


def test_a_number_stays_on_the_scale():
    found = [float(number) for number in learned(Selection(jitter=3.0))]
    assert max(found) == 5 and min(found) >= 1


def test_the_number_of_the_label():
    assert set(learned(Selection(number="label", decimals=1), 4.44)) == {"4.4"}


def test_the_same_row_learns_the_same_numbers():
    assert learned(Selection()) == learned(Selection())


def test_everything_is_counted():
    rule = Selection(max_paths=1)
    judged = [
        judge_row(ref(), paths("excellent", "bad"), PLAN, rule),
        judge_row(ref(), paths("excellent", "excellent"), PLAN, rule),
        judge_row(ref(), paths("bad", "poor"), PLAN, rule),
    ]
    found = count(judged)["made"]
    assert found["images"] == {"kept": 1, "too_easy": 1, "too_hard": 1}
    assert found["paths"] == {"right": 3, "wrong_level": 3, "learned": 1}
    assert found["right_paths"] == {0: 1, 1: 1, 2: 1} and found["levels"] == {"excellent": 3}
    assert (found["acceptance"], found["records"], found["tokens"]) == (0.5, 1, 9)


def test_the_mean_length_is_of_the_records():
    answers = [{**path("excellent", "a"), "tokens": 100}, {**path("excellent", "b"), "tokens": 300}, path("bad", "c")]
    judged = judge_row(ref(), answers, PLAN, Selection(emphasis="right"))
    assert count([judged])["made"]["tokens"] == 200
