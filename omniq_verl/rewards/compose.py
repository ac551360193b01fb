"""The reward function verl calls for every response."""

import json
from typing import Any

from omniq_verl.rewards.format import format_reward
from omniq_verl.rewards.gaussian import gaussian_reward
from omniq_verl.rewards.parsing import parse_response
from omniq_verl.tasks import TASKS


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    sigma: float = 0.8,
    format_weight: float = 0.0,
    **_: Any,
) -> dict[str, float]:
    """Reward of one response: Gaussian accuracy plus weighted format.

    Args:
        data_source: name of the data set (unused so far; verl passes it).
        solution_str: the response's text.
        ground_truth: ``{"score": s}`` as JSON, as ``omniq_verl.data.rows`` writes it.
        extra_info: the row's own; ``task`` names the task.
        sigma: of the Gaussian reward.
        format_weight: weight of the format reward; 0 as in OmniQuality-R ("Gaussian reward only").

    Returns:
        ``score`` (what is trained on), ``accuracy`` (Gaussian part, 0 when nothing could be parsed),
        ``format`` and ``parsed`` (0 or 1). Every task returns the same keys, none is named ``reward``.
    """
    parsed = parse_response(solution_str, TASKS[extra_info["task"]].scale)
    accuracy = gaussian_reward(parsed.score, json.loads(ground_truth)["score"], sigma) if parsed.ok else 0.0
    form = format_reward(solution_str)
    return {
        "score": accuracy + format_weight * form,
        "accuracy": accuracy,
        "format": form,
        "parsed": float(parsed.ok),
    }
