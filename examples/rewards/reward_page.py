"""The table with intervals, and the page with curves, of the runs of ``table.py``."""

import base64
import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.curves import draw_curves
from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline.summary import Figures

MEASURED = {"SRCC": "srcc", "PLCC": "plcc", "MAE": "mae", "parsable": "parsed"}
"""Figures of the greedy answers to the held-out crops, by column."""
PANELS = ("reward", "entropy", "groups_kept", "response_length")
LINES = 6
"""Runs in one picture; more cannot be told apart."""
STYLE = (
    "body{font:16px/1.5 sans-serif;margin:1rem;max-width:60rem;overflow-wrap:anywhere}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;white-space:nowrap}"
    "td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ccc}"
    "td:first-child{text-align:left}h2{font-size:1rem}img{max-width:100%;height:auto}"
)


def collect(names: Sequence[str]) -> Callable[[list[Path]], Figures]:
    """Collects the figures of the cold start and of every run, one number for each seed."""

    def found(roots: list[Path]) -> Figures:
        rows = {"cold start": [measured(root / "sft_test") for root in roots]}
        rows |= {name: [measured(root / f"{name}_test") | trained(root / name) for root in roots] for name in names}
        columns = list(dict.fromkeys(key for seeds in rows.values() for seed in seeds for key in seed))
        return {
            title: {key: [seed.get(key, math.nan) for seed in seeds] for key in columns}
            for title, seeds in rows.items()
        }

    return found


def measured(folder: Path) -> dict[str, float]:
    """Figures of the held-out answers; NaN where one is not defined."""
    greedy = json.loads((folder / "metrics.json").read_text())["greedy"]
    return {title: math.nan if greedy[key] is None else float(greedy[key]) for title, key in MEASURED.items()}


def trained(run: Path) -> dict[str, float]:
    """Figures of a run's steps."""
    steps = [step for _, step in sorted(read_metrics(run).items()) if "timing_s/step" in step]
    kept, dropped = (sum(step[f"filter/groups_{name}"] for step in steps) for name in ("kept", "dropped"))
    return {
        "reward spread": float(np.mean([step["filter/reward_group_std"] for step in steps])),
        "groups kept": kept / (kept + dropped),
        "s a step": float(np.median([step["timing_s/step"] for step in steps[1:] or steps])),  # the first starts up
    }


def interval(values: Sequence[float]) -> str:
    """Mean, and of several seeds half of Student's 95% interval."""
    if any(map(math.isnan, values)):
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def rows_of(found: Figures) -> list[list[str]]:
    """The table's cells, its head first."""
    return [
        ["", *next(iter(found.values()))],
        *([name, *map(interval, columns.values())] for name, columns in found.items()),
    ]


def write_page(out: Path, names: Sequence[str], seeds: Sequence[int]) -> Path:
    """``table.md`` with intervals, and ``page.html`` with the same table and the curves of each seed.

    Args:
        out: the folder of the runs, with ``table.json``.
        names: names of the runs.
        seeds: seeds of the runs.
    """
    said = json.loads((out / "table.json").read_text())
    rows = rows_of(said["rows"])
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    replace_text(out / "table.md", "".join(f"| {' | '.join(cells)} |\n" for cells in lines))
    pictures = {
        f"Seed {seed}: {', '.join(some)}": draw_curves(
            [out / f"seed{seed}" / name for name in some], out / f"curves_{seed}_{number}.png", PANELS
        )
        for seed in seeds
        for number, some in enumerate(names[first : first + LINES] for first in range(0, len(names), LINES))
    }
    return replace_text(out / "page.html", page(rows, said, pictures))


def page(rows: Sequence[Sequence[str]], said: dict, pictures: Mapping[str, Path]) -> str:
    """The page, with its pictures inside, by title."""
    head, *body = [
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
        for tag, cells in [("th", rows[0]), *(("td", cells) for cells in rows[1:])]
    ]
    images = [
        f'<h2>{html.escape(title)}</h2><img alt="curves" src="data:image/png;base64,{encoded(path)}">'
        for title, path in pictures.items()
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Rewards on the tiny model</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>Rewards on the tiny model</h1><p>{said['steps']} steps, seeds {', '.join(map(str, said['seeds']))}:"
        " mean and 95% interval over the seeds, greedy answers to held-out crops. The model is a tiny one.</p>"
        f'<div class="wide"><table>{head}{"".join(body)}</table></div>{"".join(images)}</body></html>\n'
    )


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
