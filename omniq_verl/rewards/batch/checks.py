"""Checks of settings that several batch rewards share."""

import math


def check_positive(**values: object) -> None:
    """Reject values that are not positive, finite numbers.

    Raises:
        ValueError: a value is rejected; the message names the setting.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}. Fix: set reward.batch_settings.{name}")


def check_count(least: int = 1, /, **values: object) -> None:
    """Reject values that are not whole numbers of at least ``least``.

    Raises:
        ValueError: a value is rejected; the message names the setting.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"{name} must be a whole number from {least}, got {value!r}. Fix: set reward.batch_settings.{name}"
            )
