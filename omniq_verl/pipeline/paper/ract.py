"""RACT at real size: a model of each data set, their descriptions, and one model that learns all of them.

Tables 3, 5, A.2 and A.3. Q-Insight's rows on several data sets ("naive mixing") are the same recipe on their mixture.
"""

from collections.abc import Sequence
from dataclasses import replace

from omniq_verl.evaluation.papers import load_table
from omniq_verl.pipeline.commands import listed, omniq, settings
from omniq_verl.pipeline.data_sets import BY_NAME
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable
from omniq_verl.pipeline.paper.shared_stages import ANSWER_TOKENS, GPUS, HOUR, Real, grpo, measure, mix, prepare, sft
from omniq_verl.pipeline.readers import of_paper
from omniq_verl.pipeline.stage import Stage, Work

_SCORE = ("--task", "q_insight_score")
_BY_REFERENCE = ("--split", "by-reference", *_SCORE)
OPTIONS = {
    "koniq": ("--deqa", *_SCORE),
    "spaq": ("--split", "random", *_SCORE),
    "kadid": _BY_REFERENCE,
    "pipal": _BY_REFERENCE,
    "live_wild": _SCORE,
    "agiqa3k": _SCORE,
    "csiq": _SCORE,
    "tid2013": _SCORE,
}
TRAINED_ON = ("koniq", "spaq", "kadid", "pipal")
MEASURED = tuple(OPTIONS)
EPOCHS, BATCH = 10, 128
TRAIN_ROWS = {"koniq": 7_046, "spaq": 8_900, "kadid": 8_125, "pipal": 18_560}
"""Training rows of each set: DeQA's list, and 80% of the images or of the references of the others."""
PAIRS = {
    # name of the texts: domains, domains whose scores are learned
    "texts": (TRAINED_ON, ()),
    "texts_koniq": (TRAINED_ON, ("koniq",)),
    "texts_spaq": (TRAINED_ON, ("spaq",)),
    "texts_two": (("koniq", "spaq"), ("koniq",)),
    "texts_one": (("koniq",), ("koniq",)),
    "texts_koniq_kadid": (("koniq", "kadid"), ()),
    "texts_koniq_kadid_scores": (("koniq", "kadid"), ("koniq", "kadid")),
}
RUNS = {
    # name: recipe, texts
    "ract": ("ract/sft", "texts_koniq"),
    "ract_spaq": ("ract/sft", "texts_spaq"),
    "ract_two": ("ract/sft", "texts_two"),
    "ract_one": ("ract/sft", "texts_one"),
    "table5_scores": ("ract/sft", "texts_koniq_kadid_scores"),
    "table5_vision": ("ract/vision_sft", "texts_koniq_kadid"),
    "table5_both": ("ract/sft", "texts_koniq_kadid"),
}
MIXED = {"mixed_two": ("koniq", "spaq"), "mixed": TRAINED_ON}
"""Q-Insight on mixtures, tables 3 and A.2."""


def experiment(run: Real) -> Experiment:
    """All stages of all seeds."""
    stages = [*prepare(run), *(stage for seed in run.seeds for stage in seed_stages(run, seed))]
    return Experiment("ract", "paper", run.seeds, stages, TABLES)


def seed_stages(run: Real, seed: int) -> list[Stage]:
    """Single-domain models, naive mixtures, descriptions, cross-domain SFT, and evaluations."""
    found = []
    for name in TRAINED_ON:
        found += _reinforced(run, seed, name, (name,))
    for name, among in MIXED.items():
        found += _reinforced(run, seed, name, among)
    found += [align(run, seed, name, among, scores) for name, (among, scores) in PAIRS.items()]
    for name, (recipe, texts) in RUNS.items():
        rows = sum(TRAIN_ROWS[one] for one in PAIRS[texts][0]) + sum(TRAIN_ROWS[one] for one in PAIRS[texts][1])
        learned, start = run.below(seed, texts) / "sft.parquet", run.trained(seed, "koniq")
        found += sft(run, seed, name, recipe, start, learned, rows, EPOCHS, BATCH)
        found += measure(run, seed, name, run.trained(seed, name), run.tests(*MEASURED))
    return found


def _reinforced(run: Real, seed: int, name: str, among: Sequence[str]) -> list[Stage]:
    rows = {one: TRAIN_ROWS[one] for one in among}
    # All training rows of a set, whatever it rejected.
    mixed = mix(run, seed, f"{name}_rows", rows)
    mixed = replace(mixed, command=[*mixed.command, "--all-if-fewer"])
    train, val = [run.below(seed, f"{name}_rows") / "train.parquet"], [run.file("koniq", "val")]
    recipe, count = "ract/single_domain", sum(rows.values())
    trained = grpo(run, seed, name, recipe, run.model, train, val, count, EPOCHS, BATCH)
    return [mixed, *trained, *measure(run, seed, name, run.trained(seed, name), run.tests(*MEASURED))]


def align(run: Real, seed: int, name: str, among: Sequence[str], scores: Sequence[str]) -> Stage:
    """`omniq ract align` of several domains, each by its own model."""
    words = {
        "out": run.below(seed, name),
        "scores": f"[{','.join(scores)}]",
        "run_options.workers": GPUS,
        "seed": seed,
    }
    for domain in among:
        words[f"domains.{domain}.model"] = run.trained(seed, domain)
        words[f"domains.{domain}.data"] = listed([run.below(seed, f"{domain}_rows") / "train.parquet"])
    rows = sum(TRAIN_ROWS[one] for one in among)
    work = Work(images=rows, answers=rows, tokens=ANSWER_TOKENS, model=run.model)
    title = f"descriptions of {', '.join(BY_NAME[one].title for one in among)}"
    command = omniq("ract", "align", *settings(words))
    return Stage(f"seed{seed}/{name}", title, command, gpus=GPUS, silence=4 * HOUR, work=work)


def _table(number: str, *rows: tuple[str, str | None, str]) -> OurTable:
    name = f"rali:{number}"
    ours = tuple(OurRow(folder, f"{folder}_test", (group, method)) for folder, group, method in rows)
    return OurTable(name, ours, of_paper(load_table(name)), same_columns=True)


_ONE, _TWO, _FOUR = (f"trained on {sets}" for sets in ("KonIQ", "KonIQ, SPAQ", "KonIQ, SPAQ, KADID, PIPAL"))
TABLES = (
    _table("3", ("mixed", None, "Q-Insight"), ("ract", None, "RACT (ours)")),
    _table(
        "5",
        ("table5_scores", None, "1: labels text and score; trains visual encoder and language model"),
        ("table5_vision", None, "2: labels text; trains visual encoder"),
        ("table5_both", None, "3: labels text; trains visual encoder and language model"),
    ),
    _table(
        "A.2",
        ("koniq", _ONE, "Q-Insight"),
        ("ract_one", _ONE, "RACT (ours)"),
        ("mixed_two", _TWO, "Q-Insight"),
        ("ract_two", _TWO, "RACT (ours)"),
        ("mixed", _FOUR, "Q-Insight"),
        ("ract", _FOUR, "RACT (ours)"),
    ),
    _table("A.3", ("ract", None, "scores from KonIQ"), ("ract_spaq", None, "scores from SPAQ")),
)
