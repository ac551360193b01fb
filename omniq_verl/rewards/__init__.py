"""Text -> parsed answer -> reward. Pure; one file per reward; verl loads ``compute_score`` from here."""

from omniq_verl.rewards.compose import compute_score
from omniq_verl.rewards.format import format_reward
from omniq_verl.rewards.gaussian import gaussian_reward
from omniq_verl.rewards.parsing import Parsed, Status, parse_response

__all__ = ["Parsed", "Status", "compute_score", "format_reward", "gaussian_reward", "parse_response"]
