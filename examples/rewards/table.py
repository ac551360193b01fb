"""Every reward and policy loss on the tiny model: the same data, cold start, steps and seeds, and one table.

    VERL_PLATFORM=cpu python examples/rewards/table.py --out runs/rewards --seeds 0 1 2
    VERL_PLATFORM=cpu python examples/rewards/table.py --out runs/rewards --seeds 0 --only gaussian visualquality_r1

After a kill the same command resumes: each reward of each seed is a separate stage. With `--cold-starts` the data and
the SFT model of a seed are taken from a finished run of the quickstart with this seed. `--add` takes further seeds from
the `table.json` of another machine. The table (`table.md`, `table.json`) is written after each row, with means and 95%
intervals over the seeds that have it. `page.html`, which shows it with the curves, is written at the end. `--show`
writes both from what is finished, and runs nothing. The figures are for a model with under a million weights on crops
of a few photographs. They show what each reward does to training at that size, not which is best for a 7B model.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reward_page import COLD_START, SeedFigures, read_seeds, write_page, write_table
from rich.console import Console

from omniq_verl.pipeline.commands import below
from omniq_verl.pipeline.experiment import seed_folder
from omniq_verl.pipeline.process import StageFailed, run_folder_lock
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import PlanError, Stage, chosen, needs
from omniq_verl.pipeline.summary import print_cells
from omniq_verl.pipeline.tiny_stages import Settings, cold_start, grpo_stage

REPO = Path(__file__).resolve().parents[2]
TINY = {"omniquality_r": "cpu_tiny_stage1"}
SHORT = {"reward.batch_settings.limit": 16, "reward.batch_settings.buffer": 16}  # of 32 tokens that an answer may have
FINE = {"trainer.v1.sampler.sampler_kwargs.tau": 0.001}
"""For TATAR's ranking, whose rewards for the answers of a group differ by about 0.01. With ``FILTER``'s threshold only
groups with an answer that has no score were left, and the row trained nothing but the format."""
SEVERAL_UPDATES = 4
"""Optimiser steps per batch of the losses, as in their recipes: with one, the importance ratios are 1."""
GAUSSIAN = "omniquality_r/cpu_tiny_stage1"
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "gaussian": (GAUSSIAN, {}),
    "threshold": ("ablation/threshold", TINY),
    "visualquality_r1": ("rewards/visualquality_r1", TINY),
    "tatar": ("rewards/tatar", TINY | FINE | {"reward.batch_settings.ranked_tasks": "[technical]"}),
    "pairwise_accuracy": ("rewards/pairwise_accuracy", TINY),
    "listwise_plcc": ("rewards/listwise_plcc", TINY),
    "listwise_srcc": ("rewards/listwise_srcc", TINY),
    "soft_label": ("rewards/soft_label", TINY | {"reward.batch_settings.std": 0.6}),
    "uncertain_gaussian": ("rewards/uncertain_gaussian", TINY),
    "length_penalty": ("rewards/length_penalty", TINY | SHORT),
    "repetition_penalty": ("rewards/repetition_penalty", TINY),
    "evoquality_round1": ("rewards/evoquality_round1", TINY),
    "evoquality_round2": ("rewards/evoquality_round2", TINY),
    "gspo": ("losses/gspo", TINY),
    "cispo": ("losses/cispo", TINY),
    "sapo": ("losses/sapo", TINY),
    "dr_grpo": ("losses/dr_grpo", TINY),
    "dapo_clip_higher": ("losses/dapo_clip_higher", TINY),
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
"""For all rows but TATAR's: groups whose rewards spread by less than a twentieth are dropped and counted."""


FEW_PROCESSES = {"RAY_prestart_worker_first_driver": "0"}
"""Ray would start idle processes in advance, one for each CPU slot, which delays those that are used."""


@dataclass(frozen=True)
class Size:
    """How much each row trains and measures."""

    steps: int = 16
    prompts: int = 8
    """Images per step, each with 16 answers as in the recipes."""
    answers: int = 4
    """Answers at temperature 1 to each of the 200 validation crops, which are of other photographs than training's."""


def build(settings: Settings, names: list[str], size: Size, ready: Path | None = None) -> list[Stage]:
    """The stages of one seed: those of its cold start, then the rows.

    Args:
        settings: of the seed.
        names: rows.
        size: of each row.
        ready: a finished run of the quickstart with the same seed, whose data and SFT model are taken.
    """
    begun = settings if ready is None else replace(settings, root=ready)
    only = {"trainer.val_only": True, "trainer.val_before_train": True}
    stages = cold_start(settings) if ready is None else []
    stages.append(replace(_row(settings, begun, size, COLD_START, GAUSSIAN, begun.sft_model, **only), steps=0))
    for name in names:
        recipe, own = RUNS[name]
        start = settings.trained(AFTER[name]) if name in AFTER else begun.sft_model
        updates = SEVERAL_UPDATES if recipe.startswith("losses/") else 1
        stages.append(_row(settings, begun, size, name, recipe, start, updates, **own))
    return stages


def _row(
    settings: Settings, begun: Settings, size: Size, name: str, recipe: str, start: Path, updates: int = 1, **own: Any
) -> Stage:
    """One run. The running engine answers the held-out images after the last step, so that none is started for it."""
    data = begun.root / "data"
    overrides = {
        "data.train_files": data / "train.parquet",
        "data.train_batch_size": size.prompts,
        "actor_rollout_ref.actor.ppo_mini_batch_size": size.prompts // updates,
        "data.val_files": data / "val.parquet",
        "actor_rollout_ref.rollout.val_kwargs.n": size.answers,
        "trainer.test_freq": size.steps,
        "trainer.save_freq": size.steps,
        "trainer.v1.keep_best": "off",
    }
    stage = grpo_stage(settings, name, name, recipe, start, size.steps, **(overrides | FILTER | own))
    outside = () if begun.root == settings.root else (data, begun.sft_model)
    return replace(stage, reads=outside, environment=FEW_PROCESSES)


def arguments() -> argparse.ArgumentParser:
    """The options of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rewards"), help="run folder (default: runs/rewards)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument(
        "--cold-starts", type=Path, nargs="+", metavar="RUN", help="runs of the quickstart, one for each seed, in order"
    )
    parser.add_argument("--steps", type=int, default=16, help="GRPO steps of each run (default: 16)")
    parser.add_argument("--prompts", type=int, default=8, help="images per step, a multiple of 4 (default: 8)")
    parser.add_argument("--answers", type=int, default=4, help="answers per held-out image (default: 4)")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), help="rows of the table (default: all)")
    parser.add_argument(
        "--add", type=Path, nargs="+", default=[], metavar="FILE", help="table.json of other seeds, run elsewhere"
    )
    parser.add_argument(
        "--show", action="store_true", help="write the table and the page from finished stages; run nothing"
    )
    return parser


def run(
    root: Path,
    of_seeds: Iterable[list[Stage]],
    names: list[str],
    seeds: list[int],
    size: Size,
    others: SeedFigures | None = None,
) -> None:
    """Run every stage that is not done yet, seed by seed, and write the table after each row."""
    console = Console()
    try:
        with run_folder_lock(root):
            for stages in of_seeds:
                need = needs(stages, root)
                for stage in stages:
                    run_stages(chosen(stages, [stage.name], need), root, console)
                    write_table(root, names, seeds, vars(size), others)
    except (StageFailed, PlanError) as error:
        sys.exit(str(error))
    show(root, names, seeds, size, others)


def show(root: Path, names: list[str], seeds: list[int], size: Size, others: SeedFigures | None = None) -> None:
    """Write and print the table and the page from what is finished."""
    console = Console()
    cells = write_table(root, names, seeds, vars(size), others)
    print_cells(f"tiny model, seeds {sorted({*seeds, *(others or {})})}", cells[0], cells[1:], console)
    console.print(f"page: {write_page(root, names, seeds)}", soft_wrap=True)


def other_seeds(files: list[Path], seeds: list[int], size: Size) -> SeedFigures:
    """The figures of other seeds, from the files of ``--add``.

    Raises:
        ValueError: a file cannot be used, or a seed is there twice.
    """
    found: SeedFigures = {}
    for path in files:
        more = read_seeds(path, vars(size))
        if twice := sorted(more.keys() & {*found, *seeds}):
            raise ValueError(f"{path} has seed {twice[0]}, which is there already. Fix: leave out one of the two")
        found |= more
    return found


def chosen_cold_starts(seeds: list[int], runs: list[Path] | None) -> list[Path | None]:
    """The quickstart's run of each seed, in order; None: the cold start is trained here.

    Raises:
        ValueError: their number is another, one has no data or no SFT model, or one has another seed.
    """
    if runs is None:
        return [None] * len(seeds)
    if len(runs) != len(seeds):
        raise ValueError(f"--cold-starts has {len(runs)} runs for {len(seeds)} seeds. Fix: name one for each seed")
    for seed, folder in zip(seeds, runs, strict=True):
        card = folder / "data" / "dataset_card.json"
        if not card.is_file() or not Settings(REPO, folder).sft_model.is_dir():
            raise ValueError(f"{folder} has no data or no SFT model. Fix: name a finished run of the quickstart")
        if (found := json.loads(card.read_bytes()).get("seed")) != seed:
            raise ValueError(f"the data in {folder} have seed {found}, not {seed}. Fix: name the seeds' runs in order")
    return [folder.resolve() for folder in runs]


def main() -> None:
    parser = arguments()
    args = parser.parse_args()
    names = [name for name in RUNS if args.only is None or name in args.only]
    if missing := [AFTER[name] for name in names if name in AFTER and AFTER[name] not in names]:
        parser.error(f"--only needs {', '.join(missing)} as well, whose model another row starts from")
    if args.prompts < SEVERAL_UPDATES or args.prompts % SEVERAL_UPDATES:
        parser.error(f"--prompts must be a multiple of {SEVERAL_UPDATES}: the losses update that often per batch")
    size, root = Size(args.steps, args.prompts, args.answers), args.out.resolve()
    try:
        others = other_seeds(args.add, args.seeds, size)
        if args.show:
            return show(root, names, args.seeds, size, others)
        ready = chosen_cold_starts(args.seeds, args.cold_starts)
    except ValueError as error:
        parser.error(str(error))
    of_seeds = []
    for seed, folder in zip(args.seeds, ready, strict=True):
        settings = Settings(REPO, root / seed_folder(seed), seed, grpo_steps=size.steps, grpo_save_every=size.steps)
        of_seeds.append(below(seed_folder(seed), build(settings, names, size, folder)))
    run(root, of_seeds, names, args.seeds, size, others)


if __name__ == "__main__":
    main()
