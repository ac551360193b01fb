"""Comparisons of two images in both orders, with stand-ins for the model."""

import pytest
from evaluation_builders import COMPARER, Chooser, grey
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.generation.request import Answer
from omniq_verl.scoring.comparison import Comparer, combine_orders, read_choice


def choice(word: str) -> Answer:
    return Answer(f"<think>because</think><answer>{word}</answer>")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Image A", "first"),
        (' "image b". ', "second"),
        ("Image B", "second"),
        ("A", None),
        ("Image A is better", "first"),
        ("**Image B**", "second"),
        ("the better one is image b.", "second"),
        ("The second image a bit better", None),
        ("Image A is worse", None),
        ("Not Image A", None),
        ('{"worse": "Image B"}', None),
        ("Neither; Image A has noise", None),
        ("Image A doesn't look better", None),
        ("Image A isn\u2019t better", None),
        ("Image B is the lower quality image", None),
        ("Image A, as it is not blurred", "first"),
        ("Image B (no reference)", "second"),
        ("Image A and B are equal", None),
        ("Both images B and A", None),
        ("Image A, or image b", None),
        ('{"answer": "Image A"}', "first"),
        ("Image A or Image B", None),
        ("Image A is better than Image B", None),
        ("image abc", None),
        ("Image C", None),
        ("", None),
    ],
)
def test_a_choice_is_one_of_two(text, read):
    assert read_choice(choice(text)) == read
    assert read_choice(Answer(f"<think>Image A</think> {text}")) is None
    assert read_choice(Answer("Image A", "error")) is None


@pytest.mark.parametrize(
    ("ab", "ba", "winner", "share_a", "share_first", "agree"),
    [
        # Said of the places: A stands first in the first order and second in the other.
        (["Image A"], ["Image B"], "A", 1.0, 0.5, True),
        (["Image B"], ["Image A"], "B", 0.0, 0.5, True),
        (["Image A"], ["Image A"], None, 0.5, 1.0, False),
        (["Image B"], ["Image B"], None, 0.5, 0.0, False),
        (["Image A", "Image A", "Image B"], ["Image B", "?", "Image B"], "A", (2 / 3 + 1) / 2, (2 / 3 + 0) / 2, True),
        (["Image A", "Image B"], ["Image B", "Image B"], None, 0.75, 0.25, None),
    ],
)
def test_both_orders_are_weighed_by_hand(ab, ba, winner, share_a, share_first, agree):
    found = combine_orders("a", "b", [choice(word) for word in ab], [choice(word) for word in ba])
    assert (found.status, found.winner, found.agree) == ("ok", winner, agree)
    assert (found.share_a, found.share_first) == (pytest.approx(share_a), pytest.approx(share_first))
    assert found.reasoning == ("because", "because")
    assert (found.parsed, found.answers) == (len(ab) + len(ba) - ba.count("?"), len(ab) + len(ba))


def test_what_cannot_be_read_or_asked_has_no_winner():
    found = combine_orders("a", "b", [choice("Image A")], [choice("both")])
    assert (found.status, found.winner, found.agree) == ("unreadable", None, None) and "B is shown first" in found.error
    found = combine_orders("a", "b", [choice("Image A")], [Answer("too long", "error")])
    assert (found.status, found.error, found.parsed, found.answers) == ("error", "too long", 0, 2)


def test_the_brighter_wins_in_whatever_order_it_is_given():
    comparer = Comparer("", COMPARER, batch=2)
    dark, bright = grey(20), grey(200)
    found = comparer.compare([(dark, bright), (bright, dark), (b"x", dark), (bright, dark), (dark, dark)])
    assert [one.winner for one in found] == ["B", "A", None, "A", None]
    assert found[2].status == "bad_image" and found[4].agree is False and found[4].share_first == 1.0


def test_the_reference_is_shown_first_and_both_orders_follow():
    Comparer("", COMPARER).compare([(grey(1), grey(2))], references=[grey(3)])
    assert Chooser.shown == [[grey(3), grey(1), grey(2)], [grey(3), grey(2), grey(1)]]
    Comparer("", COMPARER).compare([(grey(1), grey(2))])
    assert Chooser.shown == [[grey(1), grey(2)], [grey(2), grey(1)]]


def test_references_are_one_for_each_pair():
    with pytest.raises(ValueError, match="1 references for 2 pairs"):
        Comparer("", COMPARER).compare([(grey(1), grey(2))] * 2, references=[grey(3)])


def test_the_command_names_the_better_image(tmp_path):
    for name, value in (("dark.png", 20), ("bright.png", 200), ("broken.png", None)):
        (tmp_path / name).write_bytes(b"x" if value is None else grey(value))
    words = ["--model", "", "--engine", COMPARER]

    def said(*images: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["compare-images", *(str(tmp_path / name) for name in images), *words])
        return result.exit_code, result.output.replace("\n", "")

    assert said("dark.png", "bright.png")[1].startswith(f"{tmp_path}/bright.png is better")
    code, text = said("dark.png", "dark.png")
    assert code == 0 and "neither: the two orders disagree" in text
    assert "the image shown first won 100% (50% means no position bias)" in text
    code, text = said("dark.png", "broken.png")
    assert code == 1 and f"bad_image: {tmp_path}/broken.png: no known image format" in text
    code, text = said("dark.png", "missing.png")
    assert code == 1 and f"{tmp_path}/missing.png: no such file" in text  # as of omniq score
