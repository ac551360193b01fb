"""Plots of an evaluation: scores against labels, and confusion matrices."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from omniq_verl.data.files import replace_bytes
from omniq_verl.evaluation.logistic import CURVES

BLUE, ORANGE = "#0072B2", "#D55E00"
"""Colours of the Okabe-Ito palette, which colour-blind people can distinguish."""
_MANY = 3000


def draw_scatter(images: pd.DataFrame, figures: Mapping[str, Any], title: str) -> Figure:
    """Plot score against label, one point per image (a density for many images), with the logistic curve.

    Args:
        images: images of one set, from ``answers.per_image``.
        figures: figures of that set, from ``metrics.set_metrics``.
        title: title of the plot.
    """
    scored = images[images.score.notna()]
    figure = Figure(figsize=(5, 4.6))
    axes = figure.subplots()
    if len(scored) > _MANY:
        drawn = axes.hexbin(scored.score, scored.target, gridsize=40, cmap="cividis", mincnt=1, bins="log")
        figure.colorbar(drawn, label="images")
    else:
        axes.scatter(scored.score, scored.target, s=14, alpha=0.45, color=BLUE, linewidths=0)
    low, high = images.scale_low.min(), images.scale_high.max()
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, linestyle=":", label="score = label")
    _draw_curve(axes, scored, figures)
    margin = 0.03 * (high - low)
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axes.set(
        title=f"{title}: {_summary(figures)}", xlabel="score of the model", ylabel="label (MOS on the task's scale)"
    )
    axes.title.set_fontsize(10)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _draw_curve(axes: Axes, scored: pd.DataFrame, figures: Mapping[str, Any]) -> None:
    parameters = figures["fits"]["logistic4"]["parameters"]
    if parameters:
        x = np.linspace(scored.score.min(), scored.score.max(), 200)
        axes.plot(x, CURVES["logistic4"](x, *parameters), color=ORANGE, linewidth=1.5, label="logistic, 4 parameters")


def _summary(figures: Mapping[str, Any]) -> str:
    named = {name: figures[name]["value"] for name in ("plcc", "srcc")}
    parts = [f"{name.upper()} {'-' if value is None else f'{value:.3f}'}" for name, value in named.items()]
    return ", ".join([*parts, f"{figures['scored']} of {figures['images']} images"])


def draw_confusion(table: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Plot a confusion matrix. Colours show shares of each label's answers, numbers show counts. Unused answers are
    omitted.

    Args:
        table: from ``metrics.confusion``.
        title: title of the plot.
    """
    rows = {label: row for label, row in table.items() if sum(row.values())}
    always = set(rows)
    answers = [name for name in next(iter(table.values())) if name in always or any(row[name] for row in rows.values())]
    counts = np.array([[row[name] for name in answers] for row in rows.values()], dtype=float).reshape(len(rows), -1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(2.2 + 0.75 * len(answers), 1.6 + 0.5 * len(rows)))
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(answers)), answers, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel="answer", ylabel="label", title=title)
    figure.colorbar(drawn, label="share of the label's answers")
    return figure


def check_format(out: Path) -> None:
    """Check that a file name states the format of a plot; matplotlib would add an ending to a name without one.

    Raises:
        ValueError: the name has no ending, or one that matplotlib does not support.
    """
    known = FigureCanvasBase.get_supported_filetypes()
    if (ending := out.suffix.lower().removeprefix(".")) not in known:
        what = f"no plot can be written as .{ending}" if ending else "the name has no ending that tells its format"
        raise ValueError(f"{out}: {what}. Fix: end it with .png, .pdf or .svg")


def save_figure(figure: Figure, out: Path, dpi: float) -> Path:
    """Write a figure atomically, in the format of the file's ending. A kill leaves the old file in place.

    Raises:
        ValueError: see ``check_format``.
    """
    check_format(out)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix.lower().removeprefix("."), dpi=dpi)
    return replace_bytes(out, buffer.getvalue())


def as_png(figure: Figure) -> bytes:
    """Return the figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    return buffer.getvalue()
