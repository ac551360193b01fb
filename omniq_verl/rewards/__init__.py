"""Parse answers and compute rewards. Pure functions, one file per reward; verl loads ``compute_score`` from here."""

from omniq_verl.rewards.degradation import degradation_reward
from omniq_verl.rewards.format import format_reward
from omniq_verl.rewards.gaussian import gaussian_reward
from omniq_verl.rewards.parsing import Parsed, Status, parse_response
from omniq_verl.rewards.reward_function import RewardSettings, compute_score
from omniq_verl.rewards.threshold import threshold_reward

__all__ = [
    "Parsed",
    "RewardSettings",
    "Status",
    "compute_score",
    "degradation_reward",
    "format_reward",
    "gaussian_reward",
    "parse_response",
    "threshold_reward",
]
