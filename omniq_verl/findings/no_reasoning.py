"""What does reasoning add? Compares the same model with reasoning and with an immediate score, on the same images.

Source: arXiv 2601.02441, which finds that reasoning adds little, and RALI's table A.1, where a model trained without
reasoning is worse. Without reasoning, the score is the expectation over the numbers that the model could write after a
forced ``<answer>`` (``generation.direct``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console

from omniq_verl.evaluation.correlations import correlations
from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.paired import holm, paired_difference, resamples_for
from omniq_verl.findings.measures import COEFFICIENTS, agreement, cell
from omniq_verl.findings.page import Finding, label, new_figure, number, table, write_finding
from omniq_verl.findings.setup import Answered, Setup, ask, check_readable
from omniq_verl.generation.direct import MODES
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.speed import Speed, read_speed
from omniq_verl.generation.store import read_store

TITLES = {"reason": "with reasoning", "direct": "without reasoning"}


@dataclass(frozen=True)
class Run:
    """A model in one mode."""

    answered: Answered
    mode: str
    speed: Speed
    outside: float | None
    """Mean probability of writing no number of the scale after the forced ``<answer>``; None in the mode ``reason``."""


def run_modes(setup: Setup, console: Console) -> list[Run]:
    """Run every model in both modes. The two runs of a model are next to each other."""
    found = []
    for ref, (name, spec) in enumerate(zip(setup.names(), setup.specs, strict=True), 1):
        for mode in MODES:
            part = f"model_{ref}_{mode}"
            answered = ask(setup, spec, name, part, Sampling(max_tokens=setup.max_tokens), console, mode)
            store = setup.out / "answers" / part / "answers"
            outside = [one["outside"] for record in read_store(store) for one in record["answers"] if "outside" in one]
            mean = float(np.mean(outside)) if outside else None
            found.append(Run(answered, mode, read_speed(store), mean))
    return found


def compare_modes(runs: Sequence[Run], resamples: int) -> list[dict[str, Any]]:
    """Compare the two modes of each model in every data set, over the images that both modes score.

    Returns:
        One entry per model and set: ``images`` (number scored by both); for each mode ``plcc``, ``srcc`` and ``scored``
        (out of all images); ``between`` (SRCC between the scores of the two modes); and ``srcc_difference`` and
        ``plcc_difference`` (without reasoning minus with reasoning), with ``p_holm`` over all entries.
    """
    found = []
    for reason, direct in zip(runs[::2], runs[1::2], strict=True):
        for name in dict.fromkeys(reason.answered.images["set"]):
            found.append(_row(reason, direct, name, resamples))
    for coefficient in COEFFICIENTS:
        tests = [row[f"{coefficient}_difference"] for row in found]
        for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
            test["p_holm"] = p
    return found


def _row(reason: Run, direct: Run, name: str, resamples: int) -> dict[str, Any]:
    sides = {one.mode: one.answered.images[one.answered.images["set"] == name] for one in (reason, direct)}
    scores = {mode: side.score.dropna() for mode, side in sides.items()}
    common = scores["reason"].index.intersection(scores["direct"].index)
    target = sides["reason"].target.loc[common].to_numpy()
    both = {mode: score.loc[common].to_numpy() for mode, score in scores.items()}
    row: dict[str, Any] = {"model": reason.answered.name, "set": name, "images": len(common)}
    for mode in MODES:
        row[mode] = {**agreement(both[mode], target, resamples), "scored": len(scores[mode]), "of": len(sides[mode])}
    row["between"] = correlations(both["reason"], both["direct"])["srcc"]
    for coefficient in COEFFICIENTS:
        test = paired_difference(both["direct"], both["reason"], target, coefficient, max(resamples, resamples_for(1)))
        kept = ("difference", "low", "high", "p", "reason")
        row[f"{coefficient}_difference"] = {key: asdict(test)[key] for key in kept}
    return row


def find_no_reasoning(setup: Setup, console: Console) -> Finding:
    """Measure every model in both modes, and write the page.

    Raises:
        ValueError: the engine gives no probabilities, or a task asks for no score.
    """
    check_readable(setup.specs)
    runs = run_modes(setup, console)
    rows = compare_modes(runs, setup.resamples)
    costs = {f"{one.answered.name}, {TITLES[one.mode]}": _cost(one) for one in runs}
    finding = Finding(
        name="no-reasoning",
        title="What does reasoning add?",
        question="The same model on the same images: with reasoning and a greedy answer, and without, where its score"
        " is the expected value over all numbers that it could write after a forced <answer>.",
        found=[_sentence(row, costs) for row in rows],
        tables=_tables(rows, costs),
        numbers={"rows": rows, "costs": costs},
        record=setup.record(),
        figures={"": draw(rows)},
        reading=READING,
    )
    write_finding(setup.out, finding, console)
    return finding


READING = (
    "A model that was trained to reason is not at its best without reasoning. RALI's table A.1 trains one without"
    " it (tasks whose names end in _direct, recipe q_insight/no_reasoning). Evaluate that model on rows of its own"
    " task, and put both evaluations side by side with omniq compare.",
    "An expected value is finer than one written number, which is rounded and drawn once. Some of the gain"
    " without reasoning may be due to that: compare with the mean of several answers (omniq findings"
    " self-consistency).",
    "Outside is the mean probability of writing something other than a number on the scale after the forced"
    " answer tag. If it is large, the model did not expect to answer yet, and the expected value is based on the"
    " little that is left.",
    "Differences are without minus with, over the images that both modes score (paired bootstrap; p with Holm's"
    " method over all rows). Images per second are for one engine on this machine, without the time to load it;"
    " tokens without reasoning are the next-token distributions that were computed.",
)


def _cost(one: Run) -> dict[str, float | None]:
    return {
        "images_per_second": one.speed.rows_per_second,
        "tokens_per_image": one.speed.tokens_per_row,
        "outside": one.outside,
    }


def _sentence(row: Mapping[str, Any], costs: Mapping[str, Any]) -> str:
    with_it, without = (costs[f"{row['model']}, {TITLES[mode]}"]["images_per_second"] for mode in MODES)
    faster = f", at {without / with_it:.1f} times the images a second" if with_it and without else ""
    return (
        f"{row['model']} on {row['set']}: SRCC {cell(row['reason']['srcc'])} with reasoning,"
        f" {cell(row['direct']['srcc'])}"
        f" without, difference {_difference(row['srcc_difference'])}{faster}."
    )


def _difference(test: Mapping[str, Any]) -> str:
    return cell({"value": test["difference"], **test}, "+.3f")


def _tables(rows: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for row in rows:
        for mode in MODES:
            one = row[mode]
            figures = [cell(one[name]) for name in COEFFICIENTS]
            lines.append([row["model"], row["set"], TITLES[mode], f"{one['scored']} of {one['of']}", *figures])
    apart = [
        [row["model"], row["set"], str(row["images"]), *(
            text for name in COEFFICIENTS for text in (
                _difference(row[f"{name}_difference"]), number(row[f"{name}_difference"]["p_holm"])
            )
        ), number(row["between"])]
        for row in rows
    ]  # fmt: skip
    spent = [
        [
            name,
            number(one["images_per_second"], ".2f"),
            number(one["tokens_per_image"], ".1f"),
            number(one["outside"], ".4f"),
        ]
        for name, one in costs.items()
    ]
    columns = ["model", "set", "images", "PLCC", "p (Holm)", "SRCC", "p (Holm)", "SRCC of both modes"]
    return [
        table("Correlation with the labels", ["model", "set", "mode", "images scored", "PLCC", "SRCC"], lines),
        table("Without reasoning minus with", columns, apart),
        table("Cost", ["model and mode", "images a second", "tokens an image", "outside"], spent),
    ]


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw SRCC in both modes with intervals, one line per model and set. Hollow markers: without reasoning."""
    figure, [[axis]] = new_figure(0.8 + 0.42 * len(rows))
    for ref, row in enumerate(rows):
        for step, mode in enumerate(MODES):
            value, y = row[mode]["srcc"], ref + 0.3 * step - 0.15
            if value["low"] is not None:
                axis.plot([value["low"], value["high"]], [y, y], color=COLOURS[step], linewidth=1.2)
            if value["value"] is not None:
                axis.plot(value["value"], y, **_style(step))
    axis.set_yticks(range(len(rows)), [f"{row['model']}\n{row['set']}" for row in rows], fontsize=6.5, parse_math=False)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    label(axis, "", "SRCC with the labels")
    figure.legend(handles=[Line2D([], [], **_style(step)) for step in range(len(MODES))], loc="outside upper center",
                  ncols=2, fontsize=6.5, frameon=False)  # fmt: skip
    return figure


def _style(step: int) -> dict[str, Any]:
    """Return the marker style of a mode: filled for the first, hollow for the second."""
    fill = "white" if step else COLOURS[step]
    return {"color": COLOURS[step], "marker": "os"[step], "markerfacecolor": fill, "markersize": 4.5,
            "linestyle": "none", "label": TITLES[MODES[step]]}  # fmt: skip
