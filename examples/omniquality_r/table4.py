"""Table 4 of OmniQuality-R at the size of a tiny model: stage 1 and 2, with and without entropy gate and STD filter.

    VERL_PLATFORM=cpu python examples/omniquality_r/table4.py --out runs/table4 --seeds 0 1 2

Stage 2 starts from stage 1 without either. The filter's tau is 0.25: at the paper's 0.001 a tiny model's groups are all
kept, and the third row would be the second again. Killed at any moment, the same command goes on where it stopped. The
figures are those of a tiny model: they show that the mechanisms run and what they do to it, not what they do for a 7B
model.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from omniq_verl.quickstart.runner import StageFailed, run_folder_lock, run_stages
from omniq_verl.quickstart.stages import Settings, Stage, cold_start, grpo_stage, measure_stage
from omniq_verl.trainer.metric_files import read_metrics

PLAIN, BOTH = "omniquality_r/cpu_tiny_stage1", "omniquality_r/cpu_tiny_stage2"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRPO+GR": (PLAIN, {}),
    "+ Entro.": (PLAIN, {"actor_rollout_ref.actor.policy_loss.gate_rho": 0.2}),
    "+ Entro. + STD": (BOTH, {}),
}
"""Recipe and overrides of each row."""
COLUMNS = {
    "SRCC": ("greedy", "srcc"),
    "PLCC": ("greedy", "plcc"),
    "MAE": ("greedy", "mae"),
    "reward": ("sampled", "reward"),
}


def names() -> dict[tuple[int, str], str]:
    """Folder of each (stage, method)."""
    return {(stage, method): f"stage{stage}_{number}" for stage in (1, 2) for number, method in enumerate(METHODS)}


def build(settings: Settings) -> list[Stage]:
    """Everything one seed takes."""
    stages = [*cold_start(settings), measure_stage(settings, "sft_test", "held-out after SFT", settings.sft_model)]
    start = settings.sft_model
    for (stage, method), name in names().items():
        if stage == 2:
            start = checkpoint(settings, names()[1, "GRPO+GR"])
        title = f"stage {stage}, {method}"
        recipe, overrides = METHODS[method]
        stages.append(grpo_stage(settings, name, title, recipe, start, settings.grpo_steps, **overrides))
        stages.append(measure_stage(settings, f"{name}_test", f"held-out after {title}", checkpoint(settings, name)))
    return stages


def checkpoint(settings: Settings, name: str) -> Path:
    return settings.root / name / f"global_step_{settings.grpo_steps}" / "actor" / "huggingface"


def collect(roots: list[Path]) -> dict[str, dict[str, list[float]]]:
    """Figures of every row and column, one for each seed."""
    rows = {"SFT": "sft_test"} | {f"stage {s}: {m}": f"{name}_test" for (s, m), name in names().items()}
    found: dict[str, dict[str, list[float]]] = {}
    for title, folder in rows.items():
        metrics = [json.loads((root / folder / "metrics.json").read_text()) for root in roots]
        found[title] = {column: [m[mode][key] for m in metrics] for column, (mode, key) in COLUMNS.items()}
        found[title]["groups kept"] = [share_kept(root / folder.removesuffix("_test")) for root in roots]
    return found


def share_kept(run: Path) -> float:
    """Share of a run's groups that were trained on; NaN where there was none, as in SFT."""
    steps = [step for step in read_metrics(run).values() if "filter/groups_kept" in step]
    kept, dropped = (sum(step[f"filter/groups_{name}"] for step in steps) for name in ("kept", "dropped"))
    return kept / (kept + dropped) if kept else math.nan


def print_table(found: dict[str, dict[str, list[float]]], seeds: list[int], console: Console) -> None:
    table = Table(title=f"tiny model, held-out crops, seeds {seeds}: mean and standard deviation over seeds")
    table.add_column("")
    for column in [*COLUMNS, "groups kept"]:
        said = {"reward": " (temperature 1)", "groups kept": ""}.get(column, " (greedy)")
        table.add_column(column + said, justify="right")
    for title, columns in found.items():
        table.add_row(title, *map(spread, columns.values()))
    console.print(table)


def spread(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    if any(map(math.isnan, values)):
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/table4"), help="goes on where it stopped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10, help="GRPO steps of each stage (default: 10)")
    args = parser.parse_args()
    console, repo = Console(), Path(__file__).resolve().parents[2]
    roots = [args.out.resolve() / f"seed{seed}" for seed in args.seeds]
    try:
        for seed, root in zip(args.seeds, roots, strict=True):
            settings = Settings(repo=repo, root=root, seed=seed, grpo_steps=args.steps, grpo_save_every=args.steps)
            with run_folder_lock(root):
                run_stages(build(settings), root, console)
    except StageFailed as error:
        sys.exit(str(error))
    found = collect(roots)
    (args.out / "table4.json").write_text(
        json.dumps({"seeds": args.seeds, "steps": args.steps, "rows": found}, indent=2)
    )
    print_table(found, args.seeds, console)


if __name__ == "__main__":
    main()
