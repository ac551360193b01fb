"""Rewards over all rollouts of a step: they compare images or answers with one another. Pure; one file per reward."""

from omniq_verl.rewards.batch.hook import BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.rollouts import Rollouts
from omniq_verl.rewards.batch.shelf import SHELF

__all__ = ["SHELF", "BatchRewardSettings", "Rollouts", "batch_reward"]
