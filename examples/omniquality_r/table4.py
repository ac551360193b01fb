"""Table 4 of OmniQuality-R at the size of a tiny model: stage 1 and 2, with and without entropy gate and STD filter.

    VERL_PLATFORM=cpu python examples/omniquality_r/table4.py --out runs/table4 --seeds 0 1 2

Stage 2 starts from stage 1 without either. Killed at any moment, the same command goes on where it stopped. The figures
are those of a tiny model: they show that the mechanisms run and what they do to it, not what they do for a 7B model.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from omniq_verl.quickstart.runner import StageFailed, run_folder_lock, run_stages
from omniq_verl.quickstart.stages import Settings, Stage, cold_start, grpo_stage, measure_stage

GATE = {"actor_rollout_ref.actor.policy_loss.gate_rho": 0.2}
FILTER = {"trainer.v1.sampler.sampler_kwargs.mode": "drop"}
METHODS = {"GRPO+GR": {}, "+ Entro.": GATE, "+ Entro. + STD": {**GATE, **FILTER}}
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
        stages.append(
            grpo_stage(
                settings, name, title, "omniquality_r/cpu_tiny_stage1", start, settings.grpo_steps, **METHODS[method]
            )
        )
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
    return found


def print_table(found: dict[str, dict[str, list[float]]], seeds: list[int], console: Console) -> None:
    table = Table(title=f"tiny model, held-out crops, seeds {seeds}: mean and standard deviation over seeds")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column + (" (temperature 1)" if column == "reward" else " (greedy)"), justify="right")
    for title, columns in found.items():
        table.add_row(
            title, *(f"{np.mean(v):.3f} ± {np.std(v, ddof=1 if len(v) > 1 else 0):.3f}" for v in columns.values())
        )
    console.print(table)


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
