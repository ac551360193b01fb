"""The hook that adds a function of all rollouts of a step to their rewards, and its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from omniq_verl.object_reference import FORM, described, is_reference, load_function
from omniq_verl.rewards.batch.rollouts import Rollouts
from omniq_verl.rewards.batch.shelf import SHELF

SETTING = "reward.batch_reward"
EXPECTED = "function(rollouts: omniq_verl.rewards.batch.Rollouts, **batch_settings) -> one number per rollout"

BatchFunction = Callable[..., Any]


@dataclass(frozen=True)
class BatchRewardSettings:
    """``reward.batch_*`` of a recipe.

    A rollout's reward is its per-sample reward plus ``weight`` times what the function returns for it.

    Raises:
        ValueError: the name is unknown, the function has other parameters, or a value is outside its range.
    """

    function: str
    """A name of ``SHELF``, or ``package.module:function``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the function, by name."""
    weight: float = 1.0
    setting: str = SETTING
    """Where the recipe names the function, for errors."""

    def __post_init__(self) -> None:
        if self.function not in SHELF and not is_reference(self.function):
            known = ", ".join(sorted(SHELF))
            raise ValueError(f"{self.setting} is {self.function!r}. Fix: choose one of {known}, or write {FORM}")
        if not isinstance(self.settings, Mapping):
            raise ValueError(f"reward.batch_settings is {self.settings!r}. Fix: map names to values")
        if not _is_finite(self.weight):
            raise ValueError(f"reward.batch_weight is {self.weight!r}. Fix: give a finite number")
        self.opened  # noqa: B018  a missing function is an error here, not after the first rollouts

    @cached_property
    def opened(self) -> BatchFunction:
        """Return the function itself."""
        return opened(self.function, self.settings, self.setting)


def opened(name: str, settings: Mapping[str, Any], setting: str = SETTING) -> BatchFunction:
    """Return a batch reward by its name: one of this package, or ``package.module:function``.

    Raises:
        BadReference: the function cannot be imported, or has other parameters.
    """
    return load_function(setting, SHELF.get(name, name), EXPECTED, 1, tuple(settings))


def batch_reward(rollouts: Rollouts, chosen: BatchRewardSettings) -> np.ndarray:
    """Return the function's reward for each rollout, unweighted; float64 ``[N]``.

    Raises:
        ValueError: the function fails, or does not return one finite number per rollout.
    """
    name = f"{chosen.setting}={chosen.function}"
    try:
        found = chosen.opened(rollouts, **chosen.settings)
    except Exception as error:  # the user's function may raise anything
        raise ValueError(f"{name} fails for {len(rollouts)} rollouts: {_reason(error)}") from error
    try:
        rewards = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} returns {found!r:.80}. Fix: return one number per rollout") from None
    if rewards.shape != (len(rollouts),):
        raise ValueError(
            f"{name} returns numbers of shape {rewards.shape} for {len(rollouts)} rollouts. Fix: return one per rollout"
        )
    if not np.isfinite(rewards).all():
        row = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(
            f"{name} returns {rewards[row]} for an answer to {rollouts.images[row]!s:.80}. Fix: return finite numbers"
            " (an answer without a score earns 0)"
        )
    return rewards


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError) and ". Fix: " in str(error):
        return str(error)
    return f"{described(error)}. Fix: try the function on a few rollouts by hand"


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
