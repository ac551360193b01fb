"""Digits of numbers: half a unit of the last one of a published number, and those of a mean that count."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

MEAN_DECIMALS = 10
"""Digits behind the point of a mean of written scores; answers have two, and rounding errors begin at the fourteenth.
"""


def without_rounding_errors(means: Any) -> Any:
    """Means of scores, so that means which are equal by hand are equal numbers.

    Binary sums differ in their last bits by the number and the order of their parts. Left alone, the mean of three 3.3
    is not that of four, ranks of equal means depend on the order, and equal predictions have a correlation.

    Args:
        means: a number, an array or a pandas series, which is what is returned; NaN stays NaN.
    """
    return np.round(means, MEAN_DECIMALS)


class Rounded(float):
    """A float that also knows how far it may be rounded. Arithmetic on it returns plain floats."""

    rounding: float
    """Largest possible difference from the unrounded number, 0 or more."""

    def __new__(cls, value: float, rounding: float = 0.0) -> "Rounded":
        self = super().__new__(cls, value)
        self.rounding = rounding
        return self

    def __getnewargs__(self) -> tuple[float, float]:
        return float(self), self.rounding


def half_unit(cell: Any) -> float:
    """Half a unit of a number's last digit: 0.005 for "4.31", 0.05 for "4.0", 0.5 for "4", 5.0 for "1.84e+03".

    Args:
        cell: a text, or a number, which is read as Python prints it.
    """
    digits = _decimal(cell)
    return 0.0 if digits is None else 0.5 * 10.0 ** _exponent(digits)


def _decimal(cell: Any) -> Decimal | None:
    try:
        found = Decimal(cell.strip() if isinstance(cell, str) else repr(float(cell)))
    except (InvalidOperation, ValueError, TypeError, OverflowError):
        return None
    return found if found.is_finite() else None


def _exponent(number: Decimal) -> int:
    return int(number.as_tuple().exponent)  # a letter only for numbers that are not finite


def row_roundings(cells: Sequence[Any]) -> list[float]:
    """How far each number of a row may be rounded, if all were written in the same format.

    Args:
        cells: the row's numbers, as ``half_unit`` takes them. The most decimals and the most significant digits of any
            cell are taken as the format's; the coarser of the two applies.
    """
    plain = [_decimal(cell) or Decimal(0) for cell in cells]
    decimals = max((-_exponent(one) for one in plain), default=0)
    significant = max((len(one.as_tuple().digits) for one in plain if one), default=1)
    return [0.5 * 10.0 ** max(-decimals, one.adjusted() - significant + 1 if one else -decimals) for one in plain]
