"""Select groups of rollouts that are worth training on: the pure mask, and the sampler for verl that uses it."""

from omniq_verl.filters.group_std import group_std_mask

__all__ = ["group_std_mask"]
