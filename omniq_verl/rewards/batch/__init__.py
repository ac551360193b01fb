"""Rewards that compare all rollouts of a step with one another. Pure functions, one file per reward."""

from omniq_verl.rewards.batch.hook import BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.rollouts import Rollouts
from omniq_verl.rewards.batch.shelf import SHELF

__all__ = ["SHELF", "BatchRewardSettings", "Rollouts", "batch_reward"]
