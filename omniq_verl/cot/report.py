"""Report on the selection: plots and examples in one HTML file, and a table for the terminal."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from omniq_verl.cot.run import CotConfig
from omniq_verl.data.files import replace_text
from omniq_verl.data.images import data_url
from omniq_verl.data.row_refs import RowReader, image_bytes, list_rows
from omniq_verl.data.text_files import json_lines
from omniq_verl.generation.provenance import lines_of
from omniq_verl.generation.store import read_store
from omniq_verl.tasks import LEVELS

EXAMPLES = 10


def print_counts(counts: Mapping[str, Any], console: Console) -> None:
    """Print one line per data source, and why paths were rejected."""
    table = Table(title=f"{counts['records']} records to learn from")
    for column in ("data source", "images", "kept", "too easy", "too hard", "paths", "right", "records", "tokens"):
        table.add_column(column, justify="left" if column == "data source" else "right", overflow="fold")
    faults: dict[str, int] = {}
    for source, about in counts["sources"].items():
        images, paths = about["images"], dict(about["paths"])
        paths.pop("learned")
        numbers = [images.get(name, 0) for name in ("kept", "too_easy", "too_hard")]
        shares = [sum(paths.values()), f"{about['acceptance']:.0%}", about["records"], _length(about["tokens"])]
        table.add_row(source, *map(str, (sum(images.values()), *numbers, *shares)))
        paths.pop("right", 0)
        for fault, number in paths.items():
            faults[fault] = faults.get(fault, 0) + number
    console.print(table)
    named = ", ".join(f"{fault} {number}" for fault, number in sorted(faults.items(), key=lambda item: -item[1]))
    console.print(f"paths rejected: {named or 'none'}")
    if counts["without_plan"]:
        console.print(f"rows without a valid plan: {counts['without_plan']}")


def _length(tokens: float | None) -> str:
    """Format a mean length; "-" if the engine does not count tokens."""
    return f"{tokens:.0f}" if tokens else "-"


def write_report(config: CotConfig, counts: Mapping[str, Any]) -> Path:
    """Write ``<out>/report.html``. It needs no other file and no network."""
    out = Path(config.out)
    judged = [one for _, one in json_lines(out / "judged.jsonl")]
    html = (
        Environment(loader=PackageLoader("omniq_verl.cot"), autoescape=True)
        .get_template("report.html")
        .render(
            counts=counts,
            conditions=lines_of(counts["provenance"]),
            pass_rates=_picture(_draw_pass_rates(judged)),
            lengths=_picture(_draw_lengths(judged)),
            levels=_picture(_draw_levels(counts["sources"])),
            examples=examples(config, judged),
        )
    )
    return replace_text(out / "report.html", html)


def examples(config: CotConfig, judged: Sequence[Mapping[str, Any]], number: int = EXAMPLES) -> list[dict[str, Any]]:
    """Return images spread evenly over the run, whatever their outcome: plan, first right (or first) path, verdict."""
    chosen = [judged[ref] for ref in np.unique(np.linspace(0, len(judged) - 1, number).astype(int))]
    keys = {one["key"]: one for one in chosen}
    plans = {record["key"]: record["answers"][0]["text"] for record in _of(config, "plan", keys)}
    paths = {record["key"]: record["answers"] for record in _of(config, "reason", keys)}
    refs = [ref for ref in list_rows([Path(file) for file in config.data]) if ref.key in keys]
    found = []
    for ref, row in zip(refs, RowReader(["images"]).read(refs), strict=True):
        data = image_bytes(row)[0]
        one, answers = keys[ref.key], paths[ref.key]
        shown = next((n for n, path in enumerate(one["paths"]) if path["fault"] is None), 0)
        found.append(
            {
                **one,
                "image": data_url(data),
                "score": ref.info["score"],
                "plan": plans[ref.key],
                "path": answers[shown]["text"],
                "fault": one["paths"][shown]["fault"] or "right",
            }
        )
    return found


def _of(config: CotConfig, stage: str, keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [record for record in read_store(Path(config.out) / stage) if record["key"] in keys]


def _draw_pass_rates(judged: Sequence[Mapping[str, Any]]) -> Figure:
    sources = sorted({one["data_source"] for one in judged})
    figure = Figure(figsize=(1.5 + 3.2 * len(sources), 2.8))
    all_axes = figure.subplots(1, len(sources), squeeze=False)
    for axes, source in zip(all_axes[0], sources, strict=True):
        mine = [one for one in judged if one["data_source"] == source]
        most = max(len(one["paths"]) for one in mine)
        bars = np.bincount([one["right"] for one in mine], minlength=most + 1)
        colours = [_colour_of({one["outcome"] for one in mine if one["right"] == right}) for right in range(most + 1)]
        axes.bar(range(most + 1), bars, color=colours)
        axes.set(title=source, xlabel=f"right paths of {most}", ylabel="images")
    return figure


def _colour_of(outcomes: set[str]) -> str:
    return "tab:blue" if "kept" in outcomes else "lightgray"


def _draw_lengths(judged: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw one histogram per data source: the lengths of all paths of the right level, and of rejected paths."""
    unit = "tokens" if any(path["tokens"] for one in judged for path in one["paths"]) else "characters"
    sources = sorted({one["data_source"] for one in judged})
    figure = Figure(figsize=(1.5 + 3.2 * len(sources), 2.8))
    for axes, source in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources, strict=True):
        paths = [path for one in judged if one["data_source"] == source for path in one["paths"] if path["characters"]]
        groups = {
            "right": [path[unit] for path in paths if path["fault"] is None],
            "rejected": [path[unit] for path in paths if path["fault"] is not None],
        }
        axes.hist(list(groups.values()), bins=30, stacked=True, label=list(groups), color=["tab:blue", "lightgray"])
        mean = f", mean {np.mean(groups['right']):.0f}" if groups["right"] else ""
        axes.set(title=source, xlabel=f"{unit}{mean}", ylabel="paths")
        axes.legend(fontsize=8)
    return figure


def _draw_levels(sources: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the number of images per level for each data source."""
    figure = Figure(figsize=(1.5 + 3.2 * len(sources), 2.6))
    for axes, (source, about) in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources.items(), strict=True):
        axes.bar(LEVELS, [about["levels"].get(level, 0) for level in LEVELS], color="tab:blue")
        axes.set(title=source, ylabel="images")
        axes.tick_params(axis="x", labelrotation=30)
    return figure


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return data_url(buffer.getvalue())
