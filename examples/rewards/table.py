"""Every reward and policy loss on the tiny model: the same data, cold start, steps and seeds, and one table.

    VERL_PLATFORM=cpu python examples/rewards/table.py --out runs/rewards --seeds 0 1 2
    VERL_PLATFORM=cpu python examples/rewards/table.py --out runs/rewards --seeds 0 --only gaussian visualquality_r1

After a kill the same command resumes: each reward of each seed is a stage of its own. The
table (`table.md`, `table.json`) has means with 95% intervals over the seeds, and `page.html` shows it with the curves.
The figures are those of a model with under a million weights on crops of a few photographs. They show what each reward
does to training at that size, not which is best for a 7B model.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from reward_page import collect, write_page
from rich.console import Console

from omniq_verl.data.files import replace_text
from omniq_verl.pipeline.commands import below
from omniq_verl.pipeline.experiment import once_per_seed, seed_folder
from omniq_verl.pipeline.process import StageFailed, run_folder_lock
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.summary import figure_lines, print_cells
from omniq_verl.pipeline.tiny_stages import Settings, cold_start, grpo_stage, measure_stage

REPO = Path(__file__).resolve().parents[2]
TINY = {"omniquality_r": "cpu_tiny_stage1"}
SHORT = {"reward.batch_settings.limit": 16, "reward.batch_settings.buffer": 16}  # of 32 tokens that an answer may have
SEVERAL_UPDATES = {**TINY, "actor_rollout_ref.actor.ppo_mini_batch_size": 4}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "gaussian": ("omniquality_r/cpu_tiny_stage1", {}),
    "threshold": ("ablation/threshold", TINY),
    "visualquality_r1": ("rewards/visualquality_r1", TINY),
    "tatar": ("rewards/tatar", TINY | {"reward.batch_settings.ranked_tasks": "[technical]"}),
    "pairwise_accuracy": ("rewards/pairwise_accuracy", TINY),
    "listwise_plcc": ("rewards/listwise_plcc", TINY),
    "listwise_srcc": ("rewards/listwise_srcc", TINY),
    "soft_label": ("rewards/soft_label", TINY | {"reward.batch_settings.std": 0.6}),
    "uncertain_gaussian": ("rewards/uncertain_gaussian", TINY),
    "length_penalty": ("rewards/length_penalty", TINY | SHORT),
    "repetition_penalty": ("rewards/repetition_penalty", TINY),
    "evoquality_round1": ("rewards/evoquality_round1", TINY),
    "evoquality_round2": ("rewards/evoquality_round2", TINY),
    "gspo": ("losses/gspo", SEVERAL_UPDATES),
    "cispo": ("losses/cispo", SEVERAL_UPDATES),
    "sapo": ("losses/sapo", SEVERAL_UPDATES),
    "dr_grpo": ("losses/dr_grpo", SEVERAL_UPDATES),
    "dapo_clip_higher": ("losses/dapo_clip_higher", SEVERAL_UPDATES),
}
"""Recipe and overrides of each row. The tiny data have one task, which TATAR's ranking is given, and labels that no one
rated, so that the soft labels get a standard deviation and the uncertain Gaussian is 0.8 wide throughout."""
AFTER = {"evoquality_round2": "evoquality_round1"}
"""Rows that start from another row's model and not from the cold start."""
FILTER = {
    "trainer.v1.sampler.sampler_kwargs.mode": "drop",
    "trainer.v1.sampler.sampler_kwargs.metric": "score",
    "trainer.v1.sampler.sampler_kwargs.tau": 0.05,
}
"""The same for all rows: groups whose rewards spread by less than a twentieth are dropped and counted."""


def build(settings: Settings, names: list[str]) -> list[Stage]:
    """Everything one seed takes."""
    stages = [*cold_start(settings), measure_stage(settings, "sft_test", "held-out after SFT", settings.sft_model)]
    for name in names:
        recipe, own = RUNS[name]
        start = settings.trained(AFTER[name]) if name in AFTER else settings.sft_model
        stages.append(grpo_stage(settings, name, name, recipe, start, settings.grpo_steps, **FILTER, **own))
        stages.append(measure_stage(settings, f"{name}_test", f"held-out after {name}", settings.trained(name)))
    return stages


def arguments() -> argparse.ArgumentParser:
    """The options of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rewards"), help="run folder (default: runs/rewards)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--steps", type=int, default=20, help="GRPO steps of each run (default: 20)")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), help="rows of the table (default: all)")
    return parser


def run(root: Path, seeds: list[int], steps: int, names: list[str], console: Console) -> None:
    """Run every stage that is not done yet, and write and print the table."""

    def of_seed(seed: int) -> list[Stage]:
        own = Settings(REPO, root / seed_folder(seed), seed, grpo_steps=steps)
        return below(seed_folder(seed), build(own, names))

    try:
        with run_folder_lock(root):
            run_stages(once_per_seed(seeds, of_seed), root, console)
    except StageFailed as error:
        sys.exit(str(error))
    found = collect(names)([root / seed_folder(seed) for seed in seeds])
    replace_text(root / "table.json", json.dumps({"seeds": seeds, "steps": steps, "rows": found}, indent=2) + "\n")
    print_cells(f"tiny model, seeds {seeds}", ["", *next(iter(found.values()))], figure_lines(found), console)
    console.print(f"page: {write_page(root, names, seeds)}", soft_wrap=True)


def main() -> None:
    parser = arguments()
    args = parser.parse_args()
    names = [name for name in RUNS if args.only is None or name in args.only]
    if missing := [AFTER[name] for name in names if name in AFTER and AFTER[name] not in names]:
        parser.error(f"--only needs {', '.join(missing)} as well, whose model another row starts from")
    run(args.out.resolve(), args.seeds, args.steps, names, Console())


if __name__ == "__main__":
    main()
