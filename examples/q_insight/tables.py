"""Q-Insight's tables 4 and 5 with a tiny model: joint training against training on each task alone.

    VERL_PLATFORM=cpu python examples/q_insight/tables.py --out runs/q_insight --seeds 0 1 2

All three runs start from the same cold start on both questions and see the same number of prompts per task, so joint
training takes twice the steps, as in the paper, which counts epochs. The same command resumes a killed run. The figures
are those of a tiny model on small crops: they show that both rewards can be learned, alone and together, not whether a
7B model gains from learning both.
"""

import json
import sys
from pathlib import Path

from omniq_verl.quickstart.stages import Settings, Stage, data_stage, eval_stage, grpo_stage, model_stage, sft_stage
from omniq_verl.quickstart.tables import Figures, run_seeds, seeds_of, seeds_parser, value_of

REPO = Path(__file__).resolve().parents[2]
RUNS = {
    "score_only": ("score",),
    "degradation_only": ("degradation",),
    "joint": ("score", "degradation"),
}
ROWS = {"cold start": "sft", "score only": "score_only", "degradation only": "degradation_only", "joint": "joint"}
COLUMNS = {
    "PLCC": ("photo_scores", "plcc"),
    "SRCC": ("photo_scores", "srcc"),
    "score's level": ("photo_scores", "level_accuracy"),
    "class accuracy": ("photo_degradations", "class_accuracy"),
    "level accuracy": ("photo_degradations", "level_accuracy"),
}


def build(settings: Settings) -> list[Stage]:
    """All stages of one seed."""
    asked = settings.root / "asked"
    script = Path(__file__).with_name("photos.py")
    words = ["--data", settings.root / "data", "--out", asked, "--seed", settings.seed]
    stages = [
        data_stage(settings),
        Stage("asked", "the photographs under both questions", [sys.executable, str(script), *map(str, words)]),
        model_stage(settings, texts="../asked/sft.parquet", vocab=700),
        sft_stage(
            settings,
            "sft",
            "cold start on both questions",
            "q_insight/cpu_tiny_sft",
            settings.root / "model",
            asked / "sft.parquet",
            settings.sft_steps,
        ),
        measured(settings, "sft", settings.sft_model),
    ]
    for name, tasks in RUNS.items():
        files = {
            "data.train_files": f"[{','.join(str(asked / f'rl_{task}.parquet') for task in tasks)}]",
            "data.val_files": asked / "val.parquet",
        }
        recipe, steps = f"q_insight/cpu_tiny_{name}", len(tasks) * settings.grpo_steps
        stages.append(grpo_stage(settings, name, f"GRPO: {name}", recipe, settings.sft_model, steps, **files))
        stages.append(measured(settings, name, settings.trained(name, len(tasks))))
    return stages


def measured(settings: Settings, name: str, model: Path) -> Stage:
    files = [settings.root / "asked" / f"test_{task}.parquet" for task in ("score", "degradation")]
    return eval_stage(settings, f"{name}_test", f"held-out answers after {name}", model, files)


def collect(roots: list[Path]) -> Figures:
    """Collect the `omniq eval` figures of each run."""
    found: Figures = {}
    for title, folder in ROWS.items():
        sets = [json.loads((root / f"{folder}_test" / "metrics.json").read_text())["sets"] for root in roots]
        found[title] = {column: [value_of(one[name][key]) for one in sets] for column, (name, key) in COLUMNS.items()}
        found[title]["parsable"] = [
            sum(one[name]["status"].get("ok", 0) for name in one) / sum(one[name]["answers"] for name in one)
            for one in sets
        ]
    return found


def main() -> None:
    args = seeds_parser(__doc__, "runs/q_insight", steps=12).parse_args()
    run_seeds(seeds_of(args, REPO, {"train": 12_000, "sft": 2000}), build, collect)


if __name__ == "__main__":
    main()
