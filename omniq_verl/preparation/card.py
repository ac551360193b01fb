"""The card of a prepared data set, and a histogram of its scores."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omniq_verl.preparation.shards import write_whole
from omniq_verl.tasks import DISTORTIONS, SEVERITIES


def write_card(out: Path, card: dict[str, Any], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Write ``dataset_card.json`` and a picture of the labels; returns the whole card.

    The picture is ``scores.png``, or ``classes.png`` if the card counts ``classes``.

    Args:
        out: folder of the data set.
        card: the facts.
        scores: the rows' scores for each file, in the order of ``card["files"]``.
    """
    values = np.array([score for part in scores for score in part])
    if len(values):
        card = {**card, "scores": _summary(values)}
        _draw(out / "scores.png", card, scores)
    elif "classes" in card:
        _draw(out / "classes.png", card, scores)
    write_whole(
        out / "dataset_card.json",
        (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace"),
    )
    return card


def split_of(name: str) -> str:
    """Return the split in a file name: ``train`` for ``train.parquet`` and for ``train-00000-of-00003.parquet``."""
    return name.removesuffix(".parquet").partition("-")[0]


def _summary(values: np.ndarray) -> dict[str, float]:
    found = {"lowest": values.min(), "highest": values.max(), "mean": values.mean(), "standard_deviation": values.std()}
    return {name: round(float(value), 6) for name, value in found.items()}


def _draw(path: Path, card: dict[str, Any], scores: Sequence[Sequence[float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=f"{card['data_source']}: {card['rows']:,} rows", ylabel="images")
    if "classes" in card:
        _draw_classes(axes, card["classes"])
    else:
        _draw_scores(axes, card, scores)
    axes.legend()
    buffer = io.BytesIO()
    # The metadata omits the software's name and version, so the same data gives the same file.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def _draw_scores(axes: Any, card: dict[str, Any], scores: Sequence[Sequence[float]]) -> None:
    splits: dict[str, list[float]] = {}
    for name, part in zip(card["files"], scores, strict=True):
        splits.setdefault(split_of(name), []).extend(part)
    low, high = card["label_map"]["scale"]
    axes.hist(list(splits.values()), bins=np.linspace(low, high, 41), stacked=True, label=list(splits))
    axes.set(xlabel=f"{card['task']} score")


def _draw_classes(axes: Any, classes: dict[str, int]) -> None:
    below = np.zeros(len(DISTORTIONS))
    for severity in SEVERITIES:
        rows = np.array([classes.get(f"{kind} {severity}", 0) for kind in DISTORTIONS])
        axes.bar(DISTORTIONS, rows, bottom=below, label=severity)
        below += rows
    axes.bar("null", classes.get("null", 0), color="grey")
