"""A score reward from outside of this package: ``score_reward: my_pkg.rewards:function``.

The function gets a predicted score and its label, both on the task's scale, and returns a number from 0 to 1. Nothing
below 0, as an answer that cannot be read earns 0 and must not be better than one that can.
"""

import math
import numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from omniq_verl.doors import described, open_function
from omniq_verl.tasks import TECHNICAL

ScoreReward = Callable[[float, float], float]
SETTING = "reward.custom_reward_function.reward_kwargs.score_reward"
EXPECTED = "function(pred: float, target: float, **score_settings) -> float from 0 to 1"


def open_reward(name: str, settings: Mapping[str, Any]) -> ScoreReward:
    """The function of a name, with its settings.

    Raises:
        BadDoor: it cannot be imported, or takes other arguments.
    """
    function = open_function(SETTING, name, EXPECTED, 2, tuple(settings))
    return partial(function, **settings) if settings else function


def called(name: str, function: ScoreReward, pred: float, target: float) -> float:
    """The reward of one answer.

    Args:
        name: for error texts.
        function: of the user's own.
        pred: predicted score.
        target: label, on the same scale.

    Raises:
        ValueError: the function fails, or returns something else than a number from 0 to 1.
    """
    try:
        value = function(pred, target)
    except Exception as error:  # whatever the user's own function raises
        raise ValueError(f"{name} fails for pred={pred:g} and target={target:g}: {described(error)}") from error
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:  # a number of numpy's or torch's
        value = value.item()
    if not isinstance(value, numbers.Real) or not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(
            f"{name} returns {value!r:.80} for pred={pred:g} and target={target:g}. Fix: return a number from 0 to 1"
            " (an answer that cannot be read earns 0)"
        )
    return float(value)


def probe(function: ScoreReward) -> None:
    """Call a score reward with all pairs of whole scores from 1 to 5, before a training depends on it.

    Args:
        function: ``RewardSettings.score_function``.

    Raises:
        ValueError: it fails or returns something else than a number from 0 to 1, or a wrong score earns more than the
            right one.
    """
    low, high = int(TECHNICAL.scale.low), int(TECHNICAL.scale.high)
    scores = [float(score) for score in range(low, high + 1)]
    earned = {(pred, target): function(pred, target) for target in scores for pred in scores}
    for (pred, target), value in earned.items():
        if value > (right := earned[target, target]):
            raise ValueError(
                f"the score {pred:g} earns {value:g} where the label is {target:g}, and the right score {right:g}."
                " Fix: return the closeness to the label, not the distance"
            )
