"""A served reward model as a reward of flow_grpo.

Source: flow_grpo (github.com/yifan123/flow_grpo, commit ac4c86e), ``flow_grpo/rewards.py``, lines 360-398. An entry of
``multi_score``'s table is a function that returns ``f(images, prompts, metadata) -> (scores, {})``. Images are a float
tensor ``[N, 3, H, W]`` in [0, 1] or a uint8 array ``[N, H, W, 3]``, and ``multi_score`` multiplies each score by the
reward's weight.
"""

from collections.abc import Callable, Sequence
from typing import Any

from omniq_verl.serving.reward_client import ServerReward

_ROUNDING = 1 / 128
"""Spacing of bfloat16 just above 1: a pipeline's arithmetic may exceed 1 by this much."""
Reward = Callable[[Any, Sequence[str], Any], tuple[list[float], dict[str, Any]]]


def omniq_reward(url: str, task: str = "alignment", **settings: Any) -> Callable[[], Reward]:
    """Return an entry for ``score_functions`` in flow_grpo's ``multi_score``.

    Args:
        url: address of ``omniq serve``.
        task: a task with a score.
        settings: further arguments of ``ServerReward``.

    Returns:
        A function without arguments, like flow_grpo's rewards that need no device. Its result gives the reward of each
        image in [0, 1].

    Raises:
        ValueError: the task or a setting is invalid.
    """
    reward = ServerReward(url, task, **settings)

    def score(images: Any, prompts: Sequence[str], metadata: Any) -> tuple[list[float], dict[str, Any]]:
        return reward(_in_range(images), list(prompts)), {}

    def entry() -> Reward:
        return score

    return entry


def _in_range(images: Any) -> Any:
    """Return floats as float32 with rounding errors beyond [0, 1] removed, and anything else unchanged.

    flow_grpo's own rewards clip any value. Here values in another range stay unchanged and are then rejected.
    """
    if not getattr(getattr(images, "dtype", None), "is_floating_point", False):
        return images
    floats = images.detach().float()
    near = (floats > -_ROUNDING) & (floats < 1 + _ROUNDING)
    return floats.clamp(0, 1) if bool(near.all()) else floats
