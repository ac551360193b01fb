"""Rollouts for tests of batch rewards, and the rewards' equations as plain loops."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from omniq_verl.rewards.batch import Rollouts

Answer = float | None


def rollouts_from(
    images: Sequence[tuple[Sequence[Answer], float]],
    sources: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    stds: Sequence[float] | None = None,
    texts: Sequence[str] | None = None,
    tokens: Sequence[int] | None = None,
) -> Rollouts:
    """Rollouts on the scale 1 to 5.

    Args:
        images: of each image the scores of its answers (None: no score), and its label.
        sources: of each image; one for all where left out.
        tasks: of each image, likewise.
        stds: of each image's ratings; none where left out.
        texts: of all answers.
        tokens: of all answers.
    """
    group = [number for number, (answers, _) in enumerate(images) for _ in answers]
    pred = [math.nan if score is None else score for answers, _ in images for score in answers]
    count = len(group)

    def spread(values: Sequence | None, default: object) -> np.ndarray:
        return np.array([default if values is None else values[number] for number in group])

    return Rollouts(
        texts=list(texts or [""] * count),
        tokens=np.array(tokens if tokens is not None else [10] * count),
        groups=np.array(group),
        images=np.array([f"image{number}" for number in group], dtype=object),
        sources=spread(sources, "koniq"),
        tasks=spread(tasks, "technical"),
        pred=np.array(pred, dtype=float),
        target=np.array([images[number][1] for number in group], dtype=float),
        label_std=spread(stds, math.nan).astype(float),
        low=np.ones(count),
        high=np.full(count, 5.0),
    )


def given(answers: Sequence[Answer]) -> list[float]:
    return [score for score in answers if score is not None]


def phi(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def true_preference(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)


def fidelity(p: float, q: float) -> float:
    return math.sqrt(p * q) + math.sqrt((1 - p) * (1 - q))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    return mean([(value - mean(values)) ** 2 for value in values])


def reference(images: Sequence[tuple[Sequence[Answer], float]], of_pair: Callable) -> list[float]:
    """Mean of ``of_pair(score, own answers, other answers, own label, other label)`` over the other images."""
    found = []
    for number, (answers, label) in enumerate(images):
        others = [(given(a), y) for other, (a, y) in enumerate(images) if other != number and given(a)]
        for score in answers:
            values = [of_pair(score, given(answers), a, label, y) for a, y in others] if score is not None else []
            values = [value for value in values if value is not None]
            found.append(mean(values) if values else 0.0)
    return found


def thurstone_pair(score, own, other, label, other_label, gamma=1e-6) -> float:
    z = (score - mean(other)) / math.sqrt(variance(own) + variance(other) + gamma)
    return fidelity(true_preference(label, other_label), phi(z))


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def soft_ranking(images: Sequence[tuple[Sequence[Answer], float]], tau=0.08, margin=0.12, gamma=1e-6) -> list[float]:
    """TATAR's ranking on the scale 1 to 5: one less the weighted cross-entropy of preferences, over its bound."""
    unit = [([None if q is None else (q - 1) / 4 for q in answers], (y - 1) / 4) for answers, y in images]
    found = []
    for number, (answers, label) in enumerate(unit):
        others = [(given(a), y) for other, (a, y) in enumerate(unit) if other != number and given(a)]
        for score in answers:
            losses, weights = [], []
            for other, other_label in others if score is not None else []:
                root = math.sqrt(variance(given(answers)) + variance(other) + gamma)
                p, q = logistic((label - other_label) / tau), logistic((score - mean(other)) / root)
                q = min(max(q, gamma), 1 - gamma)
                weights.append(math.exp(-abs(label - other_label) / margin))
                losses.append(-p * math.log(q) - (1 - p) * math.log(1 - q))
            loss = sum(w * one for w, one in zip(weights, losses, strict=True)) / sum(weights) if weights else math.inf
            found.append(max(0.0, 1 - loss / -math.log(gamma)))
    return found


def voted_pair(score, own, other, _label, _other_label, gamma=1e-6) -> float:
    votes = sum((a > b) - (a < b) for a in own for b in other)
    return thurstone_pair(score, own, other, votes, 0, gamma)


def ordered_pair(score, _own, other, label, other_label, tie=0.5) -> float | None:
    if label == other_label:
        return None
    return mean([tie if score == one else float((score > one) == (label > other_label)) for one in other])
