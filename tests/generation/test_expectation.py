"""The expectation of a score equals a sum over all sequences of tokens, written out."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.generation.direct import score_texts
from omniq_verl.generation.expectation import ScoreTexts, Spelling, Vocabulary, Walk, numerals
from omniq_verl.generation.request import expected_answer
from omniq_verl.rewards import parse_response
from omniq_verl.tasks import DEGRADATION, Q_INSIGHT_SCORE, TECHNICAL

VOCABULARY = ["1", "2", "3", ".", ".5", "2.", "12", "5", "0", "</", "</answer>", "x", "answer", "", "1.5"]
TEXTS = ScoreTexts(numerals(1, 3, 1), "<answer>", ("</answer>",))


def chances(prefix: tuple[int, ...], seed: int) -> list[float]:
    """A language model: its next-token distribution behind any prefix."""
    source = random.Random(f"{seed}/{prefix}")
    weights = [source.random() ** 3 for _ in VOCABULARY]
    return [weight / sum(weights) for weight in weights]


def written_out(texts: ScoreTexts, seed: int, longest: int) -> dict[str, float]:
    """P(t) from its definition: every sequence of tokens, whatever it spells."""
    values, found = dict(texts.values), dict.fromkeys(dict(texts.values), 0.0)
    ends = [n for n, text in enumerate(VOCABULARY) if text in ("</", "</answer>")]
    for length in range(1, longest + 1):
        for tokens in itertools.product(range(len(VOCABULARY)), repeat=length):
            spelled = "".join(VOCABULARY[token] for token in tokens)
            if spelled not in values or any(not VOCABULARY[token] for token in tokens):
                continue
            mass = math.prod(chances(tokens[:ref], seed)[token] for ref, token in enumerate(tokens))
            continued = any(other != spelled and other.startswith(spelled) for other in values)
            end = sum(chances(tokens, seed)[token] for token in ends) if continued else 1.0
            found[spelled] += mass * end
    return found


def walked(texts: ScoreTexts, seed: int, smallest: float = 0.0):
    walk = Walk(Spelling(texts, dict(enumerate(VOCABULARY))), smallest)
    while asked := walk.open:
        walk.tell({p: {token: chances(p, seed)[token] for token in tokens} for p, tokens in asked.items()})
    return walk.result()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_it_equals_the_sum_over_all_sequences_of_tokens(seed):
    mass = written_out(TEXTS, seed, longest=3)
    total, values = sum(mass.values()), dict(TEXTS.values)
    mean = sum(mass[text] * values[text] for text in mass) / total
    found = walked(TEXTS, seed)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.outside == pytest.approx(1 - total, rel=1e-9)
    assert found.std == pytest.approx(math.sqrt(sum(mass[t] * (values[t] - mean) ** 2 for t in mass) / total))
    assert found.likeliest == max(mass, key=mass.get)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_given_up_counts_as_outside_and_moves_the_mean_by_no_more(seed):
    exact, found = walked(TEXTS, seed), walked(TEXTS, seed, smallest=0.01)
    lost = found.outside - exact.outside
    assert 0 < lost < 0.3 and found.read < exact.read
    assert abs(found.mean - exact.mean) <= lost / (1 - found.outside) * 2  # the scale is two wide


def test_every_way_of_writing_counts_and_a_beginning_needs_its_end():
    spelling = Spelling(TEXTS, dict(enumerate(VOCABULARY)))
    assert {VOCABULARY[token] for token in spelling.continuations("")} == {"1", "2", "3", "2.", "1.5"}
    assert {VOCABULARY[token] for token in spelling.continuations("2")} == {".", ".5"}
    assert {VOCABULARY[token] for token in spelling.ends_of("2")} == {"</", "</answer>"}
    assert not spelling.ends_of("2.5") and spelling.is_whole("2.5") and not spelling.is_whole("2")


def test_numbers_of_a_scale_as_they_are_written():
    assert [text for text, _ in numerals(1, 5, 0)] == ["1", "2", "3", "4", "5"]
    found = dict(numerals(1, 5, 2))
    assert len(found) == 5 + 41 + 401
    assert found["3.50"] == found["3.5"] == 3.5 and "5.01" not in found and "0.99" not in found
    assert dict(numerals(0, 0.3, 1)) == {"0": 0, "0.0": 0, "0.1": 0.1, "0.2": 0.2, "0.3": 0.3}
    with pytest.raises(ValueError, match="million"):
        numerals(0, 100, 6)


def test_nothing_of_a_score_has_no_mean_and_no_text():
    walk = Walk(Spelling(ScoreTexts((("9", 9.0),)), {0: "x", 1: "9"}))
    walk.tell({(): {1: 0.0}})
    assert not walk.open and walk.result().mean is None and walk.result().outside == 1
    assert expected_answer(walk.result(), TEXTS).text == ""


@pytest.mark.parametrize("task", [TECHNICAL, Q_INSIGHT_SCORE], ids=lambda task: task.name)
def test_an_expectation_is_read_by_the_parser_of_its_task(task):
    texts = score_texts(task)
    parsed = parse_response(texts.written.format("3.512345678"), task.answer_format, task.scale)
    assert parsed.score == 3.512345678
    assert texts.written.startswith(texts.start.replace("{", "{{"))


def test_a_task_without_numbers_is_rejected():
    with pytest.raises(ValueError, match=r"asks for no number.*Fix"):
        score_texts(DEGRADATION)


@pytest.mark.parametrize("values", [(), (("", 1.0),), (("1", 1.0), ("1", 2.0)), (("1", 1.0), ("1.5", 1.5))])
def test_texts_that_cannot_be_told_apart_are_rejected(values):
    with pytest.raises(ValueError, match="score text"):
        ScoreTexts(values)


def test_spaces_and_line_feeds_of_vocabularies_are_read():
    class Tokenizer:
        def get_vocab(self):
            return {"\u0120good": 0, "\u010a": 1, "\u2581fair": 2, "}\u010a": 3}

    assert Vocabulary.of(Tokenizer()).texts == {0: " good", 1: "\n", 2: " fair", 3: "}\n"}
