"""The group-std filter: groups in which all rewards are the same teach nothing."""

from collections.abc import Hashable, Sequence

import numpy as np


def group_std_mask(
    rewards: Sequence[float] | np.ndarray, group_ids: Sequence[Hashable] | np.ndarray, tau: float = 0.001
) -> np.ndarray:
    """Keep the responses of groups whose rewards differ: population standard deviation above ``tau``.

    GRPO divides by the standard deviation, so a group whose rewards differ only by rounding errors would otherwise
    train with full-size advantages. A group of one has no spread and is dropped.

    Source: OmniQuality-R sec. 3.3 (STD filter), including tau = 0.001. The population formula (ddof 0) and float64 are
    our choices.

    Args:
        rewards: one per response, ``[N]``, in any order.
        group_ids: the group of each response, ``[N]``.
        tau: threshold in units of the reward. A group with a deviation of exactly tau is dropped.

    Returns:
        Boolean keep-mask ``[N]``.

    Raises:
        ValueError: lengths differ, or a reward is not finite.
    """
    values = np.asarray(rewards, dtype=np.float64)
    names, group = np.unique(np.asarray(group_ids), return_inverse=True)
    if values.shape != group.shape or values.ndim != 1:
        raise ValueError(f"rewards and group_ids need the same length, got {values.shape} and {group.shape}")
    if not np.isfinite(values).all():
        raise ValueError("rewards must be finite")
    return (group_stds(values, group, len(names)) > tau)[group]


def group_stds(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return the population standard deviation of each group ``[groups]``, float64; exactly 0 if all values are equal.

    Args:
        values: ``[N]``.
        group: index of each value's group, ``[N]``, from 0.
        groups: number of groups.
    """
    # Deviations are taken from a member of the group, because the mean of equal numbers may differ from them.
    anchor = np.zeros(groups)
    anchor[group] = values
    shifted = values - anchor[group]
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    mean = np.bincount(group, shifted, groups) / count
    return np.sqrt(np.bincount(group, (shifted - mean[group]) ** 2, groups) / count)


def group_of(key: str) -> str:
    """Return the group of a trajectory, whose key is ``{group}_{session}_{index}``.

    The function is not in the sampler's module because that imports a module of verl that makes the plug-in import our
    trainer.
    """
    return key.split("_")[0]
