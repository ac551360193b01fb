"""Whether a training's curve depends on shared prompts, or on rollouts that are prepared once for their group.

    python benchmarks/shared_prompt_curves.py --root runs/curves        # an hour on two CPU cores

The quickstart's GRPO from one SFT checkpoint: with both, once more with both, without shared prompts, and with verl's
own agent loop manager besides. The second run says how far two equal runs are apart; vLLM's sums depend on what it
batches together. After a kill the same command resumes. Given the folder of a finished quickstart, its
data, model and checkpoint are used.
"""

import argparse
from pathlib import Path

from rich.console import Console

from omniq_verl.metric_log import read_metrics
from omniq_verl.pipeline.process import run_folder_lock
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.tiny_stages import Settings, cold_start, grpo_stage

REPO = Path(__file__).parents[1]
OFF = {"trainer.v1.shared_prompt": "off"}
RUNS = {
    "curve_both": {},
    "curve_both_again": {},
    "curve_not_shared": OFF,
    "curve_verl": {**OFF, "actor_rollout_ref.rollout.agent.agent_loop_manager_class": "null"},
}
"""Folders of the runs, and what each changes."""
METRICS = ("critic/rewards/mean", "actor/entropy", "actor/pg_loss", "actor/kl_loss", "actor/grad_norm")


def build(settings: Settings) -> list[Stage]:
    runs = [
        grpo_stage(settings, name, name, "quickstart/grpo", settings.sft_model, settings.grpo_steps, **overrides)
        for name, overrides in RUNS.items()
    ]
    return [*cold_start(settings), *runs]


def distances(root: Path, name: str) -> dict[str, tuple[float, float]]:
    """By metric: the largest difference from the first run over all steps, and the range of the first run.

    Raises:
        ValueError: a metric is missing, or the runs have not the same steps.
    """
    first, other = (read_metrics(root / run) for run in (next(iter(RUNS)), name))
    steps = [step for step in first if step > 0]
    if not steps or steps != [step for step in other if step > 0]:
        raise ValueError(f"{root / name} has other steps than {root / next(iter(RUNS))}. Fix: start this script again")
    found = {}
    for metric in METRICS:
        missing = [step for step in steps if metric not in first[step] or metric not in other[step]]
        if missing:
            raise ValueError(f"{metric} is missing in step {missing[0]}")
        values = [first[step][metric] for step in steps]
        largest = max(abs(other[step][metric] - first[step][metric]) for step in steps)
        found[metric] = (largest, max(values) - min(values))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=20, help="of each run")
    args = parser.parse_args()
    settings = Settings(repo=REPO, root=args.root.resolve(), grpo_steps=args.steps)
    with run_folder_lock(settings.root):
        run_stages(build(settings), settings.root, Console())
    names = [name for name in RUNS if name != next(iter(RUNS))]
    print("| largest difference from the first run | its range |", " | ".join(names), "|")
    print("|---|--:|" + "--:|" * len(names))
    found = {name: distances(settings.root, name) for name in names}
    for metric in METRICS:
        numbers = [f"{found[name][metric][0]:.2g}" for name in names]
        print(f"| `{metric}` | {found[names[0]][metric][1]:.2g} |", " | ".join(numbers), "|")


if __name__ == "__main__":
    main()
