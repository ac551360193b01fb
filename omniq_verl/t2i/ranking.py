"""Pick the best of several images by one or more scores. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Scores = Mapping[str, Sequence[float | None]]
"""By criterion, e.g. ``alignment``: one score per candidate; None or NaN if it has none."""


@dataclass(frozen=True)
class Choice:
    """The best candidate and the ranking."""

    best: int | None
    """Number of the best candidate; None: no candidate has all requested scores."""
    ranking: tuple[int, ...]
    """All candidates with scores, best first; ties by candidate number."""
    values: tuple[float | None, ...]
    """Value each candidate was ranked by: the weighted mean, or its score on the first criterion."""
    without: tuple[int, ...]
    """Candidates that lack a score; never chosen."""


def read_weights(words: Sequence[str]) -> dict[str, float]:
    """Parse weights by task from TASK=WEIGHT.

    Raises:
        ValueError: a word does not have this form.
    """
    found = {}
    for word in words:
        task, _, weight = word.partition("=")
        try:
            found[task] = float(weight)
        except ValueError:
            raise ValueError(f"{word!r} is not TASK=WEIGHT, for example aesthetic=0.5") from None
    return found


def choose_weighted(scores: Scores, weights: Mapping[str, float] | None = None) -> Choice:
    """Rank by the weighted mean of the scores.

    Args:
        scores: all of the same length and on the same scale.
        weights: by criterion, >= 0 and at least one > 0; None: equal weights. Criteria that are missing here or have
            weight 0 are ignored and need not be in ``scores``.

    Raises:
        ValueError: invalid weights, a weight of an unknown criterion, or scores of different lengths.
    """
    _candidates(scores)
    weights = dict.fromkeys(scores, 1.0) if weights is None else dict(weights)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or not sum(weights.values()):
        raise ValueError(f"weights must be >= 0 and at least one > 0; got {weights}")
    used = {name: weight for name, weight in weights.items() if weight > 0}
    if unknown := used.keys() - scores.keys():
        raise ValueError(f"weights of {', '.join(sorted(unknown))}, but the scores are {', '.join(scores)}")
    rows = zip(*(scores[name] for name in used), strict=True)
    return choose_by_values([_weighted(row, list(used.values())) for row in rows])


def _weighted(scores: Sequence[float | None], weights: Sequence[float]) -> float | None:
    known = [score for score in scores if score is not None and math.isfinite(score)]
    if len(known) < len(scores):
        return None
    return math.fsum(weight * score for weight, score in zip(weights, known, strict=True)) / sum(weights)


def choose_by_values(values: Sequence[float | None]) -> Choice:
    """Rank by one number per candidate, highest first; ties by candidate number.

    Args:
        values: finite; None: never chosen.
    """
    known = {index: value for index, value in enumerate(values) if value is not None}
    return _choice(sorted(known, key=lambda index: -known[index]), values)


def choose_in_order(scores: Scores, order: Sequence[str], within: float = 0.0) -> Choice:
    """Rank by the first criterion; candidates within ``within`` of the best by the second, and so on.

    Each rank is decided in the same way among the remaining candidates.

    Args:
        scores: all of the same length.
        order: criteria, most important first.
        within: scores this close to the best count as equal to it; >= 0.

    Raises:
        ValueError: no criterion, a repeated or unknown one, scores of different lengths, or ``within`` below 0.
    """
    number = _candidates(scores)
    if not order or len(set(order)) < len(order) or set(order) - set(scores):
        raise ValueError(
            f"order must name criteria, each once, out of {', '.join(scores)}; got {', '.join(order) or 'none'}"
        )
    if not within >= 0:
        raise ValueError(f"within must be >= 0, got {within}")
    left = [index for index in range(number) if not any(_missing(scores[name][index]) for name in order)]
    values = [scores[order[0]][index] if index in left else None for index in range(number)]
    ranking = []
    while left:
        ranking.append(_best(scores, order, within, left))
        left.remove(ranking[-1])
    return _choice(ranking, values)


def _best(scores: Scores, order: Sequence[str], within: float, left: Sequence[int]) -> int:
    for name in order:
        known = {index: score for index in left if (score := scores[name][index]) is not None}
        left = [index for index, score in known.items() if score >= max(known.values()) - within]
    return left[0]


def _choice(ranking: Sequence[int], values: Sequence[float | None]) -> Choice:
    without = tuple(index for index, value in enumerate(values) if value is None)
    return Choice(ranking[0] if ranking else None, tuple(ranking), tuple(values), without)


def _candidates(scores: Scores) -> int:
    lengths = {len(values) for values in scores.values()}
    if len(lengths) != 1:
        raise ValueError(f"every criterion needs a score for each candidate; got {sorted(lengths) or 'no criterion'}")
    return lengths.pop()


def _missing(score: float | None) -> bool:
    return score is None or not math.isfinite(score)
