"""Language models with another vision tower: which part of the model determines the score?

Source: RALI, section 3.3 and table 1. Language models trained on two data sets, each combined with the pretrained
vision tower, differ little outside their own domains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.paired import compare_scores, holm, join_images, resamples_for
from omniq_verl.findings.measures import COEFFICIENTS, agreement, cell
from omniq_verl.findings.page import Finding, label, new_figure, number, table, write_finding
from omniq_verl.findings.parts import check_fit, join_parts
from omniq_verl.findings.setup import Answered, Setup, ask, check_readable
from omniq_verl.generation.model_folder import check_model_folder, expanded
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.run_folder import checkpoint_of


def find_swap(setup: Setup, vision: str, console: Console) -> Finding:
    """Combine every model's language model with the tower of ``vision``, evaluate both versions, and write the page.

    Args:
        setup: options of the finding; its models provide the language models.
        vision: folder of the model, or of the training run, that provides the vision tower.
        console: for tables and progress.

    Raises:
        ValueError: a folder is not safe to open, or the parts do not fit.
    """
    check_readable(setup.specs)
    tower = Path(checkpoint_of(expanded(vision)))
    check_model_folder(str(tower.resolve()))
    for spec in setup.specs:
        check_fit(tower, Path(spec.model))
    runs = list(_evaluated(setup, tower, console))
    sets = list(dict.fromkeys(runs[0].images["set"]))
    pairs, numbers = _pairs(runs, sets), _numbers(runs, sets, setup)
    finding = Finding(
        name="swap",
        title="Language models under another vision tower",
        question=f"Each language model is combined with the vision tower of {tower} and compared with the model that"
        " it was taken from, on the same images, with greedy answers.",
        found=[_sentence(pair) for pair in pairs],
        tables=_tables(runs, sets, pairs, numbers),
        numbers={"vision": str(tower), "models": numbers, "pairs": pairs},
        record=setup.record(vision_tower=str(tower)),
        figures={"": draw(runs, sets, numbers)},
        reading=READING,
    )
    write_finding(setup.out, finding, console)
    return finding


READING = (
    "RALI's table 1: under one pretrained tower, language models trained on KonIQ and on KADID differ by 0.01"
    " PLCC at most on data that neither was trained on, and by 0.07 to 0.09 on their own.",
    "If a model loses little under the other tower, what training changed is in its language model. A large loss"
    " says that tower and language model were trained to fit one another, not which of them holds the knowledge.",
    "The tower includes the merger that feeds the language model. Word embeddings and the output layer are part"
    " of the language model.",
    "Differences are tested on the same images (paired bootstrap), and p-values are corrected for their number"
    " with Holm's method.",
)


def _evaluated(setup: Setup, tower: Path, console: Console) -> Iterator[Answered]:
    """Evaluate every model unchanged and with the other tower."""
    sampling = Sampling(max_tokens=setup.max_tokens)
    for ref, (name, spec) in enumerate(zip(setup.names(), setup.specs, strict=True), 1):
        yield ask(setup, spec, name, f"model_{ref}", sampling, console)
        joined = join_parts(tower, Path(spec.model), setup.out / "models" / f"model_{ref}")
        swapped = replace(spec, model=str(joined))
        yield ask(setup, swapped, f"{name}, other tower", f"model_{ref}_swapped", sampling, console)


def _pairs(runs: Sequence[Answered], sets: Sequence[str]) -> list[dict[str, Any]]:
    """Compare each model with itself under the other tower, and the models that share a tower with each other."""
    chosen = [(runs[ref + 1], runs[ref]) for ref in range(0, len(runs), 2)]
    chosen += combinations(runs[1::2], 2)
    resamples = resamples_for(len(chosen) * len(sets))
    found = []
    for first, other in chosen:
        for name in sets:
            sides = [one.images[one.images["set"] == name].reset_index() for one in (first, other)]
            indexed = [side.set_index(["data_source", "task", "key"])[["target", "score"]] for side in sides]
            compared = compare_scores(join_images(indexed[0], indexed[1], (first.name, other.name)), resamples)
            found.append({"first": first.name, "other": other.name, "set": name, **compared})
    for statistic in COEFFICIENTS:
        for pair, p in zip(found, holm([pair[statistic]["p"] for pair in found]), strict=True):
            pair[statistic]["p_holm"] = p
    return found


def _sentence(pair: dict[str, Any]) -> str:
    srcc = pair["srcc"]
    if srcc["difference"] is None:
        return f"{pair['set']}: {pair['first']} cannot be compared with {pair['other']} ({srcc['reason']})."
    bounds = "" if srcc["low"] is None else f" [{srcc['low']:+.3f}, {srcc['high']:+.3f}]"
    return f"{pair['set']}: SRCC of {pair['first']} minus {pair['other']}: {srcc['difference']:+.3f}{bounds}."


def _of_set(one: Answered, name: str) -> pd.DataFrame:
    mine = one.images[one.images["set"] == name]
    return mine[mine.score.notna()]


def _numbers(runs: Sequence[Answered], sets: Sequence[str], setup: Setup) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in runs:
        for name in sets:
            mine = _of_set(one, name)
            figures = agreement(mine.score.to_numpy(), mine.target.to_numpy(), setup.resamples)
            found.setdefault(one.name, {})[name] = {"images": int((one.images["set"] == name).sum()), **figures}
    return found


def _tables(
    runs: Sequence[Answered], sets: Sequence[str], pairs: Sequence[dict[str, Any]], numbers: dict[str, Any]
) -> list[dict[str, Any]]:
    rows = []
    for one in runs:
        for name in sets:
            mine = numbers[one.name][name]
            cells = [cell(mine[key]) for key in COEFFICIENTS]
            rows.append([one.name, name, f"{mine['srcc']['n']} of {mine['images']}", *cells])
    differences = []
    for pair in pairs:
        cells = [text for key in COEFFICIENTS for text in (_difference(pair[key]), number(pair[key]["p_holm"]))]
        differences.append([f"{pair['first']} - {pair['other']}", pair["set"], str(pair["images"]), *cells])
    return [
        table("Correlation with the labels", ["model", "set", "images scored", "PLCC", "SRCC"], rows),
        table("Differences", ["models", "set", "images", "PLCC", "p (Holm)", "SRCC", "p (Holm)"], differences),
    ]


def _difference(test: dict[str, Any]) -> str:
    if test["difference"] is None or test["low"] is None:
        return number(test["difference"], "+.3f")
    return f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]"


def draw(runs: Sequence[Answered], sets: Sequence[str], numbers: dict[str, Any]) -> Figure:
    """Draw SRCC with intervals: one panel per set, one line per model. Hollow markers: with the other tower."""
    figure, axes = new_figure(0.5 + 0.27 * len(runs) + 0.35, 1, len(sets), sharey=True)
    for axis, name in zip(axes[0], sets, strict=True):
        for ref, one in enumerate(runs):
            mine = numbers[one.name][name]["srcc"]
            if mine["value"] is None:
                continue
            colour = COLOURS[ref // 2 % len(COLOURS)]
            if mine["low"] is not None:
                axis.plot([mine["low"], mine["high"]], [ref, ref], color=colour, linewidth=1.2)
            fill = "white" if ref % 2 else colour
            axis.plot(mine["value"], ref, "os"[ref % 2], color=colour, markerfacecolor=fill, markersize=4.5)
        label(axis, name, "SRCC with the labels")
        axis.grid(axis="x", alpha=0.3)
        axis.set_ylim(len(runs) - 0.5, -0.5)
    axes[0, 0].set_yticks(range(len(runs)), [one.name for one in runs], fontsize=6.5, parse_math=False)
    return figure
