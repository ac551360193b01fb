"""OmniQuality-R with a tiny model: its tables 1, 4, 6 and 8, from nothing to measured checkpoints.

Three groups of stages. ``table4`` starts from the cold start of the quickstart and has the rows of tables 4 and 8.
``chain`` lets the model write its own reasoning data; a bootstrap stands in for the pretraining that a 7B model brings
along. ``baselines`` has the other rows of table 1 (``tiny_baselines``). The group-std filter's tau is 0.25: at the
paper's 0.001 a tiny model's groups are all kept, and the rows with the filter would repeat those without.
"""

from pathlib import Path

from omniq_verl.pipeline.commands import below, omniq, settings
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable, once_per_seed, seed_folder
from omniq_verl.pipeline.readers import measured
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.tiny_baselines import SFT_STEPS, baselines
from omniq_verl.pipeline.tiny_baselines import TABLE as TABLE1
from omniq_verl.pipeline.tiny_stages import (
    Settings,
    cold_start,
    data_stage,
    grpo_stage,
    measure_stage,
    model_stage,
    sft_stage,
)

TINY = "omniquality_r/cpu_tiny"
STEPS = 10
"""GRPO steps of each training."""
COT_IMAGES, COT_PATHS = 3000, 8
CHAIN_CROPS = {"sft": 3000, "bootstrap": 6000}
"""sft sets the quality scale of the crops, and is not learned from."""
TABLE4 = {
    ("Stage 1", "GRPO+GR"): ("stage1_0", f"{TINY}_stage1"),
    ("Stage 1", "+ Entro."): ("stage1_1", "ablation/entropy"),
    ("Stage 1", "+ Entro. + STD"): ("stage1_2", "ablation/entropy_std"),
    ("Stage 2", "GRPO+GR"): ("stage2_0", "ablation/plain"),
    ("Stage 2", "+ Entro."): ("stage2_1", "ablation/entropy"),
    ("Stage 2", "+ Entro. + STD"): ("stage2_2", f"{TINY}_stage2"),
}
"""Rows of table 4: the folder and the recipe of each."""
TABLE8 = {"sigma 0.6": ("sigma_06", "ablation/sigma_06"), "sigma 1": ("sigma_10", "ablation/sigma_10")}
"""Rows of table 8 besides 0.8, which is stage 1 of table 4."""
GROUPS = {"Stage 1": "Stage 1", "Stage 2": "Stage 2 (from GRPO+GR)"}
"""What the paper prints beside the rows of table 4."""
NOTE = "Tiny model, 600 held-out crops of photographs; stage 2 starts from stage 1 without either mechanism."


def tiny(repo: Path, root: Path, seeds: tuple[int, ...]) -> Experiment:
    """All that runs at the size of a tiny model.

    Args:
        repo: folder with ``recipes`` and ``data_prep``.
        root: folder of the run.
        seeds: of data, weights, order and sampling.
    """
    stages = once_per_seed(seeds, lambda seed: seed_stages(repo, root, seed))
    return Experiment("omniquality_r", "tiny", seeds, stages, TABLES, NOT_RUN)


def seed_stages(repo: Path, root: Path, seed: int) -> list[Stage]:
    """All groups of one seed."""
    here = root / seed_folder(seed)
    of1 = Settings(repo, here / "baselines", seed, SFT_STEPS, grpo_steps=STEPS)
    of4 = Settings(repo, here / "table4", seed, grpo_steps=STEPS)
    of6 = Settings(repo, here / "chain", seed, grpo_steps=STEPS, crops=CHAIN_CROPS)
    groups = {"table4": table4(of4), "chain": chain(of6), "baselines": baselines(of1, of4)}
    return [stage for group, stages in groups.items() for stage in below(f"{seed_folder(seed)}/{group}", stages)]


def table4(own: Settings) -> list[Stage]:
    """Tables 4 and 8: stage 1 and 2 with and without entropy gate and filter, and stage 1 with other sigmas."""
    stages = [*cold_start(own), measure_stage(own, "sft_test", "held-out after SFT", own.sft_model)]
    for (stage, method), (name, recipe) in TABLE4.items():
        number, start = (1, own.sft_model) if stage == "Stage 1" else (2, own.trained("stage1_0"))
        stages += _trained(own, name, f"{stage.lower()}, {method}", recipe, start, number)
    for title, (name, recipe) in TABLE8.items():
        stages += _trained(own, name, title, recipe, own.sft_model)
    return stages


def _trained(own: Settings, name: str, title: str, recipe: str, start: Path, stage: int = 1) -> list[Stage]:
    """A training and its measurement; ``stage`` is the one that an ablation changes."""
    base = {"omniquality_r": f"cpu_tiny_stage{stage}"} if recipe.startswith("ablation/") else {}
    return [
        grpo_stage(own, name, title, recipe, start, own.grpo_steps, **base),
        measure_stage(own, f"{name}_test", f"held-out after {title}", own.trained(name)),
    ]


def chain(own: Settings) -> list[Stage]:
    """Bootstrap, plans and reasoning, rejection sampling, SFT, stage 1 and 2, and stage 1 by the threshold reward."""
    bootstrapped = own.root / "bootstrap" / "global_step_300" / "huggingface"
    learned = own.root / "sft" / "global_step_150" / "huggingface"
    model, sft_file = own.root / "model", own.root / "data" / "bootstrap.parquet"
    selected = own.root / "cot" / "sft.parquet"
    return [
        data_stage(own),
        model_stage(own, texts="bootstrap.parquet", vocab=560),
        sft_stage(own, "bootstrap", "stands in for pretraining", f"{TINY}_bootstrap", model, sft_file, 300),
        cot_stage(own, bootstrapped),
        sft_stage(own, "sft", "cold start on what was selected", f"{TINY}_sft", bootstrapped, selected, 150),
        measure_stage(own, "sft_test", "held-out after sft", learned),
        *_trained(own, "stage1", "stage1", f"{TINY}_stage1", learned),
        *_trained(own, "stage2", "stage2", f"{TINY}_stage2", own.trained("stage1")),
        *_trained(own, "threshold", "threshold", "ablation/threshold", learned),
    ]


def cot_stage(own: Settings, model: Path) -> Stage:
    """Plan, reason, select."""
    words = {
        "data": f"[{own.root / 'data' / 'train.parquet'}]",
        "out": own.root / "cot",
        "engine.model": model,
        "engine.max_model_len": 448,
        "engine.dtype": "float32",
        "engine.memory": 0.3,
        "paths": COT_PATHS,
        "limit": COT_IMAGES,
        "plan.max_tokens": 48,
        "reason.max_tokens": 48,
        "select.jitter": 1.0,  # as in the quickstart: a number that GRPO has to make finer
        "select.decimals": 1,
        "run_options.batch": 256,
        "seed": own.seed,
    }
    return Stage("cot", "plans, reasoning, rejection sampling", omniq("cot", "run", *settings(words)))


TABLES = (
    TABLE1,
    OurTable(
        "omniquality_r:4",
        (
            OurRow("SFT", "table4/sft_test"),
            *(OurRow(f"{s}: {m}", f"table4/{name}_test", (GROUPS[s], m)) for (s, m), (name, _) in TABLE4.items()),
        ),
        measured,
        note=NOTE,
    ),
    OurTable(
        "omniquality_r:6",
        (
            OurRow("SFT on own reasoning", "chain/sft_test"),
            OurRow("stage 1, threshold reward", "chain/threshold_test", (None, "Rej. Tuning + GRPO")),
            OurRow("stage 1", "chain/stage1_test", (None, "Rej. Tuning + GPRO with GR")),
            OurRow("stage 2 (from stage 1)", "chain/stage2_test"),
        ),
        measured,
        note="Tiny model, 600 held-out crops of photographs; the model wrote its own reasoning data. The paper's first"
        " row has no counterpart: before its cold start the tiny model cannot answer the question.",
    ),
    OurTable(
        "omniquality_r:8",
        (
            OurRow("sigma 0.6", "table4/sigma_06_test", (None, "sigma 0.6")),
            OurRow("sigma 0.8", "table4/stage1_0_test", (None, "sigma 0.8")),
            OurRow("sigma 1", "table4/sigma_10_test", (None, "sigma 1")),
        ),
        measured,
        note="Tiny model, 600 held-out crops of photographs; all rows are measured by the reward of sigma 0.8.",
    ),
)
_SETS = "the photographs of the tiny size are one technical data set; --scale paper measures this table"
_IMAGES = "the images of a tiny text-to-image model are meaningless; see the guide of text-to-image generation"
NOT_RUN = {
    **{f"omniquality_r:{number}": _SETS for number in (2, 3)},
    **{f"omniquality_r:{number}": _IMAGES for number in (5, 7)},
}
