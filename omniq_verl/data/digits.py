"""Precision of numbers: how far a published number may be rounded, and which digits of a mean count."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

MEAN_DECIMALS = 10
"""Decimals that count in a mean of written scores. Answers have two; rounding errors start at the fourteenth."""


def without_rounding_errors(means: Any) -> Any:
    """Round means of scores, so that means that are equal on paper are equal floats.

    The last bits of a floating-point sum depend on the number and the order of its terms. Without rounding, the mean of
    three times 3.3 differs from the mean of four, the ranks of equal means depend on the order, and equal predictions
    have a correlation.

    Args:
        means: a number, an array or a pandas series; the result has the same type. NaN stays NaN.
    """
    return np.round(means, MEAN_DECIMALS)


class Rounded(float):
    """A float that also records how far it may have been rounded. Arithmetic on it returns plain floats."""

    rounding: float
    """Largest possible difference from the unrounded number, 0 or more."""

    def __new__(cls, value: float, rounding: float = 0.0) -> "Rounded":
        self = super().__new__(cls, value)
        self.rounding = rounding
        return self

    def __getnewargs__(self) -> tuple[float, float]:
        return float(self), self.rounding


def half_unit(cell: Any) -> float:
    """Return half a unit of a number's last digit: 0.005 for "4.31", 0.05 for "4.0", 0.5 for "4", 5.0 for "1.84e+03".

    Args:
        cell: a text, or a number, whose digits are those that Python prints.
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
    return int(number.as_tuple().exponent)  # a letter only if the number is not finite


def row_roundings(cells: Sequence[Any]) -> list[float]:
    """Return how far each number of a row may have been rounded, if all were written in the same format.

    Args:
        cells: the row's numbers, as for ``half_unit``. The largest number of decimals and of significant digits in any
            cell are taken as the format; the coarser of the two applies.
    """
    plain = [_decimal(cell) or Decimal(0) for cell in cells]
    decimals = max((-_exponent(one) for one in plain), default=0)
    significant = max((len(one.as_tuple().digits) for one in plain if one), default=1)
    return [0.5 * 10.0 ** max(-decimals, one.adjusted() - significant + 1 if one else -decimals) for one in plain]
