"""A score without sampling: the expected value over every way in which a model could write one.

Let ``t`` be one of the texts that stand for a score and ``v(t)`` its value. A tokenizer may write ``t`` in several
ways; with ``s`` a sequence of tokens that spells ``t``, all behind the same beginning of the answer,

    P(t) = sum over s of  prod over i of  p(s_i | question, beginning, s_1 .. s_(i-1))

and, where ``t`` is the beginning of another text ("3" of "3.5"), each product also has the probability that the answer
ends there. The score is ``sum P(t) v(t) / sum P(t)``; what is missing in ``sum P(t)`` is the mass outside.

A text that no other one continues counts as soon as it is written: with two decimals, "3.527" counts as "3.52".
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

Prefix = tuple[int, ...]
"""Token ids behind the beginning of the answer."""

SMALLEST = 1e-6
"""A way of writing that is less probable so far is given up, and its mass counts as outside. Ours: at most 401 texts of
a scale from 1 to 5 are lost, 4e-4 of the mass, if each of them is just below this."""


@dataclass(frozen=True)
class ScoreTexts:
    """The texts that stand for scores, and what an answer is like around them."""

    values: tuple[tuple[str, float], ...]
    """Each text with its value."""
    start: str = ""
    """What the answer is made to begin with, e.g. ``<answer>``."""
    ends: tuple[str, ...] = ()
    """What may follow a text that another one continues."""
    written: str = "<answer>{}</answer>"
    """How the expected value is written down as an answer, so that parsers read it as they read any other."""

    def __post_init__(self) -> None:
        texts = [text for text, _ in self.values]
        if not texts or "" in texts or len(set(texts)) < len(texts):
            raise ValueError(f"score texts must be different and not empty, got {texts[:5]!r}")
        if not self.ends and any(one != other and one.startswith(other) for one in texts for other in texts):
            raise ValueError("a score text is the beginning of another one, but no text ends an answer")


def numerals(low: float, high: float, decimals: int) -> tuple[tuple[str, float], ...]:
    """Every decimal number from ``low`` to ``high`` with up to ``decimals`` digits behind the point, as it is written.

    Raises:
        ValueError: there are more than a million.
    """
    if (high - low) * 10**decimals > 1e6:
        raise ValueError(f"more than a million numbers from {low:g} to {high:g} with {decimals} decimals")
    found: dict[str, float] = {}
    for digits in range(decimals + 1):
        step = 10**digits
        for number in range(math.ceil(low * step - 1e-9), math.floor(high * step + 1e-9) + 1):
            found[f"{number / step:.{digits}f}"] = number / step
    return tuple(found.items())


@dataclass(frozen=True)
class Expectation:
    """What a model's probabilities of the score texts come to."""

    mean: float | None
    """On the scale of the texts; None: none of them had a probability above ``smallest``."""
    std: float | None
    """Standard deviation of the renormalised distribution."""
    outside: float
    """Probability of everything else, from 0 to 1."""
    likeliest: str | None
    read: int
    """Number of next-token distributions that were asked for."""


class Spelling:
    """Which tokens of a vocabulary continue a written text towards one of the score texts.

    Args:
        texts: what may be written.
        vocabulary: text of each token id. Tokens that are no text by themselves are left out.
    """

    def __init__(self, texts: ScoreTexts, vocabulary: Mapping[int, str]):
        self.values = dict(texts.values)
        self._beginnings = {text[:length] for text in self.values for length in range(len(text) + 1)}
        self._continued = {one[:length] for one in self.values for length in range(len(one))} & self.values.keys()
        letters = set("".join(self.values))
        self._tokens = {number: text for number, text in vocabulary.items() if text and set(text) <= letters}
        self._ends = frozenset(
            number
            for number, text in vocabulary.items()
            if text and any(text.startswith(end) or end.startswith(text) for end in texts.ends)
        )
        self._known: dict[str, dict[int, str]] = {}

    def continuations(self, written: str) -> Mapping[int, str]:
        """Token ids that may come next, with what is written then."""
        if written not in self._known:
            longer = ((number, written + text) for number, text in self._tokens.items())
            self._known[written] = {number: text for number, text in longer if text in self._beginnings}
        return self._known[written]

    def ends_of(self, written: str) -> frozenset[int]:
        """Token ids that end a text which another one continues; empty for any other text."""
        return self._ends if written in self._continued else frozenset()

    def is_whole(self, written: str) -> bool:
        """Is it a score text that no other one continues?"""
        return written in self.values and written not in self._continued

    def asked(self, written: str) -> list[int]:
        """Token ids whose probability matters behind this text."""
        return sorted({*self.continuations(written), *self.ends_of(written)})


@lru_cache(maxsize=64)
def _spelling(texts: ScoreTexts, vocabulary: "Vocabulary") -> Spelling:
    return Spelling(texts, vocabulary.texts)


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is read here."""

    def get_vocab(self) -> dict[str, int]:
        """Ids by text."""
        ...


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The text of each token of a tokenizer, by its id; compared by identity, so that what is made of it is kept."""

    texts: Mapping[int, str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Read a transformers tokenizer. Spaces and line feeds are translated from byte-level and SentencePiece forms;
        other characters that are no ASCII stay as the vocabulary has them, as no score text holds any."""
        plain = str.maketrans({"\u0120": " ", "\u010a": "\n", "\u2581": " "})
        return cls({number: text.translate(plain) for text, number in tokenizer.get_vocab().items()})

    def spelling(self, texts: ScoreTexts) -> Spelling:
        """Made once for each set of texts."""
        return _spelling(texts, self)


@dataclass
class Walk:
    """Goes through all ways of writing a score, one token further with each ``tell``.

    An engine asks its model for the distributions behind ``open`` until there are none. What it is told does not
    depend on the order or on what else the engine does meanwhile.
    """

    spelling: Spelling
    smallest: float = SMALLEST
    _open: dict[Prefix, tuple[str, float]] = field(default_factory=lambda: {(): ("", 1.0)})
    _mass: dict[str, list[float]] = field(default_factory=dict)
    _read: int = 0

    @property
    def open(self) -> dict[Prefix, list[int]]:
        """Prefixes to ask for, all of one length, each with the token ids whose probability matters."""
        return {prefix: self.spelling.asked(written) for prefix, (written, _) in self._open.items()}

    def tell(self, found: Mapping[Prefix, Mapping[int, float]]) -> None:
        """Take one step.

        Args:
            found: for each prefix of ``open`` the probability of each of its tokens, from 0 to 1.
        """
        further: dict[Prefix, tuple[str, float]] = {}
        for prefix, (written, mass) in self._open.items():
            chances = found[prefix]
            if ends := self.spelling.ends_of(written):
                self._add(written, mass * math.fsum(chances[token] for token in sorted(ends)))
            for token, text in self.spelling.continuations(written).items():
                if self.spelling.is_whole(text):
                    self._add(text, mass * chances[token])
                elif mass * chances[token] > self.smallest:
                    further[(*prefix, token)] = (text, mass * chances[token])
        self._read += len(self._open)
        self._open = further

    def _add(self, text: str, mass: float) -> None:
        self._mass.setdefault(text, []).append(mass)

    def result(self) -> Expectation:
        """The expectation, once nothing is open."""
        mass = {text: math.fsum(parts) for text, parts in self._mass.items()}
        total = math.fsum(mass.values())
        if total <= self.smallest:
            return Expectation(None, None, 1.0, None, self._read)
        mean = math.fsum(part * self.spelling.values[text] for text, part in mass.items()) / total
        square = math.fsum(part * (self.spelling.values[text] - mean) ** 2 for text, part in mass.items()) / total
        likeliest = max(sorted(mass), key=mass.__getitem__)
        return Expectation(mean, math.sqrt(square), max(1.0 - total, 0.0), likeliest, self._read)


def gather(
    asked: Mapping[Prefix, Sequence[int]], rows: Iterable[Mapping[int, float]]
) -> dict[Prefix, dict[int, float]]:
    """What ``Walk.tell`` takes, from log-probabilities in the order of ``Walk.open``."""
    return {
        prefix: {token: math.exp(row[token]) for token in tokens}
        for (prefix, tokens), row in zip(asked.items(), rows, strict=True)
    }
