"""The mean of k sampled answers compared with one greedy answer: what does it gain, and what does it cost?

Source: self-consistency is one of the paths of arXiv 2601.02441. ``omniq eval --samples`` uses the mean over samples as
the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from omniq_verl.data.digits import without_rounding_errors
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.paired import paired_difference
from omniq_verl.findings.measures import COEFFICIENTS, agreement, cell, mean_correlation_bounds
from omniq_verl.findings.page import Finding, as_figure, label, new_figure, number, table, write_finding
from omniq_verl.findings.setup import Answered, Setup, ask
from omniq_verl.generation.request import Sampling


def sizes(samples: int) -> list[int]:
    """Return the numbers of answers to measure: powers of two up to ``samples``, and ``samples`` itself."""
    found = [2**power for power in range(samples.bit_length())]
    return found if found[-1] == samples else [*found, samples]


def group_means(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the mean score of every image in disjoint groups of k answers.

    Groups share no answers, so their mean correlation uses as many answers as possible. A remainder is not used.

    Args:
        scores: scores of each image's answers ``[N, samples]``, NaN for an answer that cannot be parsed.
        k: answers per group.

    Returns:
        ``[samples // k, N]``; NaN if no answer of a group can be parsed.
    """
    groups = scores.shape[1] // k
    parts = scores[:, : groups * k].reshape(len(scores), groups, k)
    known = np.isfinite(parts)
    total = np.where(known, parts, 0).sum(axis=2)
    number_known = known.sum(axis=2)
    means = without_rounding_errors(total / np.maximum(number_known, 1))
    return np.where(number_known > 0, means, np.nan).T


@dataclass(frozen=True)
class Curve:
    """One model's agreement with the labels as a function of the number of answers."""

    name: str
    images: int
    left_out: int
    greedy: dict[str, Any]
    points: list[dict[str, Any]]
    """One entry per k: ``k``, ``groups``, ``plcc``, ``srcc``, ``tokens`` per image, SRCC ``gain`` over greedy."""


def measure(greedy: Answered, sampled: Answered, samples: int, resamples: int) -> Curve:
    """Compare a model's sampled answers with its greedy answer, over the images for which all of them give a score.

    Raises:
        ValueError: fewer than three images have a score in every group of answers.
    """
    scores = _by_sample(sampled.answers, "score", samples)
    tokens = _by_sample(sampled.answers, "tokens", samples)
    images = greedy.images.loc[scores.index]
    usable = images.score.notna() & scores.notna().all(axis=1)
    if usable.sum() < 3:
        raise ValueError(
            f"{greedy.name}: {usable.sum()} images have a readable score in every answer, but three are needed."
            " Fix: give more rows, or a larger --max-tokens"
        )
    target, single = images.target[usable].to_numpy(), images.score[usable].to_numpy()
    cost = float(greedy.answers[greedy.answers.key.isin(images.index[usable])].tokens.mean())
    each = float(tokens[usable].to_numpy().mean())
    points = [
        _point(group_means(scores[usable].to_numpy(), k), single, target, resamples) | {"k": k, "tokens": k * each}
        for k in sizes(samples)
    ]
    base = {**agreement(single, target, resamples), "tokens": cost}
    return Curve(greedy.name, int(usable.sum()), int((~usable).sum()), base, points)


def _by_sample(answers: pd.DataFrame, column: str, samples: int) -> pd.DataFrame:
    """Return a column of the answers as ``[images, samples]``, in the order of the images."""
    table = answers.pivot(index="key", columns="sample", values=column)
    return table.reindex(columns=range(samples)).astype(float)


def _point(means: np.ndarray, greedy: np.ndarray, target: np.ndarray, resamples: int) -> dict[str, Any]:
    each = [correlations(one, target) for one in means]
    bounds = mean_correlation_bounds(means, target, resamples)
    found: dict[str, Any] = {"groups": len(means)}
    for name in COEFFICIENTS:
        values = [value for one in each if (value := one[name]) is not None]
        mean = float(np.mean(values)) if len(values) == len(each) else None
        found[name] = as_figure(mean, bounds[name], len(target))
    gain = paired_difference(means[0], greedy, target, "srcc", max(resamples, 1))
    found["gain"] = {"value": gain.difference, "low": gain.low, "high": gain.high, "p": gain.p, "n": gain.n}
    return found


def find_self_consistency(setup: Setup, samples: int, temperature: float, console: Console) -> Finding:
    """Ask every model for a greedy answer and for ``samples`` sampled ones, and write the page.

    Raises:
        ValueError: ``samples`` is below 2, or too few images have answers that can be parsed.
    """
    if samples < 2:
        raise ValueError(f"--samples is {samples}, but a mean needs several answers. Fix: give 2 or more")
    curves = []
    for ref, (name, spec) in enumerate(zip(setup.names(), setup.specs, strict=True), 1):
        greedy = ask(setup, spec, name, f"model_{ref}_greedy", Sampling(max_tokens=setup.max_tokens), console)
        several = Sampling(samples, temperature, max_tokens=setup.max_tokens)
        sampled = ask(setup, spec, f"{name}, sampled", f"model_{ref}_sampled", several, console)
        curves.append(measure(greedy, sampled, samples, setup.resamples))
    finding = Finding(
        name="self-consistency",
        title="The mean of several answers, compared with one greedy answer",
        question=f"SRCC and PLCC of the mean score of k answers, sampled at temperature {temperature:g}, over the"
        " tokens that they take; and of one greedy answer.",
        found=[_sentence(curve) for curve in curves],
        tables=[_table(curve) for curve in curves],
        numbers={"temperature": temperature, "models": {curve.name: _numbers(curve) for curve in curves}},
        record=setup.record(samples=samples, temperature=temperature),
        figures={"": draw(curves)},
        reading=READING,
    )
    write_finding(setup.out, finding, console)
    return finding


READING = (
    "A point is the mean correlation over disjoint groups of k answers. Its interval resamples images, the same"
    " for all groups, so it does not cover the randomness of sampling; with k equal to all answers there is only"
    " one group.",
    "The gain is that of the first k answers over the greedy one, on the same images (paired bootstrap). Its"
    " p-value is not corrected for the number of values of k.",
    "Only images that the greedy answer and every sampled one score are compared, so no k profits from easy images.",
    "A mean removes the noise of sampling. If one sampled answer is far below the greedy one, much of the gain"
    " only makes up for the temperature: compare with the greedy answer, not with k = 1.",
    "Cost is counted in written tokens. vLLM's prefix cache reads the question and the image once for all answers.",
)


def _sentence(curve: Curve) -> str:
    last, greedy = curve.points[-1], curve.greedy
    times = f" for {last['tokens'] / greedy['tokens']:.1f} times the tokens" if greedy["tokens"] else ""
    return (
        f"{curve.name}: SRCC of the mean of {last['k']} answers {cell(last['srcc'])}, of one greedy answer"
        f" {cell(greedy['srcc'])}; gain {cell(last['gain'], '+.3f')}{times}, over {curve.images} images."
    )


def _table(curve: Curve) -> dict[str, Any]:
    greedy = curve.greedy
    rows = [["greedy", "1", *(cell(greedy[name]) for name in COEFFICIENTS), "-", "-", f"{greedy['tokens']:.1f}"]]
    for one in curve.points:
        figures = [cell(one[name]) for name in COEFFICIENTS]
        gain = [cell(one["gain"], "+.3f"), number(one["gain"]["p"])]
        rows.append([f"{one['k']} sampled", str(one["groups"]), *figures, *gain, f"{one['tokens']:.1f}"])
    columns = ["answers", "groups", "PLCC", "SRCC", "gain in SRCC", "p", "tokens an image"]
    return table(f"{curve.name}: {curve.images} images, {curve.left_out} left out", columns, rows)


def _numbers(curve: Curve) -> dict[str, Any]:
    return {"images": curve.images, "left_out": curve.left_out, "greedy": curve.greedy, "sampled": curve.points}


def draw(curves: Sequence[Curve]) -> Figure:
    """Draw SRCC against tokens: one line per model, with its greedy answer as a star with an interval."""
    figure, [[axis]] = new_figure(2.5)
    for ref, curve in enumerate(curves):
        colour = COLOURS[ref % len(COLOURS)]
        known = [one for one in curve.points if one["srcc"]["value"] is not None]
        x = [one["tokens"] for one in known]
        axis.plot(x, [one["srcc"]["value"] for one in known], "-o", color=colour, markersize=3.5, linewidth=1.2,
                  label=f"{curve.name}, mean of k")  # fmt: skip
        for one, at in zip(known, x, strict=True):
            # The lines are close together, so the labels of the second one go below it.
            axis.annotate(f"k={one['k']}", (at, one["srcc"]["value"]), (0, (4, -8)[ref % 2]), ha="center",
                          textcoords="offset points", fontsize=5.5)  # fmt: skip
        bounded = [one for one in known if one["srcc"]["low"] is not None]
        low, high = ([one["srcc"][end] for one in bounded] for end in ("low", "high"))
        axis.fill_between([one["tokens"] for one in bounded], low, high, color=colour, alpha=0.15, linewidth=0)
        _draw_greedy(axis, curve, colour)
    drawn = [line.get_xdata() for line in axis.get_lines()]
    if drawn and all(len(x) and min(x) > 0 for x in drawn):  # engines that do not count tokens report 0
        axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    label(axis, "", "written tokens an image", "SRCC with the labels")
    axis.grid(alpha=0.3)
    legend = axis.legend(fontsize=6, frameon=False, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_greedy(axis: Any, curve: Curve, colour: str) -> None:
    value = curve.greedy["srcc"]
    if value["value"] is None:
        return
    tokens = curve.greedy["tokens"]
    if value["low"] is not None:
        axis.plot([tokens, tokens], [value["low"], value["high"]], color=colour, linewidth=1, linestyle=":")
    axis.plot(tokens, value["value"], "*", color=colour, markeredgecolor="black", markersize=9, markeredgewidth=0.5,
              label=f"{curve.name}, greedy")  # fmt: skip
