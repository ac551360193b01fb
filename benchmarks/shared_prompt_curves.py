"""Do training curves depend on shared prompts? Runs the quickstart's GRPO twice with them and twice without.

    python benchmarks/shared_prompt_curves.py --root runs/curves --start runs/quickstart    # half an hour (estimated)

All runs start from the same SFT checkpoint, data and seeds. Identical runs may differ too, because vLLM's sums depend
on what it batches together, and a token that is sampled differently changes everything after it. So the rule for each
metric is: the distance between two runs is the root mean square of their difference over the steps. Shared prompts do
not change the curve if runs with and without them are on average at most twice as far apart as identical runs, or at
most a thousandth of the curve's range. Every run and step is also in curves.csv and curves.png. After a kill the same
command resumes.
"""

import argparse
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from omniq_verl.evaluation.curves import draw_curves
from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline.process import run_folder_lock
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.tiny_stages import Settings, cold_start, grpo_stage

REPO = Path(__file__).parents[1]
SHARED, SEPARATE, VERL = ("shared", "shared_again"), ("separate", "separate_again"), "verl"
"""Folders of the runs."""
ORDER = ("shared", "separate", "shared_again", "separate_again")
OFF = {"trainer.v1.shared_prompt": "off"}
VERL_LOOP = {"actor_rollout_ref.rollout.agent.agent_loop_manager_class": "null"}
NO_VALIDATION = {"trainer.val_before_train": False, "trainer.test_freq": -1}
METRICS = ("critic/rewards/mean", "actor/entropy", "actor/pg_loss", "actor/kl_loss", "actor/grad_norm")
FACTOR, VISIBLE = 2.0, 1e-3
"""How much farther apart than equal runs, and which share of a curve's range, counts as a difference."""


def build(settings: Settings, start: Path | None, names: Sequence[str]) -> list[Stage]:
    """The runs, and the cold start before them unless the folder ``start`` has one."""
    source = replace(settings, root=start) if start else settings
    before = [] if start else cold_start(settings)
    return [*before, *(_run(settings, source, name) for name in names)]


def _run(settings: Settings, source: Settings, name: str) -> Stage:
    changes = {**NO_VALIDATION, **({} if name in SHARED else OFF), **(VERL_LOOP if name == VERL else {})}
    files = {f"data.{split}_files": source.root / "data" / f"{split}.parquet" for split in ("train", "val")}
    stage = grpo_stage(
        settings, name, name, "quickstart/grpo", source.sft_model, settings.grpo_steps, **files, **changes
    )
    outside = (source.sft_model, *files.values()) if source.root != settings.root else ()
    return replace(stage, reads=outside)


Curves = dict[str, list[float]]
"""A run's values of each metric, in the order of its steps."""


def read_run(folder: Path, steps: int) -> Curves:
    """The curves of a run.

    Raises:
        ValueError: a step or metric is missing.
    """
    metrics = read_metrics(folder)
    for step, name in itertools.product(range(1, steps + 1), METRICS):
        if name not in metrics.get(step, {}):
            raise ValueError(f"{folder} has no {name} of step {step}. Fix: start this script again")
    return {name: [metrics[step][name] for step in range(1, steps + 1)] for name in METRICS}


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Root mean square of the difference of two curves."""
    return math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def distances(runs: dict[str, Curves], metric: str) -> tuple[float, float]:
    """The mean distance between equal runs, and between one with shared prompts and one without them.

    A run may be missing, but not two.
    """

    def mean(pairs: Iterable[tuple[str, str]]) -> float:
        found = [(one, other) for one, other in pairs if one in runs and other in runs]
        return statistics.fmean(distance(runs[one][metric], runs[other][metric]) for one, other in found)

    return mean([SHARED, SEPARATE]), mean(itertools.product(SHARED, SEPARATE))


def same_curve(equal: float, across: float, extent: float) -> bool:
    """The rule above, with the distances and the range of the curve."""
    return across <= max(FACTOR * equal, VISIBLE * extent)


def report(runs: dict[str, Curves]) -> list[str]:
    """The lines of a table: by metric, how far apart runs are, and whether the rule holds."""
    lines = ["| | its range | equal runs | shared and separate | same curve |", "|---|--:|--:|--:|---|"]
    for metric in METRICS:
        first = runs[SHARED[0]][metric]
        numbers = (*distances(runs, metric), max(first) - min(first))
        equal, across, extent = (f"{number:.2g}" for number in numbers)
        lines.append(f"| `{metric}` | {extent} | {equal} | {across} | {'yes' if same_curve(*numbers) else 'no'} |")
    return lines


def verl_line(runs: dict[str, Curves]) -> str:
    """How far the run with verl's own agent loop manager is from those without shared prompts, by metric."""
    found = {
        name: statistics.fmean(distance(runs[VERL][name], runs[one][name]) for one in SEPARATE) for name in METRICS
    }
    return "verl's own agent loop manager: " + ", ".join(f"{name} {value:.2g}" for name, value in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--start", type=Path, help="folder of a finished quickstart, to start from its SFT checkpoint")
    parser.add_argument("--steps", type=int, default=20, help="steps of each run")
    parser.add_argument("--three", action="store_true", help="skip the second run without shared prompts")
    parser.add_argument("--verl", action="store_true", help="add a run with verl's own agent loop manager")
    args = parser.parse_args()
    settings = Settings(repo=REPO, root=args.root.resolve(), grpo_steps=args.steps)
    names = [*(ORDER[:-1] if args.three else ORDER), *([VERL] if args.verl else [])]
    stages = build(settings, args.start and args.start.resolve(), names)
    with run_folder_lock(settings.root):
        run_stages(stages, settings.root, Console(), changed="keep")
    folders = [settings.root / name for name in names]
    draw_curves(folders, settings.root / "curves.png", ("reward", "entropy", "kl", "grad_norm"))
    runs = {folder.name: read_run(folder, args.steps) for folder in folders}
    print("\n".join(report(runs)))
    if args.verl:
        print(verl_line(runs))


if __name__ == "__main__":
    main()
