"""``omniq reproduce --dry-run``: every stage with its cost, totals, and whether this machine has room for it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.free_space import FreeSpace, measure_free_space
from omniq_verl.doctor.gpu_memory import GIB
from omniq_verl.packaged import RECIPES
from omniq_verl.pipeline.cost import Cost, estimate
from omniq_verl.pipeline.experiment import Experiment
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.status import duration
from omniq_verl.pipeline.summary import print_cells


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
    sources = list(dict.fromkeys(cost.source for cost in found if not _is_free(cost)))
    lines = [_line(stage, cost, sources) for stage, cost in zip(stages, found, strict=True) if not _is_free(cost)]
    head = ["stage", "GPUs", "time", "GPU-hours", "disk", "host", "GPU", "source"]
    seeds = ", ".join(map(str, experiment.seeds))
    print_cells(f"{experiment.name}, scale {experiment.scale}, seeds {seeds}: estimates", head, lines, console, False)
    notes = [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
    for sentence in (*notes, *totals(found, measure_free_space(root))):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _is_free(cost: Cost) -> bool:
    """Whether a stage takes nothing worth a line, such as a link."""
    return not (cost.hours or cost.disk or cost.host or cost.gpu_memory or cost.peak_disk)


def _line(stage: Stage, cost: Cost, sources: Sequence[str]) -> list[str]:
    return [
        stage.name,
        str(cost.gpus or "-"),
        duration(cost.hours * 3600),
        f"{cost.gpu_hours:.1f}" if cost.gpus else "-",
        size(cost.disk),
        size(cost.host),
        size(cost.gpu_memory),
        f"[{sources.index(cost.source) + 1}]",
    ]


def size(count: float) -> str:
    """Bytes as MiB, GiB or TiB; a dash for none."""
    for unit, scale in (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", 2**20)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return "-" if count == 0 else "under 1 MiB"


def totals(found: Sequence[Cost], free: FreeSpace) -> list[str]:
    """Sentences about all stages together, and about what this machine lacks."""
    hours, gpu_hours = sum(cost.hours for cost in found), sum(cost.gpu_hours for cost in found)
    disk = sum(cost.disk for cost in found) + max((cost.peak_disk for cost in found), default=0.0)
    host, gpus = max((c.host for c in found), default=0.0), max((c.gpus for c in found), default=0)
    sentences = [
        f"all stages one after the other: {duration(hours * 3600)}, {gpu_hours:,.0f} GPU-hours; disk {size(disk)};"
        f" host memory {size(host)} at most",
        "disk counts the two newest checkpoints of each training and the weights of the best one; a stage whose results"
        " are no longer needed may be emptied by hand",
    ]
    if gpus > len(free.gpus):
        sentences.append(f"not on this machine: {gpus} GPUs are needed, {len(free.gpus)} are here")
    if disk > free.disk:
        sentences.append(f"not on this disk: {size(free.disk)} are free")
    if host > free.memory:
        sentences.append(f"not with the memory that is free here: {size(free.memory)}")
    return sentences
