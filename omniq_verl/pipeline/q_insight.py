"""Q-Insight's tables 4 and 5 with a tiny model: joint training against each task alone.

All three runs start from the same cold start on both questions, and see as many prompts of each of their tasks: joint
training takes twice the steps, as it does in the paper, which counts epochs. Rewards and N are the paper's; learning
rate, KL and the mean over tokens are the quickstart's.
"""

from pathlib import Path

from omniq_verl.pipeline.commands import below, flags, listed, module
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable, once_per_seed, seed_folder
from omniq_verl.pipeline.readers import evaluated
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.tiny_stages import Settings, data_stage, eval_stage, grpo_stage, model_stage, sft_stage

STEPS = 12
"""GRPO steps for each task of a run."""
CROPS = {"train": 12_000, "sft": 2000}
RUNS = {
    "score_only": ("score",),
    "degradation_only": ("degradation",),
    "joint": ("score", "degradation"),
}
"""The tasks of each run."""
_OF_JOINT = {"q_insight": "cpu_tiny_joint"}
RECIPES = {
    "score_only": ("q_insight/score_only", _OF_JOINT),
    "degradation_only": ("q_insight/degradation_only", _OF_JOINT),
    "joint": ("q_insight/cpu_tiny_joint", {}),
}
"""The recipe of each run, and the one it is a difference to."""


def tiny(repo: Path, root: Path, seeds: tuple[int, ...]) -> Experiment:
    """All that runs at the size of a tiny model; the arguments are those of ``omniquality_r.tiny``."""

    def of_seed(seed: int) -> list[Stage]:
        own = Settings(repo, root / seed_folder(seed), seed, grpo_steps=STEPS, crops=CROPS)
        return below(seed_folder(seed), stages(own))

    return Experiment("q_insight", "tiny", seeds, once_per_seed(seeds, of_seed), TABLES, NOT_RUN)


def stages(own: Settings) -> list[Stage]:
    """Everything one seed takes."""
    asked = own.root / "asked"
    made = module("omniq_verl.pipeline.made.q_insight_photos", flags(data=own.root / "data", out=asked, seed=own.seed))
    title = "cold start on both questions"
    sft_file, model = asked / "sft.parquet", own.root / "model"
    found = [
        data_stage(own),
        Stage("asked", "the photographs under both questions", made),
        model_stage(own, after=("asked",), texts="../asked/sft.parquet", vocab=700),
        sft_stage(own, "sft", title, "q_insight/cpu_tiny_sft", model, sft_file, own.sft_steps),
        _measured(own, "sft", own.sft_model),
    ]
    for name, tasks in RUNS.items():
        files = {
            "data.train_files": listed([asked / f"rl_{task}.parquet" for task in tasks]),
            "data.val_files": asked / "val.parquet",
        }
        recipe, base = RECIPES[name]
        title, steps = f"GRPO: {name}", len(tasks) * own.grpo_steps
        found.append(grpo_stage(own, name, title, recipe, own.sft_model, steps, **base, **files))
        found.append(_measured(own, name, own.trained(name, len(tasks))))
    return found


def _measured(own: Settings, name: str, model: Path) -> Stage:
    files = [own.root / "asked" / f"test_{task}.parquet" for task in ("score", "degradation")]
    return eval_stage(own, f"{name}_test", f"held-out answers after {name}", model, files)


SCORES = {
    "PLCC": ("photo_scores", "plcc"),
    "SRCC": ("photo_scores", "srcc"),
    "score's level": ("photo_scores", "level_accuracy"),
}
DEGRADATIONS = {
    "class accuracy": ("photo_degradations", "class_accuracy"),
    "level accuracy": ("photo_degradations", "level_accuracy"),
}
_START = OurRow("cold start", "sft_test")
_JOINT = OurRow("joint", "joint_test", (None, "Q-Insight (ours), joint training"))
_SCORE = OurRow("score only", "score_only_test", (None, "Q-Insight (ours), score only"))
_DEGRADATION = OurRow("degradation only", "degradation_only_test", (None, "Q-Insight (ours), degradation only"))


def _alone(row: OurRow) -> OurRow:
    return OurRow(row.title, row.folder)


NOTE = "Tiny model, 600 held-out crops under each question, four answers each at temperature 1."
TABLES = (
    OurTable("q_insight:4", (_START, _SCORE, _alone(_DEGRADATION), _JOINT), evaluated(SCORES), note=NOTE),
    OurTable("q_insight:5", (_START, _alone(_SCORE), _DEGRADATION, _JOINT), evaluated(DEGRADATIONS), note=NOTE),
)
_SETS = "the photographs of the tiny size are one data set; --scale paper measures this table"
NOT_RUN = {"q_insight:2": _SETS, "q_insight:3": _SETS}
