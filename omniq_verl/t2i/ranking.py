"""The best of several images by one or more scores. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Scores = Mapping[str, Sequence[float | None]]
"""By criterion, e.g. ``alignment``: one score a candidate; None or NaN where there is none."""


@dataclass(frozen=True)
class Choice:
    """The best candidate."""

    best: int | None
    """Its number; None: no candidate has all scores that are asked for."""
    ranking: tuple[int, ...]
    """All candidates with scores, best first; equal ones in the order of their numbers."""
    values: tuple[float | None, ...]
    """Of every candidate what it was ranked by: the weighted mean, or its score on the first criterion."""
    without: tuple[int, ...]
    """Candidates that lack a score; they are never chosen."""


def read_weights(words: Sequence[str]) -> dict[str, float]:
    """Weights by task from TASK=WEIGHT.

    Raises:
        ValueError: a word is none.
    """
    found = {}
    for word in words:
        task, _, weight = word.partition("=")
        try:
            found[task] = float(weight)
        except ValueError:
            raise ValueError(f"{word!r} is no TASK=WEIGHT, such as aesthetic=0.5") from None
    return found


def choose_weighted(scores: Scores, weights: Mapping[str, float] | None = None) -> Choice:
    """Ranks by the weighted mean of the scores.

    Args:
        scores: all of the same length, and on the same scale.
        weights: by criterion, from 0, of which one at least is above; None: all alike. A criterion of weight 0, or that
            is not named, does not count, and may lack scores.

    Raises:
        ValueError: weights out of their range or of an unknown criterion; scores of different lengths.
    """
    number = _candidates(scores)
    weights = dict.fromkeys(scores, 1.0) if weights is None else dict(weights)
    if unknown := weights.keys() - scores.keys():
        raise ValueError(f"weights of {', '.join(sorted(unknown))}, but the scores are {', '.join(scores)}")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or not sum(weights.values()):
        raise ValueError(f"weights are numbers from 0, one at least above; got {weights}")
    used = {name: weight for name, weight in weights.items() if weight > 0}
    whole = sum(used.values())
    values = [
        None
        if any(_missing(scores[name][ref]) for name in used)
        else math.fsum(weight * scores[name][ref] for name, weight in used.items()) / whole
        for ref in range(number)
    ]
    return choose_by_values(values)


def choose_by_values(values: Sequence[float | None]) -> Choice:
    """Ranks by one number a candidate, the highest first and equal ones in the order of their numbers.

    Args:
        values: finite; None: never chosen.
    """
    ranking = sorted((ref for ref, value in enumerate(values) if value is not None), key=lambda p: -values[p])
    return _choice(ranking, values)


def choose_in_order(scores: Scores, order: Sequence[str], within: float = 0.0) -> Choice:
    """Ranks by the first criterion; those within ``within`` of the best of them by the second, and so on.

    Each place of the ranking is decided anew among the candidates that are left, as the best was among all.

    Args:
        scores: all of the same length.
        order: criteria, the most important first.
        within: scores this close to the best count as equal to it, from 0.

    Raises:
        ValueError: no criterion, one twice or unknown; scores of different lengths; ``within`` below 0.
    """
    number = _candidates(scores)
    if not order or len(set(order)) < len(order) or set(order) - set(scores):
        raise ValueError(
            f"order names criteria, each once, out of {', '.join(scores)}; got {', '.join(order) or 'none'}"
        )
    if not within >= 0:
        raise ValueError(f"within is a number from 0, got {within}")
    left = [ref for ref in range(number) if not any(_missing(scores[name][ref]) for name in order)]
    values = [scores[order[0]][ref] if ref in left else None for ref in range(number)]
    ranking = []
    while left:
        ranking.append(_best(scores, order, within, left))
        left.remove(ranking[-1])
    return _choice(ranking, values)


def _best(scores: Scores, order: Sequence[str], within: float, left: Sequence[int]) -> int:
    for name in order:
        highest = max(scores[name][ref] for ref in left)
        left = [ref for ref in left if scores[name][ref] >= highest - within]
    return left[0]


def _choice(ranking: Sequence[int], values: Sequence[float | None]) -> Choice:
    without = tuple(ref for ref, value in enumerate(values) if value is None)
    return Choice(ranking[0] if ranking else None, tuple(ranking), tuple(values), without)


def _candidates(scores: Scores) -> int:
    lengths = {len(values) for values in scores.values()}
    if len(lengths) != 1:
        raise ValueError(f"every criterion needs a score for each candidate; got {sorted(lengths) or 'no criterion'}")
    return lengths.pop()


def _missing(score: float | None) -> bool:
    return score is None or not math.isfinite(score)
