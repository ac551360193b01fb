"""An alarm for reward hacking: the reward rises over a window of steps while a second judge falls.

The reward has to rise and the judge has to fall, each at the window's level. If one of the two has no trend, the
probability of an alarm is therefore at most that level (an intersection-union test, Berger 1982). Windows do not
overlap, and the k-th window has the level ``level / (k (k + 1))``. These sum to ``level``, so ``level`` bounds the
probability of any false alarm in a run of any length.

Training curves are autocorrelated: a step's mean depends on the steps before it. The test therefore cuts a window into
parts, fits a line to each part, and uses a one-sided t-test to check whether the slopes are above zero (after Ibragimov
and Mueller 2010, with the slopes as the estimates of the groups). A slope does not depend on the value at which its
part begins, so the slopes are independent both for noise without memory and for a random walk. For an autocorrelation
in between, a rise in one part makes a fall in the next more likely; in simulations this only made alarms rarer. All of
this holds for normal noise with an autocorrelation from 0 to 1. It does not cover a judge that swings back and forth
over many steps.

The test has less power than one that treats the steps as independent, so a trend has to be larger.
``correlated=False`` selects such a test, the exact one of Mann (1945) and Kendall (1938). In simulated runs of 200
steps, where each judgement was 0.5 times the one before plus noise, that test raised a false alarm in 14% of runs at
the level 0.01.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from statistics import fmean, linear_regression, stdev


@dataclass(frozen=True)
class Trend:
    """Kendall's tau of a series with time, in [-1, 1], and the one-sided p-value of a rise."""

    tau: float
    p_value: float


PARTS = 5
"""Parts of a window. Our choice: fewer leave the t-test too few degrees of freedom, more make the lines too short."""


@dataclass(frozen=True)
class Drift:
    """A window in which the reward rises and the judge falls."""

    first: int
    last: int
    """First and last step of the window, counted from 0."""
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
    higher, number = _ascents(values, 2), len(values)
    orders = _orders(number)
    return Trend(_tau(higher, number), sum(orders[higher:]) / math.factorial(number))


def rising_by_parts(values: Sequence[float], parts: int = PARTS) -> Trend:
    """Test whether a series rises if its values may be correlated with earlier ones.

    The series is cut into ``parts`` parts of ``m`` values each; up to ``parts - 1`` values at its beginning are left
    out. If b_1 .. b_q are the least-squares slopes of the parts, t = mean(b) sqrt(q) / sd(b) with q - 1 degrees of
    freedom.

    Raises:
        ValueError: a part would have fewer than three values, or a value is not finite.
    """
    higher = _ascents(values, 3 * parts)
    length = len(values) // parts
    used = values[len(values) - length * parts :]
    slopes = [linear_regression(range(length), used[first : first + length]).slope for first in _starts(parts, length)]
    return Trend(_tau(higher, len(values)), _above_zero(slopes))


def _starts(parts: int, length: int) -> range:
    return range(0, parts * length, length)


def _above_zero(slopes: Sequence[float]) -> float:
    """Return the p-value of the one-sided t-test. If all slopes are equal, it is 0 above zero and 1 otherwise."""
    from scipy.stats import t as student

    spread, middle = stdev(slopes), fmean(slopes)
    if spread == 0:
        return float(middle <= 0)
    return float(student.sf(middle * math.sqrt(len(slopes)) / spread, len(slopes) - 1))


def _ascents(values: Sequence[float], fewest: int) -> int:
    if len(values) < fewest or not all(map(math.isfinite, values)):
        raise ValueError(f"a trend needs {fewest} or more finite values. Fix: leave out the steps that have none")
    return sum(values[i] < values[j] for j in range(len(values)) for i in range(j))


def _tau(higher: int, number: int) -> float:
    return 4 * higher / (number * (number - 1)) - 1


@lru_cache
def _orders(number: int) -> tuple[int, ...]:
    """Return how many orders of ``number`` different values have 0, 1, 2... ascending pairs."""
    counts = [1]
    for new in range(1, number):  # a new value is above 0 to ``new`` of the values before it
        below = [0, *accumulate(counts), *[sum(counts)] * new]  # number of orders with fewer pairs
        counts = [below[pairs + 1] - below[max(0, pairs - new)] for pairs in range(len(counts) + new)]
    return tuple(counts)


@dataclass
class DriftAlarm:
    """Follows reward and judge over the steps of a training run.

    Args:
        window: steps in a window, at least 15, or 8 without ``correlated``.
        level: probability, in (0, 1), of any false alarm in a run; see the module's docstring.
        correlated: whether a step's values may depend on the steps before.

    Raises:
        ValueError: a setting is out of range.
    """

    window: int = 40
    level: float = 0.01
    correlated: bool = True
    _pairs: list[tuple[float, float]] = field(default_factory=list, init=False, repr=False)
    _steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        fewest = 3 * PARTS if self.correlated else 8
        if self.window < fewest:
            raise ValueError(f"window is {self.window}, which is too short for a test. Fix: use {fewest} or more steps")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}. Fix: use a number between 0 and 1, such as 0.01")

    def add(self, reward: float, judge: float) -> Drift | None:
        """Take the mean reward and the mean judgement of the next step; at the end of a window, test it.

        Raises:
            ValueError: a value is not finite; the step is then not counted.
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
        test = rising_by_parts if self.correlated else rising
        up, down = test([reward for reward, _ in pairs]), test([-judge for _, judge in pairs])
        if max(up.p_value, down.p_value) > level:
            return None
        return Drift(self._steps - self.window, self._steps - 1, up, down, level)
