"""``omniq reproduce --dry-run``: every stage with its cost, totals, and whether this machine has room for it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.free_space import FreeSpace, measure_free_space
from omniq_verl.doctor.gpu_memory import GIB
from omniq_verl.packaged import RECIPES
from omniq_verl.pipeline.cost import Cost, estimate
from omniq_verl.pipeline.experiment import Experiment
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.status import duration

_UNITS = (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", 2**20))
_NONE = "-"
_COLUMNS = ("GPUs", "time", "GPU-h", "disk", "host", "GPU", "source")
_UNITS_NOTE = "M, G and T are MiB, GiB and TiB: of disk, of host memory, and of memory of the fullest GPU"


def costs(stages: Sequence[Stage], recipes: Path = RECIPES) -> list[Cost]:
    """The cost of every stage. Recipes are composed as their trainings would, so that a wrong setting is an error.

    Raises:
        hydra.errors.HydraException: a stage names a recipe or a setting that does not exist.
    """
    compose = partial(_compose, recipes)
    return [estimate(stage, compose) for stage in stages]


def _compose(recipes: Path, name: str, overrides: list[str]) -> DictConfig:
    return compose_recipe(name, overrides, recipes)


def print_plan(stages: Sequence[Stage], experiment: Experiment, root: Path, console: Console) -> None:
    """Print the plan of a run; nothing is started."""
    found = costs(stages)
    shown = [(stage, cost) for stage, cost in zip(stages, found, strict=True) if not _is_free(cost)]
    sources = list(dict.fromkeys(cost.source for _, cost in shown))
    seeds = ", ".join(map(str, experiment.seeds))
    console.print(f"{experiment.name}, scale {experiment.scale}, seeds {seeds}: estimates", highlight=False)
    console.print(plan_table(shown, sources))
    notes = [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
    for sentence in (_UNITS_NOTE, *notes, *totals(found, measure_free_space(root))):
        console.print(sentence, markup=False, highlight=False)


def plan_table(shown: Sequence[tuple[Stage, Cost]], sources: Sequence[str]) -> Table:
    """A line for each stage, below the name of its folder; narrow enough for 80 columns, and nothing is broken.

    Args:
        shown: stages with their costs.
        sources: what the numbers in the last column stand for.
    """
    rows = [_cells(cost, sources) for _, cost in shown]
    used = [name for name in _COLUMNS if any(row[name] != _NONE for row in rows)]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage", overflow="fold")
    for name in used:
        table.add_column(name, justify="right", overflow="fold")
    folder = ""
    for (stage, _), row in zip(shown, rows, strict=True):
        above, _, name = stage.name.rpartition("/")
        if above != folder:
            table.add_row(above, style="bold")
            folder = above
        table.add_row(f"  {name}" if above else name, *(row[column] for column in used))
    return table


def _is_free(cost: Cost) -> bool:
    """Whether a stage takes nothing worth a line, such as a link."""
    return not (cost.hours or cost.disk or cost.host or cost.gpu_memory or cost.peak_disk)


def _cells(cost: Cost, sources: Sequence[str]) -> dict[str, str]:
    cells = (
        str(cost.gpus or _NONE),
        duration(cost.hours * 3600),
        _digits(cost.gpu_hours) if cost.gpus else _NONE,
        *map(short_size, (cost.disk, cost.host, cost.gpu_memory)),
        f"\\[{sources.index(cost.source) + 1}]",  # escaped: brackets are rich's markup
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def size(count: float) -> str:
    """Bytes as MiB, GiB or TiB; a dash for none."""
    for unit, scale in _UNITS:
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return _NONE if count == 0 else "under 1 MiB"


def short_size(count: float) -> str:
    """Bytes for a narrow column: 1.5G for 1.5 GiB, 340G for 339.8."""
    for unit, scale in _UNITS:
        if count >= scale:
            return f"{_digits(count / scale)}{unit[0]}"
    return _NONE if count == 0 else "<1M"


def _digits(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:,.0f}"


def totals(found: Sequence[Cost], free: FreeSpace) -> list[str]:
    """Sentences about all stages together, and about what this machine lacks."""
    hours, gpu_hours = sum(cost.hours for cost in found), sum(cost.gpu_hours for cost in found)
    disk = sum(cost.disk for cost in found) + max((cost.peak_disk for cost in found), default=0.0)
    host, gpus = max((c.host for c in found), default=0.0), max((c.gpus for c in found), default=0)
    sentences = [
        f"all stages one after the other: {duration(hours * 3600)}, {gpu_hours:,.0f} GPU-hours; disk {size(disk)};"
        f" host memory {size(host)} at most",
        "disk counts the two newest checkpoints of each training run and the weights of the best one; you may empty a"
        " stage whose results are no longer needed by hand",
    ]
    if gpus > len(free.gpus):
        sentences.append(f"not on this machine: {gpus} GPUs are needed, {len(free.gpus)} are here")
    if disk > free.disk:
        sentences.append(f"not on this disk: {size(free.disk)} are free")
    if host > free.memory:
        sentences.append(f"not with the memory that is free here: {size(free.memory)}")
    return sentences
