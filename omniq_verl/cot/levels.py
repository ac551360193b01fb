"""Boundaries of the five levels of a data source."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omniq_verl.cot.draw import by_source
from omniq_verl.data.row_refs import RowRef
from omniq_verl.tasks import LEVELS, task_of

RULES = ("scale", "range", "quantiles")


@dataclass(frozen=True)
class Cut:
    """A range of scores, divided into the five levels."""

    edges: tuple[float, ...]
    """Six ascending edges; the worst level is between the first two."""

    def level(self, score: float) -> str:
        """Return the level of a score. An edge belongs to the upper level; scores beyond an end get the end level."""
        return LEVELS[bisect_right(self.edges[1:-1], score)]

    def bounds(self, level: str) -> tuple[float, float]:
        """Return the lowest and highest score of a level."""
        number = LEVELS.index(level)
        return self.edges[number], self.edges[number + 1]


def cut_scores(scores: Sequence[float], low: float, high: float, rule: str) -> Cut:
    """Divide a data set's scores into the five levels.

    Args:
        scores: all labels of the data set, on its scale.
        low, high: ends of the scale.
        rule: ``scale``: five equal parts of the scale, whatever the labels; ``range``: five equal parts between the
            lowest and the highest label; ``quantiles``: a fifth of the labels in each level.

    Raises:
        ValueError: a level would have no width, because all labels, or more than a fifth of them, are equal.
    """
    if rule == "scale":
        # Computed as in Scale.level: np.linspace would give 3.4000000000000004.
        return Cut(tuple(low + (high - low) * step / len(LEVELS) for step in range(len(LEVELS) + 1)))
    lowest, highest = min(scores), max(scores)
    shares = np.linspace(0, 1, len(LEVELS) + 1)
    edges = np.quantile(scores, shares) if rule == "quantiles" else lowest + (highest - lowest) * shares
    edges[0], edges[-1] = lowest, highest
    if not (np.diff(edges) > 0).all():
        raise ValueError(
            f"{rule} of {len(scores)} labels from {lowest:g} to {highest:g} do not give five levels: too many labels"
            " are equal. Fix: select.levels=scale, or select.levels_of for this data source alone"
        )
    return Cut(tuple(map(float, edges)))


def cut_sources(refs: Iterable[RowRef], rule: str, rules: Mapping[str, str]) -> dict[str, Cut]:
    """Return the levels of each data source, computed from the labels of all its rows.

    Args:
        refs: all rows of the data, drawn or not.
        rule: the rule for every data source that ``rules`` does not name.
        rules: other rules, by data source.

    Raises:
        ValueError: the rows of a data source have several scales, ``rules`` names a data source without rows, or
            ``cut_scores`` raises an error.
    """
    sources = by_source(refs)
    if unknown := sorted(rules.keys() - sources.keys()):
        raise ValueError(f"select.levels_of: there are no rows of {unknown[0]}. Fix: use {', '.join(sources)}")
    found = {}
    for name, rows in sources.items():
        scales = {task_of(ref.info).score_scale for ref in rows}
        if len(scales) > 1:
            raise ValueError(f"{name}: its rows have several scales. Fix: prepare all of them with one --scale")
        scale = scales.pop()
        try:
            found[name] = cut_scores([ref.info["score"] for ref in rows], scale.low, scale.high, rules.get(name, rule))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found
