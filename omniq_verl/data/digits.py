"""How far a published number may be from the true one: half a unit of the last digit it was given with."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any


class Rounded(float):
    """A number, and how far it may be rounded. In all else it is a float, and what is computed from it is one."""

    rounding: float
    """Most it differs from the number it was rounded from, 0 or more."""

    def __new__(cls, value: float, rounding: float = 0.0) -> "Rounded":
        self = super().__new__(cls, value)
        self.rounding = rounding
        return self

    def __getnewargs__(self) -> tuple[float, float]:
        return float(self), self.rounding


def half_unit(cell: Any) -> float:
    """Half a unit of a number's last digit: 0.005 of "4.31", 0.05 of "4.0", 0.5 of "4", 5.0 of "1.84e+03".

    Args:
        cell: text, or a number, whose digits are then those Python prints.
    """
    digits = _decimal(cell)
    return 0.0 if digits is None else 0.5 * 10.0 ** digits.as_tuple().exponent


def _decimal(cell: Any) -> Decimal | None:
    try:
        found = Decimal(cell.strip() if isinstance(cell, str) else repr(float(cell)))
    except (InvalidOperation, ValueError, TypeError, OverflowError):
        return None
    return found if found.is_finite() else None


def row_roundings(cells: Sequence[Any]) -> list[float]:
    """How far each number of a row may be rounded, where all were written in one way.

    Args:
        cells: of a row, numbers as ``half_unit`` takes them. The one with the most decimals tells how many there are,
            the one with the most significant digits likewise, and the coarser of both holds.
    """
    plain = [_decimal(cell) or Decimal(0) for cell in cells]
    decimals = max((-one.as_tuple().exponent for one in plain), default=0)
    significant = max((len(one.as_tuple().digits) for one in plain if one), default=1)
    return [0.5 * 10.0 ** max(-decimals, one.adjusted() - significant + 1 if one else -decimals) for one in plain]
