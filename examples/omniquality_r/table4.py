"""Table 4 of OmniQuality-R at the size of a tiny model: stage 1 and 2, with and without entropy gate and STD filter.

    VERL_PLATFORM=cpu python examples/omniquality_r/table4.py --out runs/table4 --seeds 0 1 2

Stage 2 starts from stage 1 without either. The filter's tau is 0.25: at the paper's 0.001 a tiny model's groups are all
kept, and the third row would be the second again. Killed at any moment, the same command goes on where it stopped. The
figures are those of a tiny model: they show that the mechanisms run and what they do to it, not what they do for a 7B
model.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from tables import collect, print_table

from omniq_verl.quickstart.runner import StageFailed, run_folder_lock, run_stages
from omniq_verl.quickstart.stages import Settings, Stage, cold_start, grpo_stage, measure_stage

PLAIN, BOTH = "omniquality_r/cpu_tiny_stage1", "omniquality_r/cpu_tiny_stage2"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRPO+GR": (PLAIN, {}),
    "+ Entro.": (PLAIN, {"actor_rollout_ref.actor.policy_loss.gate_rho": 0.2}),
    "+ Entro. + STD": (BOTH, {}),
}
"""Recipe and overrides of each row."""


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
    rows = {"SFT": "sft"} | {f"stage {s}: {m}": name for (s, m), name in names().items()}
    found = collect(roots, rows)
    (args.out / "table4.json").write_text(
        json.dumps({"seeds": args.seeds, "steps": args.steps, "rows": found}, indent=2)
    )
    print_table(found, args.seeds, console)


if __name__ == "__main__":
    main()
