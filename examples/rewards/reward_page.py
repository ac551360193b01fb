"""The table with intervals, and the page with curves, of the runs of ``table.py``."""

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.curves import draw_curves
from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline.experiment import seed_folder
from omniq_verl.pipeline.marks import read_mark
from omniq_verl.pipeline.summary import markdown_table

COLD_START = "cold_start"
"""Folder of the measurement that all rows are compared with."""
MEASURED = {"SRCC": "srcc", "PLCC": "plcc", "MAE": "mae"}
"""Figures of all answers to the validation crops, by column."""
PANELS = ("reward", "entropy", "groups_kept", "response_length")
LINES = 6
"""Runs in one picture; more cannot be told apart."""
STYLE = (
    "body{font:16px/1.5 sans-serif;margin:1rem;max-width:60rem;overflow-wrap:anywhere}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;white-space:nowrap}"
    "td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ccc}"
    "td:first-child{text-align:left}h2{font-size:1rem}img{max-width:100%;height:auto}"
)


SeedFigures = dict[int, dict[str, dict[str, float | None]]]
"""Figures by seed, row and column; None where one is undefined."""
Rows = dict[str, dict[str, list[float | None]]]
"""The same by row and column, one number for each seed that has finished the row."""


def collect(root: Path, names: Sequence[str], seeds: Sequence[int]) -> SeedFigures:
    """The figures of the cold start and of every run that is finished, for each seed with a finished cold start."""
    found: SeedFigures = {}
    for seed in seeds:
        folder = root / seed_folder(seed)
        if _done(root, seed, COLD_START):
            ready = [name for name in (COLD_START, *names) if _done(root, seed, name)]
            found[seed] = {name: _figures(folder / name, folder / COLD_START) for name in ready}
    return found


def by_row(found: SeedFigures, names: Sequence[str]) -> Rows:
    """The figures as the table shows them."""
    rows: Rows = {}
    for name in (COLD_START, *names):
        for seed in sorted(found):
            for column, value in found[seed].get(name, {}).items():
                rows.setdefault(name, {}).setdefault(column, []).append(value)
    return rows


def read_seeds(path: Path, size: Mapping[str, int]) -> SeedFigures:
    """The figures of another run of the script, from its ``table.json``.

    Args:
        path: the file.
        size: settings of the runs here.

    Raises:
        ValueError: it is another file, or its runs had other settings.
    """
    try:
        written = json.loads(path.read_bytes())
        found = {int(seed): rows for seed, rows in written["figures"].items()}
        theirs = {name: written[name] for name in size}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a table.json of this script ({error!r}). Fix: name another file") from error
    if theirs != dict(size):
        raise ValueError(f"the runs in {path} had {theirs}, these have {dict(size)}. Fix: use the same settings")
    return found


def _done(root: Path, seed: int, name: str) -> bool:
    mark = read_mark(root, f"{seed_folder(seed)}/{name}")
    return mark is not None and mark.done


def _figures(run: Path, start: Path) -> dict[str, float | None]:
    """Held-out figures of a run, its gain over the cold start of the same seed, and those of its steps."""
    own, before = measured(run), measured(start)
    if run != start:
        own |= {"SRCC gain": own["SRCC"] - before["SRCC"], "MAE gain": before["MAE"] - own["MAE"]} | trained(run)
    return {column: None if math.isnan(value) else value for column, value in own.items()}


def measured(run: Path) -> dict[str, float]:
    """Figures of a run's last validation; NaN where one is not defined."""
    last = [step for step in read_metrics(run).values() if any(key.startswith("val-core/") for key in step)][-1]
    found = {title: last.get(f"val-core/mean/{key}", math.nan) for title, key in MEASURED.items()}
    return {**found, "parsable": 1 - last["val-core/mean/parse_failure"]}


def trained(run: Path) -> dict[str, float]:
    """Figures of a run's steps."""
    steps = [step for _, step in sorted(read_metrics(run).items()) if "timing_s/step" in step]
    kept, dropped = (sum(step[f"filter/groups_{name}"] for step in steps) for name in ("kept", "dropped"))
    return {
        "reward spread": float(np.mean([step["filter/reward_group_std"] for step in steps])),
        "groups kept": kept / (kept + dropped),
        "s a step": float(np.median([step["timing_s/step"] for step in steps[1:] or steps])),  # the first starts up
    }


def interval(values: Sequence[float | None]) -> str:
    """Mean, and of several seeds half of Student's 95% interval; a dash where there is no value or one is undefined."""
    if not values or None in values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def rows_of(found: Rows) -> list[list[str]]:
    """The table's cells, its head first."""
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    body = [
        [name, str(len(row["SRCC"])), *(interval(row.get(column, [])) for column in columns)]
        for name, row in found.items()
    ]
    return [["", "seeds", *columns], *body]


def write_table(
    out: Path, names: Sequence[str], seeds: Sequence[int], size: Mapping[str, int], others: SeedFigures | None = None
) -> list[list[str]]:
    """Write ``table.md`` and ``table.json`` from the runs that are finished; returns the cells, the head first.

    Args:
        out: the folder of the runs.
        names: names of the runs.
        seeds: seeds of the runs.
        size: settings of all runs, as ``table.py`` has them.
        others: figures of seeds that were run elsewhere, from ``read_seeds``.
    """
    found = dict(sorted({**(others or {}), **collect(out, names, seeds)}.items()))
    rows = rows_of(by_row(found, names))
    replace_text(out / "table.json", json.dumps({**size, "figures": found}, indent=2) + "\n")
    replace_text(out / "table.md", f"{conditions(list(found), size)}\n\n{markdown_table(rows[0], rows[1:])}")
    return rows


def conditions(seeds: Sequence[int], size: Mapping[str, int]) -> str:
    """One sentence: how the figures were made."""
    return (
        f"{size['steps']} GRPO steps of {size['prompts']} images with 16 answers each; then"
        f" {size['answers']} answers at temperature 1 to each of 200 crops of other photographs. Seeds"
        f" {', '.join(map(str, seeds))}: mean and 95% interval over the seeds that have finished a row."
    )


def write_page(out: Path, names: Sequence[str], seeds: Sequence[int]) -> Path:
    """Write ``page.html`` with the table of ``table.json`` and the curves of each seed.

    Args:
        out: the folder of the runs.
        names: names of the runs.
        seeds: seeds of the runs.
    """
    size = {name: value for name, value in json.loads((out / "table.json").read_bytes()).items() if name != "figures"}
    found = read_seeds(out / "table.json", size)
    pictures = {}
    for seed in seeds:
        ready = [name for name in names if _done(out, seed, name)]
        for number, first in enumerate(range(0, len(ready), LINES)):
            some = ready[first : first + LINES]
            path = out / f"curves_{seed}_{number}.png"
            runs = [out / seed_folder(seed) / name for name in some]
            pictures[f"Seed {seed}: {', '.join(some)}"] = draw_curves(runs, path, PANELS)
    return replace_text(out / "page.html", page(rows_of(by_row(found, names)), conditions(list(found), size), pictures))


def page(rows: Sequence[Sequence[str]], made: str, pictures: Mapping[str, Path]) -> str:
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
        f"<h1>Rewards on the tiny model</h1><p>{html.escape(made)} The model is a tiny one.</p>"
        f'<div class="wide"><table>{head}{"".join(body)}</table></div>{"".join(images)}</body></html>\n'
    )


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
