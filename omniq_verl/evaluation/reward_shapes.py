"""Figure 11 of OmniQuality-R: the reward as a function of an answer's distance from the label."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.plots import check_format, save_figure
from omniq_verl.rewards.gaussian import gaussian_reward
from omniq_verl.rewards.threshold import threshold_reward

FARTHEST = 2.5
"""Largest error in the plot, in units of the scale."""


def draw_reward_shapes(out: Path, sigmas: Sequence[float] = (0.8,), epsilon: float = 0.3) -> Path:
    """Draw the Gaussian reward and the threshold reward over the error; returns ``out``.

    Args:
        out: picture to write; its suffix sets the format.
        sigmas: widths of Gaussian rewards, one line each (table 8: 0.6, 0.8 and 1.0).
        epsilon: largest error that the threshold reward accepts (figure 11: 0.3; Q-Insight: 0.35).

    Raises:
        ValueError: a width or epsilon is not above 0, or the format of the picture is unknown.
    """
    if not all(0 < one < math.inf for one in (*sigmas, epsilon)):
        raise ValueError(f"sigma and epsilon must be above 0 and finite, got {list(sigmas)} and {epsilon}")
    check_format(out)
    figure = shapes_figure(sigmas, epsilon)
    out.parent.mkdir(parents=True, exist_ok=True)
    return save_figure(figure, out, dpi=120)


def shapes_figure(sigmas: Sequence[float], epsilon: float) -> Figure:
    """Draw one line for each reward."""
    errors = np.linspace(-FARTHEST, FARTHEST, 1001)
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, sigma in enumerate(sigmas):
        rewards = [gaussian_reward(error, 0.0, sigma) for error in errors]
        axes.plot(errors, rewards, color=COLOURS[number % len(COLOURS)], label=f"Gaussian, sigma {sigma:g}")
    rewards = [threshold_reward(error, 0.0, epsilon) for error in errors]
    axes.plot(errors, rewards, color="#000000", linestyle="--", label=f"threshold, {epsilon:g}")
    axes.set(xlabel="error of the predicted score", ylabel="reward", ylim=(-0.04, 1.08))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure
