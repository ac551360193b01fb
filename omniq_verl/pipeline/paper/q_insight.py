"""Q-Insight at real size: joint training and each task alone; tables 2 to 5."""

from omniq_verl.evaluation.papers import load_table
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
from omniq_verl.pipeline.paper.shared_stages import TESTS, Real, grpo, measure, mix, prepare
from omniq_verl.pipeline.readers import of_paper
from omniq_verl.pipeline.stage import Stage

TRAINED_ON = ("koniq", "dq495k")
_SCORE = ("--task", "q_insight_score")
SCORED = ("koniq", "spaq", "kadid", "pipal", "live_wild", "agiqa3k", "csiq")
"""Sets of tables 2 and 4."""
OPTIONS = {
    "koniq": ("--deqa", *_SCORE),
    "dq495k": ("--task", "q_insight_degradation", "--test-rows", str(TESTS["dq495k"])),
    **dict.fromkeys(SCORED[1:], _SCORE),
}
EPOCHS, BATCH, ROWS = 10, 128, 7_000
RUNS = {
    "joint": {"koniq": ROWS, "dq495k": ROWS},
    "score_only": {"koniq": ROWS},
    "degradation_only": {"dq495k": ROWS},
}
"""What each run is trained on."""


def experiment(run: Real) -> Experiment:
    """All stages of all seeds."""
    stages = [*prepare(run), *(stage for seed in run.seeds for stage in seed_stages(run, seed))]
    return Experiment("q_insight", "paper", run.seeds, stages, TABLES)


def seed_stages(run: Real, seed: int) -> list[Stage]:
    """Three trainings from the base model and their evaluations."""
    found, val = [], [run.file("koniq", "val")]
    for name, take in RUNS.items():
        rows = f"{name}_rows"
        found.append(mix(run, seed, rows, take))
        train, count = [run.below(seed, rows) / "train.parquet"], sum(take.values())
        found += grpo(run, seed, name, f"q_insight/{name}", run.model, train, val, count, EPOCHS, BATCH)
        found += measure(run, seed, name, run.trained(seed, name), run.tests(*SCORED, "dq495k"))
    return found


def _table(number: int, *rows: tuple[str, str]) -> OurTable:
    name = f"q_insight:{number}"
    ours = tuple(OurRow(folder, f"{folder}_test", (None, method)) for folder, method in rows)
    return OurTable(name, ours, of_paper(load_table(name)), same_columns=True)


_JOINT = ("joint", "Q-Insight (ours), joint training")
_TABLE2 = OurRow("joint", "joint_test", ("MLLM-based", "Q-Insight (ours)"))
TABLES = (
    OurTable("q_insight:2", (_TABLE2,), of_paper(load_table("q_insight:2")), same_columns=True),
    _table(3, ("joint", "Q-Insight (ours)")),
    _table(4, ("score_only", "Q-Insight (ours), score only"), _JOINT),
    _table(5, ("degradation_only", "Q-Insight (ours), degradation only"), _JOINT),
)
