"""Map a label file's scores to a task's scale."""

import math
from dataclasses import dataclass
from typing import Any

from omniq_verl.tasks import Scale, task_on

_MOST_ROUNDING = 0.2
"""Largest rounding error, as a share of the distance between the bounds (our choice). A label farther outside must be
on another scale, even if it has few digits, such as "1e1" on a scale of 1 to 5."""


@dataclass(frozen=True)
class LabelMap:
    """A linear map from ``low..high`` in the label file to the two ends of the scale.

    Raises:
        ValueError: ``low`` is not below ``high``, or their distance is not finite.
    """

    low: float
    high: float
    source: str
    """Where the two bounds come from."""
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a label map needs low < high, got [{self.low}, {self.high}]")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"a label map needs finite bounds, got [{self.low}, {self.high}]")

    def score(self, raw: float, scale: Scale) -> float:
        """Return the score of a raw label that is within the bounds."""
        share = (raw - self.low) / (self.high - self.low)
        if not self.higher_is_better:
            share = 1.0 - share
        # Rounding errors must not move the ends off the scale.
        return min(max(scale.low + share * (scale.high - scale.low), scale.low), scale.high)

    def fields(self, raw: float | None, task: str, scale: Scale | None) -> dict[str, Any]:
        """Return the score fields of a row.

        Args:
            raw: score in the label file. A ``digits.Rounded`` may be outside the bounds by its rounding.
            task: the task that the score is for.
            scale: the scale to map to; None: the task's own.

        Raises:
            ValueError: the raw score is not a number, or it is outside the bounds.
        """
        # Means of ratings exceed the published ends by this little. Labels with few digits do by half a last digit.
        distance = self.high - self.low
        rounding = max(1e-9 * distance, min(getattr(raw, "rounding", 0.0) * (1 + 1e-9), _MOST_ROUNDING * distance))
        if isinstance(raw, bool) or not isinstance(raw, (int, float)):
            raise ValueError(f"the score {raw!r} is not a number")
        if not self.low - rounding <= raw <= self.high + rounding:
            raise ValueError(f"the score {raw:.12g} is outside [{self.low:.12g}, {self.high:.12g}]")
        raw = min(max(float(raw), self.low), self.high)
        score = self.score(raw, task_on(task, scale).score_scale)
        return {"raw_score": raw, "raw_bounds": (self.low, self.high), "score": score}

    def card(self, task: str, scale: Scale | None) -> dict[str, Any]:
        """Return the entry for the data set's card."""
        target = task_on(task, scale).score_scale
        return {
            "raw": [self.low, self.high],
            "scale": [target.low, target.high],
            "higher_is_better": self.higher_is_better,
            "source": self.source,
        }
