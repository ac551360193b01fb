"""All rollouts of a step, as batch rewards see them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Answers of one draw of prompts, one entry per rollout in each column (``[N]``).

    A draw consists of whole groups: it has no padding rows, no failed rollouts, and no rollouts of other steps. The
    order has no meaning. NaN means "none".

    Raises:
        ValueError: the columns differ in length.
    """

    texts: Sequence[str]
    """Whole answers, reasoning included."""
    tokens: np.ndarray
    """Length of each answer in tokens, int."""
    groups: np.ndarray
    """Index of the rollout's group (the answers to one prompt), int."""
    images: np.ndarray
    """Id of the row that the prompt comes from (``extra_info.id``), str."""
    sources: np.ndarray
    """Name of the data source, str."""
    tasks: np.ndarray
    """Name of the task, str."""
    pred: np.ndarray
    """Parsed score, on the task's scale, float64; NaN if none could be parsed."""
    target: np.ndarray
    """Label, on the same scale, float64; NaN if the task asks for no score."""
    label_std: np.ndarray
    """Standard deviation of the ratings behind the label, on the same scale; NaN if the data set has none."""
    low: np.ndarray
    """Lower end of the scale; NaN if there is no scale."""
    high: np.ndarray
    """Upper end of the scale."""
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Everything else that the per-sample reward function returned, by name, float64."""

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS} | {k: len(v) for k, v in self.parts.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"the columns of the rollouts differ in length: {lengths}. Fix: give one value per rollout"
            )

    def __len__(self) -> int:
        return len(self.texts)

    def comparable(self, labelled: bool = True) -> Iterator[np.ndarray]:
        """Yield sets of rollouts that may be compared: same data source, task and scale, and a parsed score.

        Args:
            labelled: only rollouts with a label.

        Yields:
            Row indices, int ``[n]``; never empty.
        """
        usable = np.isfinite(self.pred) & (np.isfinite(self.target) if labelled else True)
        kinds: dict[tuple, list[int]] = {}
        for row in np.flatnonzero(usable):
            kind = (self.sources[row], self.tasks[row], float(self.low[row]), float(self.high[row]))
            kinds.setdefault(tuple(map(str, kind)), []).append(int(row))
        for kind in sorted(kinds):
            yield np.array(kinds[kind])

    def rated(self) -> np.ndarray:
        """Return which rollouts have a label with a standard deviation, bool ``[N]``."""
        return np.isfinite(self.label_std) & (self.label_std >= 0)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Rollouts":
        """Return a subset of the rollouts, in the given order."""
        index = np.asarray(rows, dtype=int)
        columns = {name: np.asarray(getattr(self, name))[index] for name in _COLUMNS if name != "texts"}
        parts = {name: values[index] for name, values in self.parts.items()}
        return Rollouts(texts=[self.texts[int(i)] for i in index], parts=parts, **columns)


_COLUMNS = (
    "texts", "tokens", "groups", "images", "sources", "tasks", "pred", "target", "label_std", "low", "high",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Groups:
    """Scores of comparable rollouts, summarised by group: ``G`` groups with ``n`` rollouts in total."""

    member: np.ndarray
    """Index of each rollout's group, from 0 to ``G - 1``, ``[n]``."""
    mean: np.ndarray
    """Mean score of each group, ``[G]``."""
    variance: np.ndarray
    """Population variance of each group's scores, ``[G]``."""
    target: np.ndarray
    """Label of each group, ``[G]``."""


def summed_up(rollouts: Rollouts, rows: np.ndarray) -> Groups:
    """Compute the mean and variance of the scores of each group among ``rows``, which must be comparable rollouts."""
    _, first, member = np.unique(rollouts.groups[rows], return_index=True, return_inverse=True)
    pred, count = rollouts.pred[rows], np.bincount(member)
    mean = np.bincount(member, pred) / count
    variance = np.bincount(member, (pred - mean[member]) ** 2) / count
    return Groups(member, mean, variance, rollouts.target[rows][first])
