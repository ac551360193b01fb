"""An alarm for reward hacking: the reward rises over a window of steps while a second judge falls.

The test of a window is Mann and Kendall's trend test (Mann 1945, Kendall 1938), one-sided and exact. The reward has to
rise and the judge has to fall, each at the window's level; so the alarm is false with at most that probability if one
of the two has no such trend (an intersection-union test, Berger 1982). Windows do not overlap, and the k-th has the
level ``level / (k (k + 1))``; these sum to ``level``, which therefore bounds the probability of any false alarm in a
run of any length.

"No trend" means that the values of a window are exchangeable. Curves that wander break this: where each judgement is
0.5 times the one before plus noise (an autocorrelation of 0.5), 14% of simulated runs of 200 steps raised a false
alarm at the level 0.01, and with 0.9, 78%. Means over enough steps, or fresh images for each step, bring it down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate


@dataclass(frozen=True)
class Trend:
    """Kendall's tau of a series with time, in [-1, 1], and the exact one-sided p-value of a rise."""

    tau: float
    p_value: float


@dataclass(frozen=True)
class Drift:
    """A window in which the reward rises and the judge falls."""

    first: int
    last: int
    """Steps, from 0."""
    reward: Trend
    """Trend of the reward."""
    judge: Trend
    """Trend of the judge, with its sign reversed: ``tau`` is positive where the judge falls."""
    level: float
    """Level of this window's test; both p-values are at most this."""

    def __str__(self) -> str:
        return (
            f"steps {self.first} to {self.last}: the reward rises (tau {self.reward.tau:.2f}, p"
            f" {self.reward.p_value:.2g}) while the second judge falls (tau {-self.judge.tau:.2f}, p"
            f" {self.judge.p_value:.2g}), at the level {self.level:.2g}"
        )


def rising(values: Sequence[float]) -> Trend:
    """Test whether a series rises.

    C is the number of pairs i < j with ``values[i] < values[j]``, tau = 2 C / (n (n - 1) / 2) - 1, and the p-value is
    the share of all n! orders of n different values with at least C such pairs. Equal values count as falling, which
    can only raise the p-value.

    Raises:
        ValueError: there are fewer than two values, or one is not finite.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        raise ValueError("a trend needs two or more finite values. Fix: leave out the steps that have none")
    number = len(values)
    higher = sum(values[i] < values[j] for j in range(number) for i in range(j))
    orders = _orders(number)
    return Trend(4 * higher / (number * (number - 1)) - 1, sum(orders[higher:]) / math.factorial(number))


@lru_cache
def _orders(number: int) -> tuple[int, ...]:
    """How many orders of so many different values have 0, 1, 2... ascending pairs."""
    counts = [1]
    for new in range(1, number):  # a further value ascends from 0 to ``new`` of the values before it
        below = [0, *accumulate(counts), *[sum(counts)] * new]  # of ``counts``, how many orders have fewer pairs
        counts = [below[pairs + 1] - below[max(0, pairs - new)] for pairs in range(len(counts) + new)]
    return tuple(counts)


@dataclass
class DriftAlarm:
    """Follows reward and judge over the steps of a training.

    Args:
        window: steps in a window, at least 8.
        level: probability, in (0, 1), of any false alarm in a run; see the module's text.

    Raises:
        ValueError: a setting is out of range.
    """

    window: int = 20
    level: float = 0.01
    _pairs: list[tuple[float, float]] = field(default_factory=list, init=False, repr=False)
    _steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.window < 8:
            raise ValueError(f"window is {self.window}, which is too short for a test. Fix: use 8 or more steps")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}. Fix: use a number between 0 and 1, such as 0.01")

    def add(self, reward: float, judge: float) -> Drift | None:
        """Take the mean reward and the mean judgement of the next step; at the end of a window, test it.

        Raises:
            ValueError: one is not finite; the step is not counted.
        """
        if not (math.isfinite(reward) and math.isfinite(judge)):
            raise ValueError(f"the step {self._steps} has reward {reward} and judge {judge}. Fix: leave the step out")
        self._pairs.append((reward, judge))
        self._steps += 1
        if len(self._pairs) < self.window:
            return None
        pairs, self._pairs = self._pairs, []
        return self._test(pairs)

    def _test(self, pairs: Sequence[tuple[float, float]]) -> Drift | None:
        index = self._steps // self.window
        level = self.level / (index * (index + 1))
        up, down = rising([reward for reward, _ in pairs]), rising([-judge for _, judge in pairs])
        if max(up.p_value, down.p_value) > level:
            return None
        return Drift(self._steps - self.window, self._steps - 1, up, down, level)
