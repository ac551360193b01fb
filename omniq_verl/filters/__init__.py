"""Which groups of rollouts are worth training on. The pure mask; its verl sampler lies beside it."""

from omniq_verl.filters.group_std import group_std_mask

__all__ = ["group_std_mask"]
