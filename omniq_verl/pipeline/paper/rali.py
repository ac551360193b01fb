"""RALI at real size: a reasoning model of KonIQ, its texts, an aligned CLIP, and a fitted RALI for every case.

Tables 2, 4, A.5 and A.6. The reasoning model is a Q-Insight that was trained on KonIQ's scores alone, as RALI's is.
"""

from collections.abc import Sequence
from dataclasses import replace

from omniq_verl.evaluation.papers import load_table
from omniq_verl.pipeline.commands import module, omniq
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
from omniq_verl.pipeline.paper.shared_stages import (
    ANSWER_TOKENS,
    GPUS,
    HOUR,
    Real,
    grpo,
    launcher,
    measure,
    prepare,
    test_rows,
)
from omniq_verl.pipeline.readers import of_paper
from omniq_verl.pipeline.stage import Stage, Work

TRAINED_ON = ("koniq",)
_SCORE = ("--task", "q_insight_score")
MEASURED = ("koniq", "spaq", "kadid", "pipal", "live_wild", "agiqa3k", "csiq")
OPTIONS = {"koniq": ("--deqa", *_SCORE), **dict.fromkeys(MEASURED[1:], _SCORE)}
ROWS, EPOCHS, BATCH, TEXTS = 7_046, 10, 128, 5
QWEN_3B = "Qwen/Qwen2.5-VL-3B-Instruct"
CLIP = "openai/clip-vit-large-patch14-336"
CASES = {
    # name: encoder, options of `omniq rali fit`
    "case1": (None, ()),
    "case2": ("all_texts", ("--dimensions", 0)),
    "case3": ("all_texts", ("--buckets", 1)),
    "case4": ("one_text", ()),
    "case5": ("all_texts", ("--epochs", 0)),
    "case6": ("all_texts", ()),
}
SIZES = [(256, 100, 90), (256, 250, 240), (512, 100, 90), (512, 250, 240), (700, 250, 240)]
"""Table A.5: PCA dimensions, vectors and buckets, each without and with the fit."""


def experiment(run: Real) -> Experiment:
    """All stages of all seeds."""
    stages = [*prepare(run), *(stage for seed in run.seeds for stage in seed_stages(run, seed))]
    return Experiment("rali", "paper", run.seeds, stages, TABLES)


def seed_stages(run: Real, seed: int) -> list[Stage]:
    """Two reasoning models, texts, two alignments, and fit and evaluation of every case."""
    train = run.file("koniq", "train")
    found = []
    for name, own in (("q_insight", run), ("q_insight_3b", replace(run, model=QWEN_3B))):
        val = [run.file("koniq", "val")]
        found += grpo(own, seed, name, "q_insight/score_only", own.model, [train], val, ROWS, EPOCHS, BATCH)
        found += measure(own, seed, name, run.trained(seed, name), run.tests(*MEASURED))
    found += [pairs(run, seed), _align(run, seed, "all_texts"), _align(run, seed, "one_text", "--texts", 1)]
    for name, (encoder, options) in {**CASES, **sizes()}.items():
        found += _case(run, seed, name, encoder, options)
    return found


def sizes() -> dict[str, tuple[str, tuple[object, ...]]]:
    """Cases of table A.5, by their numbers."""
    made = {}
    for index, (dimensions, vectors, buckets) in enumerate(SIZES):
        options = ("--dimensions", dimensions, "--vectors", vectors, "--buckets", buckets)
        made[f"size{2 * index + 1}"] = ("all_texts", (*options, "--epochs", 0))
        made[f"size{2 * index + 2}"] = ("all_texts", options)
    return made


def pairs(run: Real, seed: int) -> Stage:
    """Five reasonings of every training image by the reasoning model."""
    data, out = run.file("koniq", "train"), run.below(seed, "pairs")
    words = ["--model", run.trained(seed, "q_insight"), "--data", data, "--out", out, "--seeds", TEXTS]
    command = omniq("rali", "pairs", *words, "--workers", GPUS, "--seed", seed)
    work = Work(images=ROWS, answers=ROWS * TEXTS, tokens=ANSWER_TOKENS, model=run.model)
    title = f"{TEXTS} reasonings of each image"
    return Stage(f"seed{seed}/pairs", title, command, gpus=GPUS, silence=4 * HOUR, work=work)


def _align(run: Real, seed: int, name: str, *more: object) -> Stage:
    words = ["rali", "align", "--pairs", run.below(seed, "pairs") / "pairs.parquet", "--out", run.below(seed, name)]
    words += ["--seed", seed, *more]
    command = module(*launcher("omniq_verl.cli"), [str(word) for word in words])
    work = Work(images=ROWS * EPOCHS)
    return Stage(f"seed{seed}/{name}", f"alignment of CLIP: {name}", command, gpus=GPUS, silence=HOUR, work=work)


def _case(run: Real, seed: int, name: str, encoder: str | None, options: Sequence[object]) -> list[Stage]:
    model = run.below(seed, encoder) / "model" if encoder else CLIP
    data, fitted = run.file("koniq", "train"), run.below(seed, name)
    words = ["rali", "fit", "--data", data, "--out", fitted, "--model", model, "--seed", seed, *options]
    words += [] if encoder else ["--allow-pickle"]
    fit = Stage(f"seed{seed}/{name}", f"fit: {name}", omniq(*words), gpus=1, silence=HOUR, work=Work(images=ROWS))
    files = run.tests(*MEASURED)
    if not files:
        return [fit]
    asked = omniq("rali", "eval", "--model", fitted, "--data", *files, "--out", run.below(seed, f"{name}_test"))
    work = Work(images=sum(test_rows(file.parent.name) for file in files))
    title = f"evaluation of {name}"
    return [fit, Stage(f"seed{seed}/{name}_test", title, asked, gpus=1, silence=HOUR, work=work)]


def _table(number: str, *rows: tuple[str, str | None, str]) -> OurTable:
    name = f"rali:{number}"
    ours = tuple(OurRow(folder, f"{folder}_test", (group, method)) for folder, group, method in rows)
    return OurTable(name, ours, of_paper(load_table(name), load_table("rali:2")), same_columns=True)


def _in_order(number: str, prefix: str) -> OurTable:
    rows = load_table(f"rali:{number}").rows
    return _table(number, *((f"{prefix}{index}", row.group, row.method) for index, row in enumerate(rows, 1)))


TABLES = (
    _table(
        "2",
        ("q_insight", "MLLM-based", "Q-Insight"),
        ("case6", "deep learning, no MLLM", "RALI (ours)"),
    ),
    _in_order("4", "case"),
    _in_order("A.5", "size"),
    _table("A.6", ("q_insight_3b", None, "Q-Insight (3B)"), ("case6", None, "RALI (ours)")),
)
