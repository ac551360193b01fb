"""The whole OmniQuality-R chain at the smallest size: plans and reasoning, rejection sampling, SFT, stages 1 and 2.

    VERL_PLATFORM=cpu python examples/omniquality_r/chain.py --out runs/chain --seeds 0 1 2

The model writes its own reasoning data; a bootstrap SFT replaces the pretraining of a 7B model. --table6 also runs
stage 1 with the threshold reward. The same command resumes a killed run. The figures are those of a tiny model: they
show that the chain runs, not what it would achieve with a 7B model.
"""

import sys
from pathlib import Path

from figures import figures_of

from omniq_verl.quickstart.stages import Settings, Stage, data_stage, grpo_stage, measure_stage, model_stage, sft_stage
from omniq_verl.quickstart.tables import run_seeds, seeds_of, seeds_parser

REPO = Path(__file__).resolve().parents[2]
TINY = "omniquality_r/cpu_tiny"
COT_IMAGES, COT_PATHS = 3000, 8
ROWS = {
    "SFT on own reasoning": "sft",
    "stage 1": "stage1",
    "stage 2 (from stage 1)": "stage2",
    "stage 1, threshold reward": "threshold",
}


def build(settings: Settings, table6: bool) -> list[Stage]:
    """All stages of one seed."""
    bootstrapped = settings.root / "bootstrap" / "global_step_300" / "huggingface"
    learned = settings.root / "sft" / "global_step_150" / "huggingface"
    model, lessons = settings.root / "model", settings.root / "data" / "bootstrap.parquet"
    kept = settings.root / "cot" / "sft.parquet"
    stages = [
        data_stage(settings),
        model_stage(settings, texts="bootstrap.parquet", vocab=560),
        sft_stage(settings, "bootstrap", "stands in for pretraining", f"{TINY}_bootstrap", model, lessons, 300),
        cot_stage(settings, bootstrapped),
        sft_stage(settings, "sft", "cold start on what was selected", f"{TINY}_sft", bootstrapped, kept, 150),
        measured(settings, "sft", learned),
        *trained_and_measured(settings, "stage1", f"{TINY}_stage1", learned),
        *trained_and_measured(settings, "stage2", f"{TINY}_stage2", settings.trained("stage1")),
    ]
    if table6:
        recipe = "omniquality_r/tables/cpu_tiny_table6_threshold"
        stages += trained_and_measured(settings, "threshold", recipe, learned)
    return stages


def cot_stage(settings: Settings, model: Path) -> Stage:
    """Plan, reason and select."""
    words = {
        "data": f"[{settings.root / 'data' / 'train.parquet'}]",
        "out": settings.root / "cot",
        "engine.model": model,
        "engine.max_model_len": 448,
        "engine.dtype": "float32",
        "engine.memory": 0.3,
        "paths": COT_PATHS,
        "limit": COT_IMAGES,
        "plan.max_tokens": 48,
        "reason.max_tokens": 48,
        "select.jitter": 1.0,  # as in the quickstart, so that GRPO has room to improve the numbers
        "select.decimals": 1,
        "run_options.batch": 256,
        "seed": settings.seed,
    }
    command = [sys.executable, "-m", "omniq_verl.cli", "cot", "run"]
    command += [f"{key}={value}" for key, value in words.items()]
    return Stage("cot", "plans, reasoning, rejection sampling", command)


def trained_and_measured(settings: Settings, name: str, recipe: str, model: Path) -> list[Stage]:
    stage = grpo_stage(settings, name, f"GRPO: {recipe}", recipe, model, settings.grpo_steps)
    return [stage, measured(settings, name, settings.trained(name))]


def measured(settings: Settings, name: str, model: Path) -> Stage:
    return measure_stage(settings, f"{name}_test", f"held-out after {name}", model)


def main() -> None:
    parser = seeds_parser(__doc__, "runs/chain", steps=10)
    parser.add_argument("--table6", action="store_true", help="also run stage 1 with the threshold reward")
    args = parser.parse_args()
    seeds = seeds_of(
        args, REPO, {"sft": 3000, "bootstrap": 6000}
    )  # sft only sets the quality scale and is not trained on
    rows = {title: name for title, name in ROWS.items() if args.table6 or name != "threshold"}
    run_seeds(seeds, lambda settings: build(settings, args.table6), figures_of(rows))


if __name__ == "__main__":
    main()
