"""Select groups of rollouts that are worth training on: the pure mask, and next to it the sampler for verl."""

from omniq_verl.filters.group_std import group_std_mask

__all__ = ["group_std_mask"]
