"""OmniQuality-R at real size: cold start, two stages, the ablations of tables 4, 6 and 8, and tables 1 to 3."""

from omniq_verl.evaluation.papers import load_table
from omniq_verl.pipeline.commands import listed, omniq, settings
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
from omniq_verl.pipeline.paper.parts import ANSWER_TOKENS, GPUS, HOUR, Real, grpo, measure, mix, prepare, sft
from omniq_verl.pipeline.readers import of_paper
from omniq_verl.pipeline.stage import Stage, Work
from omniq_verl.preparation.mix import PRESETS

TRAINED_ON = tuple(PRESETS["omniquality_r"])
OPTIONS = {
    "koniq": (),
    "ava": ("--val-fraction", "0.01"),
    "evalmuse": (),
    "spaq": (),
    "live_wild": (),
    "kadid": (),
    "pipal": (),
    "agiqa3k": (),
    "tad66k": (),
    "evalmi": ("--task", "alignment"),
    "genai_bench": (),
    "t2i_compbench": ("--low", "1", "--high", "5"),
}
ALL = tuple(OPTIONS)
"""Sets of tables 1 to 3; those of table 4 are among them."""
IN_DOMAIN = ("ava", "evalmuse", "koniq")
"""Sets of tables 6 and 8."""
TABLE4 = (*IN_DOMAIN, "tad66k", "evalmi", "kadid")
COT_TAKE = dict.fromkeys(IN_DOMAIN, 5_000)
"""Images of each set for the cold start: sec. 4.1 has 4,916, 5,401 and 4,889."""
COT_PATHS, COT_RECORDS = 8, 41_183
"""Paths of an image (the paper says several), and records that were learned from (sec. 4.1)."""
EPOCHS, BATCH = 2, 64
RECIPE = "omniquality_r"
TRAININGS = {
    # name: recipe, what it starts from, sets it is measured on
    "stage1": ("stage1", "sft", TABLE4),
    "stage1_entropy": ("tables/table4_stage1_entropy", "sft", TABLE4),
    "stage1_entropy_std": ("tables/table4_stage1_entropy_std", "sft", TABLE4),
    "stage2_plain": ("tables/table4_stage2_plain", "stage1", TABLE4),
    "stage2_entropy": ("tables/table4_stage2_entropy", "stage1", TABLE4),
    "stage2": ("stage2", "stage1", ALL),
    "naive": ("tables/table6_threshold", None, IN_DOMAIN),
    "threshold": ("tables/table6_threshold", "sft", IN_DOMAIN),
    "sigma_06": ("tables/table8_sigma_06", "sft", IN_DOMAIN),
    "sigma_10": ("tables/table8_sigma_10", "sft", IN_DOMAIN),
}


def experiment(run: Real) -> Experiment:
    """All stages of all seeds."""
    stages = [*prepare(run), *(stage for seed in run.seeds for stage in seed_stages(run, seed))]
    return Experiment("omniquality_r", "paper", run.seeds, stages, TABLES, NOT_RUN)


def seed_stages(run: Real, seed: int) -> list[Stage]:
    """One seed, from the mixture of training rows to the last evaluation."""
    preset = PRESETS["omniquality_r"]
    found = [mix(run, seed, "mix", preset), mix(run, seed, "cot_rows", COT_TAKE), cot(run, seed)]
    learned = run.below(seed, "cot") / "sft.parquet"
    found += sft(run, seed, "sft", f"{RECIPE}/sft", run.model, learned, COT_RECORDS, 1, 256)
    found += measure(run, seed, "sft", run.trained(seed, "sft"), run.tests(*ALL))
    train, val = [run.below(seed, "mix") / "train.parquet"], [run.file(name, "val") for name in ("koniq", "ava")]
    for name, (recipe, start, sets) in TRAININGS.items():
        model = run.trained(seed, start) if start else run.model
        rows = sum(preset.values())
        found += grpo(run, seed, name, f"{RECIPE}/{recipe}", model, train, val, rows, EPOCHS, BATCH)
        found += measure(run, seed, name, run.trained(seed, name), run.tests(*sets))
    return found


def cot(run: Real, seed: int) -> Stage:
    """Plans, reasoning and rejection sampling by the base model."""
    rows = run.below(seed, "cot_rows") / "train.parquet"
    words = {
        "data": listed([rows]),
        "out": run.below(seed, "cot"),
        "engine.model": run.model,
        "engine.max_model_len": 8192,
        "paths": COT_PATHS,
        "run_options.workers": GPUS,
        "seed": seed,
    }
    images = sum(COT_TAKE.values())
    work = Work(images=images, answers=images * (COT_PATHS + 1), tokens=ANSWER_TOKENS)
    title = "plans, reasoning, rejection sampling"
    return Stage(
        f"seed{seed}/cot", title, omniq("cot", "run", *settings(words)), gpus=GPUS, silence=4 * HOUR, work=work
    )


def _table(number: int, *rows: OurRow) -> OurTable:
    name = f"omniquality_r:{number}"
    return OurTable(name, rows, of_paper(load_table(name)), same_columns=True)


def _row(folder: str, group: str | None, method: str, title: str | None = None) -> OurRow:
    return OurRow(title or folder, f"{folder}_test", (group, method))


def _main(group: str) -> tuple[OurRow, ...]:
    return (_row("stage2", group, "OmniQuality-R (ours)"), OurRow("sft", "sft_test"))


_STAGE1, _STAGE2 = "Stage 1", "Stage 2 (from GRPO+GR)"
TABLES = (
    _table(1, *_main("MLLM-based, jointly fine-tuned")),
    _table(2, *_main("few-shot joint fine-tuning")),
    _table(3, *_main("few-shot joint fine-tuning")),
    _table(
        4,
        _row("stage1", _STAGE1, "GRPO+GR"),
        _row("stage1_entropy", _STAGE1, "+ Entro."),
        _row("stage1_entropy_std", _STAGE1, "+ Entro. + STD"),
        _row("stage2_plain", _STAGE2, "GRPO+GR"),
        _row("stage2_entropy", _STAGE2, "+ Entro."),
        _row("stage2", _STAGE2, "+ Entro. + STD"),
    ),
    _table(
        6,
        _row("naive", None, "Naive GRPO"),
        _row("threshold", None, "Rej. Tuning + GRPO"),
        _row("stage1", None, "Rej. Tuning + GPRO with GR"),
    ),
    _table(
        8,
        _row("sigma_06", None, "sigma 0.6"),
        _row("stage1", None, "sigma 0.8"),
        _row("sigma_10", None, "sigma 1"),
    ),
)
NOT_RUN = {
    "omniquality_r:5": "needs SANA's weights and GenEval's detector: see the guide of text-to-image generation",
    "omniquality_r:7": "needs SANA's weights and three scorers: see the guide of text-to-image generation",
}
