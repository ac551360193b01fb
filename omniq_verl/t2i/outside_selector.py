"""A selector from outside of this package: ``omniq t2i best-of-n --selector my_pkg.selectors:function``."""

import math
import numbers

from omniq_verl.doors import described, open_function
from omniq_verl.t2i.ranking import Choice, Scores, choose_by_values

EXPECTED = "function(scores: mapping from a task to one score or None for each image) -> one number or None for each"


def choose_by(name: str, scores: Scores) -> Choice:
    """The best of a text's images by the numbers that a function of the user's own gives them.

    Args:
        name: ``package.module:function``. It gets the scores and returns as many numbers as there are images, the
            highest for the best; None: never chosen.
        scores: by task.

    Raises:
        ValueError: there is no such function, it fails, or it returns something else.
    """
    function = open_function("--selector", name, EXPECTED, 1)
    images = len(next(iter(scores.values())))
    try:
        values = list(function({task: list(some) for task, some in scores.items()}))
    except Exception as error:  # whatever the user's own function raises
        raise ValueError(f"--selector {name} fails for {images} images: {described(error)}") from error
    numbered = [None if value is None else _number(value) for value in values]
    if len(values) != images or any(value is not None and math.isnan(value) for value in numbered):
        raise ValueError(f"--selector {name} returns {values!r:.80} for {images} images. Fix: name {EXPECTED}")
    return choose_by_values(numbered)


def _number(value: object) -> float:
    """NaN where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return math.nan
    return float(value)
