"""Table 4 of OmniQuality-R with a tiny model: stages 1 and 2, with and without entropy gate and STD filter.

    VERL_PLATFORM=cpu python examples/omniquality_r/table4.py --out runs/table4 --seeds 0 1 2

Stage 2 starts from stage 1 without either mechanism. The filter's tau is 0.25: the paper's 0.001 would keep all groups
of a tiny model and make the third row equal to the second. The same command resumes a killed run. The figures are those
of a tiny model: they show that the mechanisms run and how they affect it, not how they affect a 7B model.
"""

from pathlib import Path

from figures import figures_of

from omniq_verl.quickstart.stages import Settings, Stage, cold_start, grpo_stage, measure_stage
from omniq_verl.quickstart.tables import run_seeds, seeds_of, seeds_parser

REPO = Path(__file__).resolve().parents[2]
RECIPES = {
    (1, "GRPO+GR"): "cpu_tiny_stage1",
    (1, "+ Entro."): "tables/cpu_tiny_table4_stage1_entropy",
    (1, "+ Entro. + STD"): "tables/cpu_tiny_table4_stage1_entropy_std",
    (2, "GRPO+GR"): "tables/cpu_tiny_table4_stage2_plain",
    (2, "+ Entro."): "tables/cpu_tiny_table4_stage2_entropy",
    (2, "+ Entro. + STD"): "cpu_tiny_stage2",
}
"""Recipe of each row of the table, by stage and method."""


def folder(stage: int, method: str) -> str:
    """Folder of a run, relative to the seed's."""
    return f"stage{stage}_{[row for row in RECIPES if row[0] == stage].index((stage, method))}"


def build(settings: Settings) -> list[Stage]:
    """All stages of one seed."""
    stages = [*cold_start(settings), measure_stage(settings, "sft_test", "held-out after SFT", settings.sft_model)]
    for (stage, method), recipe in RECIPES.items():
        name, title = folder(stage, method), f"stage {stage}, {method}"
        start = settings.sft_model if stage == 1 else settings.trained(folder(1, "GRPO+GR"))
        stages.append(grpo_stage(settings, name, title, f"omniquality_r/{recipe}", start, settings.grpo_steps))
        stages.append(measure_stage(settings, f"{name}_test", f"held-out after {title}", settings.trained(name)))
    return stages


def main() -> None:
    args = seeds_parser(__doc__, "runs/table4", steps=10).parse_args()
    rows = {"SFT": "sft"} | {f"stage {stage}: {method}": folder(stage, method) for stage, method in RECIPES}
    run_seeds(seeds_of(args, REPO), build, figures_of(rows))


if __name__ == "__main__":
    main()
