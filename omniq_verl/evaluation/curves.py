"""Plot metrics over the steps of training runs: one figure with many panels, and its numbers as a table."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from omniq_verl.data.files import replace_text
from omniq_verl.evaluation.plots import check_format, save_figure
from omniq_verl.generation.provenance import provenance, this_start
from omniq_verl.metric_log import read_metrics

Metrics = dict[int, dict[str, float]]
"""Metrics of one run: values by step and verl's key."""
Curve = dict[int, float]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe-Ito palette, which colour-blind people can distinguish. Its yellow is left out because it is faint on white."""
_LINES, _MARKERS = ("-", "--", "-.", ":"), "os^DvPX*"
_MARKED = 25
"""Maximum number of markers on a line; more would hide it."""


@dataclass(frozen=True)
class Panel:
    """One quantity over the steps."""

    title: str
    unit: str
    curve: Callable[[Path, Metrics], Curve]
    """Computed from the run's folder and metrics; empty if the run has none."""
    from_zero: bool = False
    """Whether the axis begins at 0, which is best for shares. Otherwise it begins slightly below the data."""


def _logged(key: str) -> Callable[[Path, Metrics], Curve]:
    return lambda folder, metrics: {step: values[key] for step, values in metrics.items() if key in values}


def _groups_kept(folder: Path, metrics: Metrics) -> Curve:
    kept, dropped = (_logged(f"filter/groups_{name}")(folder, metrics) for name in ("kept", "dropped"))
    return {step: kept[step] / (kept[step] + dropped[step]) for step in kept.keys() & dropped.keys() if kept[step]}


def _drawn_reward(folder: Path, metrics: Metrics) -> Curve:
    # verl logs only the groups that the filter kept. Older runs did not log the reward of all drawn groups.
    return _logged("filter/reward_drawn")(folder, metrics) or _logged("critic/score/mean")(folder, metrics)


def _validation_reward(folder: Path, metrics: Metrics) -> Curve:
    # verl includes the number of samples in the key: val-core/<source>/reward/mean@2.
    return _mean_over_sources(metrics, "/reward/mean@")


def _validation_srcc(folder: Path, metrics: Metrics) -> Curve:
    return _mean_over_sources(metrics, "/srcc")


def _validation_plcc(folder: Path, metrics: Metrics) -> Curve:
    return _mean_over_sources(metrics, "/plcc")


def _mean_over_sources(metrics: Metrics, name: str) -> Curve:
    found = {}
    for step, values in metrics.items():
        # "mean" is not a source but the mean over the validated sources, which is recomputed here.
        keys = [key for key in values if key.startswith("val-core/") and name in key and "val-core/mean/" not in key]
        if keys:
            found[step] = sum(values[key] for key in keys) / len(keys)
    return found


PANELS = {
    "reward": Panel("Mean reward of the rollouts", "reward", _drawn_reward),
    "validation_reward": Panel("Mean reward in validation", "reward", _validation_reward),
    "validation_srcc": Panel("SRCC in validation", "SRCC", _validation_srcc),
    "validation_plcc": Panel("PLCC in validation", "PLCC", _validation_plcc),
    "kl": Panel("KL to the reference", "nats per token", _logged("actor/kl_loss")),
    "grad_norm": Panel("Norm of the gradient", "norm", _logged("actor/grad_norm")),
    "entropy": Panel("Entropy of the policy", "nats per token", _logged("actor/entropy")),
    "groups_kept": Panel("Groups kept by the filter", "share of groups drawn", _groups_kept, True),
    "gate_threshold": Panel("Threshold of the entropy gate", "nats", _logged("actor/gate/threshold")),
    "gate_share": Panel("Tokens that passed the gate", "share of tokens", _logged("actor/gate/share"), True),
    "clip_fraction": Panel("Clipped tokens", "share of tokens", _logged("actor/pg_clipfrac"), True),
    "response_length": Panel("Mean response length", "tokens", _logged("response_length/mean")),
}


def draw_curves(runs: Sequence[Path], out: Path, panels: Sequence[str] = tuple(PANELS)) -> Path:
    """Plot the metrics of training runs over their GRPO steps, one line per run; returns ``out``.

    A ``.csv`` file of the same name has the numbers, with one row per run and step and one column per panel. A
    ``.json`` file records the runs and steps, and when and how they were drawn. Panels without data are omitted.

    Args:
        runs: folders of training runs (``trainer.default_local_dir``).
        out: file to write; its suffix sets the format.
        panels: keys of ``PANELS``, in display order.

    Raises:
        ValueError: a run is given twice or has no metrics to draw, or a panel or format is unknown.
    """
    if unknown := set(panels) - PANELS.keys():
        raise ValueError(f"unknown panels {sorted(unknown)}; known: {', '.join(PANELS)}")
    check_format(out)
    names = short_names(runs)
    table = pd.concat([read_curves(run, panels) for run in runs], keys=names, names=["run"])
    out.parent.mkdir(parents=True, exist_ok=True)
    save_figure(draw_table(table.dropna(axis="columns", how="all")), out, dpi=120)
    replace_text(out.with_suffix(".csv"), table.to_csv())
    steps = {name: _steps(table.loc[[name]].droplevel("run")) for name in names}
    record = provenance([this_start()], runs=dict(zip(names, map(str, runs), strict=True)), steps=steps)
    replace_text(out.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
    return out


def _steps(table: pd.DataFrame) -> dict[str, int]:
    """Return the first and last step of a run, and the number of steps of each of its curves."""
    counts = {str(name): int(number) for name, number in table.count().items() if number}
    return {"first": int(table.index.min()), "last": int(table.index.max()), **counts}


def read_curves(run: Path, panels: Sequence[str] = tuple(PANELS)) -> pd.DataFrame:
    """Read the curves of a run: one column per panel and one row per step, NaN if a step has no value.

    Raises:
        ValueError: the folder has no metrics, or no metrics of a GRPO run.
    """
    metrics = read_metrics(run)
    if not metrics:
        raise ValueError(f"{run} has no metrics (metrics/*.jsonl). Fix: give the folder of a training run{_hint(run)}")
    curves = {name: pd.Series(PANELS[name].curve(run, metrics), dtype=float) for name in panels}
    table = pd.DataFrame(curves).rename_axis("step").sort_index()
    table = table.where(table.abs() < math.inf)
    if table.isna().all(axis=None):
        raise ValueError(f"the metrics of {run} are not those of a GRPO run. Fix: give the folder of a GRPO run")
    return table


def _hint(folder: Path) -> str:
    found = sorted({str(path.parent.parent) for path in folder.glob("*/metrics/*.jsonl")})
    return f", such as {' or '.join(found)}" if found else ", and check that its trainer.logger has 'file'"


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return names that tell folders apart: their paths without the parts that all of them begin or end with.

    Raises:
        ValueError: a folder is given twice.
    """
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise ValueError(f"a folder is given twice: {', '.join(map(str, folders))}")
    if len(parts) == 1:
        return [parts[0][-1]]
    begin, end = _alike(parts), _alike([part[::-1] for part in parts])
    names = ["/".join(part[min(begin, len(part) - 1) : max(len(part) - end, begin + 1)]) for part in parts]
    return names if len(set(names)) == len(names) else [str(Path(*part)) for part in parts]


def _alike(parts: Sequence[tuple[str, ...]]) -> int:
    """Return the number of leading parts that all paths have in common."""
    return len(list(takewhile(lambda ones: len(set(ones)) == 1, zip(*parts, strict=False))))


def draw_table(table: pd.DataFrame) -> Figure:
    """Draw one panel per column of a table indexed by run and step."""
    names = list(table.index.unique("run"))
    columns = min(3, math.ceil(math.sqrt(table.shape[1])))
    rows = math.ceil(table.shape[1] / columns)
    size = (4.2 * columns, 2.9 * rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axis, name in zip(grid.flat, table, strict=False):
        _draw_panel(axis, PANELS[str(name)], [table.loc[run, name].dropna() for run in names])
    for axis in grid.flat[table.shape[1] :]:
        axis.remove()
    if len(names) > 1:
        lines = [Line2D([], [], label=name, **_style(number)) for number, name in enumerate(names)]
        figure.legend(handles=lines, loc="outside upper center", ncols=min(len(names), columns), frameon=False)
    return figure


def _draw_panel(axis: Axes, panel: Panel, curves: Sequence[pd.Series]) -> None:
    for number, curve in enumerate(curves):
        marked = math.ceil(len(curve) / _MARKED) or 1
        axis.plot(curve.index, curve.to_numpy(), markevery=marked, **_style(number))
    axis.set_title(panel.title, fontsize=11, loc="left")
    axis.set(xlabel="GRPO step", ylabel=panel.unit)
    if panel.from_zero:
        top = axis.dataLim.ymax or 1
        axis.set_ylim(-0.04 * top, 1.1 * top)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelbottom=True)
    axis.grid(alpha=0.3)


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _LINES[number % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4,
        "linewidth": 1.4,
    }
