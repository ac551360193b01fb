"""Show what evaluated models wrote about the same images: the reasoning of one or several runs, image by image.

With one run this is figure 7 of OmniQuality-R (an image of each task). With two runs it is figures 3 to 5 of Q-Insight
(the same image with and without joint training). It also plots response lengths by data set (OmniQuality-R, app. A.2).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from omniq_verl.data.files import replace_bytes, replace_text
from omniq_verl.data.images import BadImage, data_url
from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes, list_rows
from omniq_verl.evaluation.curves import COLOURS, short_names
from omniq_verl.evaluation.plots import as_png
from omniq_verl.generation.provenance import lines_of, provenance, this_start
from omniq_verl.rewards.parsing import reasoning_of

ORDERS = ("spread", "difference")


@dataclass(frozen=True)
class Run:
    """The output of an evaluation with ``omniq eval``."""

    name: str
    folder: Path
    metrics: Mapping[str, Any]
    images: pd.DataFrame
    """One row per image, indexed by its key."""
    answers: pd.DataFrame
    """One row per answer."""

    def answer(self, key: str) -> pd.Series:
        """Return the first answer about an image."""
        return self.answers[self.answers.key == key].iloc[0]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the folders of evaluations.

    Raises:
        ValueError: a folder is not that of an evaluation, or is given twice.
    """
    names = short_names(folders)
    return [_read_run(name, folder) for name, folder in zip(names, folders, strict=True)]


def _read_run(name: str, folder: Path) -> Run:
    try:
        metrics = json.loads((folder / "metrics.json").read_bytes())
        images, answers = (pd.read_parquet(folder / f"{part}.parquet") for part in ("images", "answers"))
    except (OSError, ValueError, RecursionError) as error:
        fix = f"omniq eval --out {folder}"
        raise ValueError(f"{folder}: it holds no finished evaluation ({error}). Fix: {fix}") from None
    return Run(name, folder, metrics, images.set_index("key"), answers)


def choose_keys(runs: Sequence[Run], number: int, order: str = "spread") -> list[str]:
    """Choose images that all runs have answered, ``number`` of each data set.

    Args:
        runs: one or more runs.
        number: images per data set.
        order: ``spread``: evenly spaced over the labels, from the lowest to the highest. ``difference``: the images
            whose distance to the label changes the most from the first run to the last, largest change first.

    Raises:
        ValueError: the runs have no image in common, or ``difference`` is used with a single run.
    """
    if order == "difference" and len(runs) < 2:
        raise ValueError("--order difference needs two runs. Fix: name two evaluations, or --order spread")
    common = runs[0].images
    for run in runs[1:]:
        common = common[common.index.isin(run.images.index)]
    if common.empty:
        raise ValueError("the evaluations have no image in common. Fix: name evaluations of the same data")
    found: list[str] = []
    for _, rows in common.groupby("data_source", sort=False):
        if order == "spread":
            by_label = rows.sort_values("target", kind="stable").index
            found += list(by_label[np.unique(np.linspace(0, len(rows) - 1, number).round().astype(int))])
        else:
            first, last = (_errors(run).reindex(rows.index) for run in (runs[0], runs[-1]))
            found += list((last - first).abs().dropna().sort_values(ascending=False, kind="stable").index[:number])
    return found


def _errors(run: Run) -> pd.Series:
    """Return the distance of each image's score from its label; NaN if there is no score."""
    return (run.images.score - run.images.target).abs()


def write_page(folders: Sequence[Path], out: Path, number: int = 4, order: str = "spread") -> Path:
    """Write ``side_by_side.html`` and ``lengths.png`` into ``out``; returns the self-contained page.

    Args:
        folders: folders of evaluations.
        out: output folder; created if missing.
        number: images per data set.
        order: one of ``ORDERS``.

    Raises:
        ValueError: see ``read_runs`` and ``choose_keys``; also, the data of the evaluation no longer exist.
    """
    runs = read_runs(folders)
    keys = choose_keys(runs, number, order)
    out.mkdir(parents=True, exist_ok=True)
    lengths = as_png(draw_lengths(runs))
    replace_bytes(out / "lengths.png", lengths)
    record = provenance([this_start()], runs={run.name: str(run.folder) for run in runs}, order=order)
    page = (
        Environment(loader=PackageLoader("omniq_verl.evaluation"), autoescape=True)
        .get_template("side_by_side.html")
        .render(
            runs=runs,
            rows=[_row(runs, *shown) for shown in _shown(runs[0], keys)],
            lengths=data_url(lengths),
            table=length_table(runs),
            conditions=lines_of(record),
        )
    )
    return replace_text(out / "side_by_side.html", page)


def _shown(run: Run, keys: Sequence[str]) -> list[tuple[RowRef, str | None, str | None]]:
    """Return each image's row, the text it was made from, and the picture."""
    by_key = {ref.key: ref for ref in list_rows([Path(file) for file in run.metrics["data"]])}
    if missing := [key for key in keys if key not in by_key]:
        raise ValueError(f"{missing[0]} is no longer in the data of {run.folder}. Fix: evaluate again")
    refs = [by_key[key] for key in keys]
    rows = RowReader(["images", "extra_info"]).read(refs)
    return [(ref, row["extra_info"].get("text"), _picture(row)) for ref, row in zip(refs, rows, strict=True)]


def _picture(row: Mapping[str, Any]) -> str | None:
    try:
        return data_url(image_bytes(row)[0])
    except BadImage:  # its file has been deleted since
        return None


def _row(runs: Sequence[Run], ref: RowRef, text: str | None, image: str | None) -> dict[str, Any]:
    about = runs[0].images.loc[ref.key]
    target: Any = about.target
    label = f"{target:.2f}" if target == target else f"{about.class_target}, {about.level_target}"
    return {
        "key": ref.key,
        "image": image,
        "task": ref.info["task"],
        "text": text,
        "label": label,
        "answers": [_answer(run, ref.key) for run in runs],
    }


def _answer(run: Run, key: str) -> dict[str, Any]:
    found = run.answer(key)
    shown = f"{found.score:.2f}" if found.score == found.score else (found.distortion or found.status)
    return {
        "run": run.name,
        "shown": f"{shown}, {found.severity}" if found.severity and found.distortion else shown,
        "reasoning": reasoning_of(found.answer) or found.answer,
        "tokens": int(found.tokens),
    }


def length_table(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Return run, data set, and mean and standard deviation of the answers' tokens as text.

    An engine that does not count tokens gives a dash.
    """
    return [
        (run.name, source, f"{tokens.mean():.1f} ± {tokens.std(ddof=0):.1f}" if tokens.any() else "-")
        for run in runs
        for source, tokens in _lengths(run).items()
    ]


def _lengths(run: Run) -> dict[str, pd.Series]:
    tokens = run.answers.set_index("key").tokens
    sources = run.images.data_source.reindex(tokens.index)
    return {str(name): some for name, some in tokens.groupby(sources, sort=False)}


def draw_lengths(runs: Sequence[Run]) -> Figure:
    """Draw response lengths: one panel per data set, one line per run."""
    found = [_lengths(run) for run in runs]
    sources = list(dict.fromkeys(name for one in found for name in one))
    figure = Figure(figsize=(1 + 3.4 * len(sources), 3), layout="constrained")
    for axes, source in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources, strict=True):
        most = max(one[source].max() for one in found if source in one)
        bins = np.linspace(0, max(most, 1), 31)
        for number, (run, one) in enumerate(zip(runs, found, strict=True)):
            if source in one:
                label = f"{run.name}, mean {one[source].mean():.0f}"
                axes.hist(one[source], bins, histtype="step", color=COLOURS[number % len(COLOURS)], label=label)
        axes.set(title=source, xlabel="tokens of an answer", ylabel="answers")
        axes.legend(fontsize=7)
    return figure
