"""OmniQuality-R at real size: cold start, two stages, the ablations of tables 4, 6 and 8, and tables 1 to 3.

The four jointly trained baselines of tables 1 to 3 are here as well: Qwen-SFT, Q-Align, DeQA and Q-Insight.
"""

import sys
from pathlib import Path

from omniq_verl.evaluation.papers import load_table
from omniq_verl.pipeline.commands import flags, listed, omniq, settings
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
from omniq_verl.pipeline.paper.shared_stages import ANSWER_TOKENS, GPUS, HOUR, Real, grpo, measure, mix, prepare, sft
from omniq_verl.pipeline.readers import of_paper
from omniq_verl.pipeline.stage import Stage, Work
from omniq_verl.preparation.mix import PRESETS

TRAINED_ON = tuple(PRESETS["omniquality_r"])
OPTIONS = {
    "koniq": (),
    "ava": (),
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
COT_TAKE = PRESETS["omniquality_r"]
"""Images of each set that the cold start asks about, as in ``examples/omniquality_r/cot.yaml``."""
COT_SELECT = {"images": 5_000, "emphasis": "hard", "levels_of.ava": "quantiles"}
"""Selection of the cold start. Sec. 4.1 learns from 4,916 images of AVA, 5,401 of EvalMuse and 4,889 of KonIQ; fig. 2
emphasizes hard cases."""
COT_PATHS, COT_RECORDS = 8, 41_183
"""Paths of an image (the paper says several), and records that were learned from (sec. 4.1)."""
BASELINE_ROWS = {"qwen_sft": ("score", 1), "q_align": ("level", 1), "deqa": ("soft", 3)}
"""Baselines by SFT: the kind of their answers, and records of a row, about: a soft label has one for each level that
counts."""
BY_LEVELS = ("--family", "levels", "--mode", "direct")
"""How `omniq eval` reads Q-Align and DeQA: the expected level by the probabilities of the five words."""
EPOCHS, BATCH = 2, 64
TRAININGS = {
    # name: recipe, the stage that an ablation changes, what it starts from, sets it is measured on
    "stage1": ("omniquality_r/stage1", None, "sft", TABLE4),
    "stage1_entropy": ("ablation/entropy", "stage1", "sft", TABLE4),
    "stage1_entropy_std": ("ablation/entropy_std", "stage1", "sft", TABLE4),
    "stage2_plain": ("ablation/plain", "stage2", "stage1", TABLE4),
    "stage2_entropy": ("ablation/entropy", "stage2", "stage1", TABLE4),
    "stage2": ("omniquality_r/stage2", None, "stage1", ALL),
    "naive": ("ablation/threshold", "stage1", None, IN_DOMAIN),
    "threshold": ("ablation/threshold", "stage1", "sft", IN_DOMAIN),
    "sigma_06": ("ablation/sigma_06", "stage1", "sft", IN_DOMAIN),
    "sigma_10": ("ablation/sigma_10", "stage1", "sft", IN_DOMAIN),
}


def experiment(run: Real) -> Experiment:
    """All stages of all seeds."""
    stages = [*prepare(run), *(stage for seed in run.seeds for stage in seed_stages(run, seed))]
    return Experiment("omniquality_r", "paper", run.seeds, stages, TABLES, NOT_RUN)


def seed_stages(run: Real, seed: int) -> list[Stage]:
    """One seed, from the mixture of training rows to the last evaluation."""
    preset = PRESETS["omniquality_r"]
    found = [mix(run, seed, "mix", preset), cot(run, seed)]
    learned = run.below(seed, "cot") / "sft.parquet"
    found += sft(run, seed, "sft", "omniquality_r/sft", run.model, learned, COT_RECORDS, 1, 256)
    found += measure(run, seed, "sft", run.trained(seed, "sft"), run.tests(*ALL))
    train, val = run.below(seed, "mix") / "train.parquet", [run.file(name, "val") for name in IN_DOMAIN]
    for name, (recipe, changed, start, sets) in TRAININGS.items():
        model = run.trained(seed, start) if start else run.model
        rows, base = sum(preset.values()), {"omniquality_r": changed} if changed else {}
        found += grpo(run, seed, name, recipe, model, [train], val, rows, EPOCHS, BATCH, **base)
        found += measure(run, seed, name, run.trained(seed, name), run.tests(*sets))
    return [*found, *baselines(run, seed, train, val)]


def baselines(run: Real, seed: int, train: Path, val: list[Path]) -> list[Stage]:
    """All four, from the base model, on the joint rows; epochs and batches are the recipes'."""
    rows = sum(PRESETS["omniquality_r"].values())
    found = grpo(run, seed, "q_insight", "baselines/q_insight", run.model, [train], val, rows, 4, 128)
    found += measure(run, seed, "q_insight", run.trained(seed, "q_insight"), run.tests(*ALL))
    for name, (kind, records) in BASELINE_ROWS.items():
        learned = run.below(seed, f"{name}_rows") / "sft.parquet"
        script = [sys.executable, str(run.repo / "data_prep" / "answers.py")]
        words = [*script, *flags(data=train, kind=kind, out=learned)]
        title = f"answers without reasoning: {kind}"
        found.append(Stage(f"seed{seed}/{name}_rows", title, words, silence=4 * HOUR, work=Work(rows)))
        found += sft(run, seed, name, f"baselines/{name}", run.model, learned, rows * records, 2, 256)
        how = () if kind == "score" else BY_LEVELS
        found += measure(run, seed, name, run.trained(seed, name), run.tests(*ALL), how)
    return found


def cot(run: Real, seed: int) -> Stage:
    """Plans, reasoning and rejection sampling by the base model."""
    words = {
        "data": listed([run.training_rows(name) for name in COT_TAKE]),
        **{f"take.{name}": rows for name, rows in COT_TAKE.items()},
        "out": run.below(seed, "cot"),
        "engine.model": run.model,
        "engine.max_model_len": 8192,
        "paths": COT_PATHS,
        **{f"select.{key}": value for key, value in COT_SELECT.items()},
        "run_options.workers": GPUS,
        "seed": seed,
    }
    images = sum(COT_TAKE.values())
    work = Work(images=images, answers=images * (COT_PATHS + 1), tokens=ANSWER_TOKENS, model=run.model)
    title = "plans, reasoning, rejection sampling"
    return Stage(
        f"seed{seed}/cot", title, omniq("cot", "run", *settings(words)), gpus=GPUS, silence=4 * HOUR, work=work
    )


BASELINES = (
    "Q-Align and DeQA are their methods on the same model and rows: level words behind the rows' own questions,"
    " measured by the expected level of the five words."
)


def _table(number: int, *rows: OurRow, note: str = "") -> OurTable:
    name = f"omniquality_r:{number}"
    return OurTable(name, rows, of_paper(load_table(name)), same_columns=True, note=note)


def _row(folder: str, group: str | None, method: str, title: str | None = None) -> OurRow:
    return OurRow(title or folder, f"{folder}_test", (group, method))


def _main(number: int, group: str, qwen_sft: str = "Qwen-SFT", deqa: str = "DeQA") -> OurTable:
    """One of tables 1 to 3; table 2 writes two baselines' names in another way."""
    rows = (_row("stage2", group, "OmniQuality-R (ours)"), OurRow("sft", "sft_test"))
    titles = {"q_align": "Q-Align", "deqa": deqa, "qwen_sft": qwen_sft, "q_insight": "Q-Insight"}
    return _table(number, *rows, *(_row(name, group, title) for name, title in titles.items()), note=BASELINES)


_STAGE1, _STAGE2 = "Stage 1", "Stage 2 (from GRPO+GR)"
TABLES = (
    _main(1, "MLLM-based, jointly fine-tuned"),
    _main(2, "few-shot joint fine-tuning", "QwenSFT", "DEQA"),
    _main(3, "few-shot joint fine-tuning"),
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
