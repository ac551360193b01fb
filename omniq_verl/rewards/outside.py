"""Custom score rewards: ``score_reward: my_pkg.rewards:function``.

The function gets a predicted score and its label, both on the task's scale, and returns a number from 0 to 1. The
number must not be negative, because an answer that cannot be parsed earns 0 and must not earn more than one that can.
"""

import math
import numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from omniq_verl.object_reference import described, load_function
from omniq_verl.tasks import TECHNICAL

ScoreReward = Callable[[float, float], float]
SETTING = "reward.custom_reward_function.reward_kwargs.score_reward"
EXPECTED = "function(pred: float, target: float, **score_settings) -> float from 0 to 1"


def open_reward(name: str, settings: Mapping[str, Any]) -> ScoreReward:
    """Load a custom reward function and bind its settings.

    Raises:
        BadReference: the function cannot be imported or has other parameters.
    """
    function = load_function(SETTING, name, EXPECTED, 2, tuple(settings))
    return partial(function, **settings) if settings else function


def called(name: str, function: ScoreReward, pred: float, target: float) -> float:
    """Return the reward of one answer.

    Args:
        name: the function's name, for error messages.
        function: the user's function.
        pred: predicted score.
        target: label, on the same scale.

    Raises:
        ValueError: the function fails or returns anything other than a number from 0 to 1.
    """
    try:
        value: Any = function(pred, target)
    except Exception as error:  # the user's function may raise anything
        raise ValueError(f"{name} fails for pred={pred:g} and target={target:g}: {described(error)}") from error
    number = number_of(value)
    if not 0 <= number <= 1:  # NaN is not either
        raise ValueError(
            f"{name} returns {value!r:.80} for pred={pred:g} and target={target:g}. Fix: return a number from 0 to 1"
            " (an answer that cannot be parsed earns 0)"
        )
    return number


def number_of(value: Any) -> float:
    """Return a Python, NumPy or torch number as a float; NaN for None, texts, several values and anything else."""
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError):  # NumPy and torch raise these for several values
            return math.nan
    return float(value) if isinstance(value, numbers.Real) else math.nan


def probe(function: ScoreReward) -> None:
    """Call a score reward with all pairs of whole scores from 1 to 5, before training depends on it.

    Args:
        function: ``RewardSettings.score_function``.

    Raises:
        ValueError: the function fails, returns anything other than a number from 0 to 1, or rewards a wrong score more
            than the correct one.
    """
    low, high = int(TECHNICAL.score_scale.low), int(TECHNICAL.score_scale.high)
    scores = [float(score) for score in range(low, high + 1)]
    earned = {(pred, target): function(pred, target) for target in scores for pred in scores}
    for (pred, target), value in earned.items():
        if value > (right := earned[target, target]):
            raise ValueError(
                f"for the label {target:g} the score {pred:g} earns {value:g}, but the correct score earns {right:g}."
                " Fix: return the closeness to the label, not the distance"
            )
