"""Custom selectors: ``omniq t2i best-of-n --selector my_pkg.selectors:function``."""

import math
import numbers

from omniq_verl.object_reference import described, load_function
from omniq_verl.t2i.ranking import Choice, Scores, choose_by_values

EXPECTED = "function(scores: mapping from a task to one score or None for each image) -> one number or None for each"


def choose_by(name: str, scores: Scores) -> Choice:
    """Pick the best of a text's images by the values of a custom function.

    Args:
        name: ``package.module:function``. It gets the scores and returns one number per image, the highest for the
            best; None excludes an image.
        scores: by task.

    Raises:
        ValueError: the function does not exist, fails, or returns something else.
    """
    function = load_function("--selector", name, EXPECTED, 1)
    images = len(next(iter(scores.values())))
    try:
        values = list(function({task: list(some) for task, some in scores.items()}))
    except Exception as error:  # the user's function may raise anything
        raise ValueError(f"--selector {name} fails for {images} images: {described(error)}") from error
    numbered = [None if value is None else _number(value) for value in values]
    if len(values) != images or any(value is not None and math.isnan(value) for value in numbered):
        raise ValueError(f"--selector {name} returns {values!r:.80} for {images} images. Fix: name {EXPECTED}")
    return choose_by_values(numbered)


def _number(value: object) -> float:
    """The value as a float; NaN if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return math.nan
    return float(value)
