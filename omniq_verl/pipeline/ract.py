"""RACT's tables A.2 and 5 with a tiny model: aligned by reasoning, against one domain and naive mixing.

Two domains are made of the quickstart's photographs (``made/ract_domains.py``), and a third that is only measured
(``made/ract_outside.py``). "Naive mixing" is one RL run on both, whose labels disagree, with as many prompts of each as
the runs on one.
"""

from collections.abc import Sequence
from pathlib import Path

from omniq_verl.pipeline.commands import below, flags, listed, module, omniq, settings
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable, once_per_seed, seed_folder
from omniq_verl.pipeline.readers import evaluated
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.tiny_stages import Settings, data_stage, eval_stage, grpo_stage, model_stage, sft_stage

STEPS = 12
"""GRPO steps for each domain of a run."""
SFT_STEPS = 60
"""Steps of the cross-domain SFT."""
CROPS = {"train": 20_000, "sft": 2000, "test": 1500}
RUNS = {"alpha": ("alpha",), "beta": ("beta",), "mixed": ("alpha", "beta")}
MEASURED = {"alpha": "domains", "beta": "domains", "gamma": "outside"}
"""Sets of held-out crops, and the folder of each; no run trains on gamma's distortions."""
ALIGNED = {
    "ract_vision": ("ract/vision_sft", {"ract": "cpu_tiny_sft"}, "texts"),
    "ract": ("ract/cpu_tiny_sft", {}, "texts"),
    "ract_scores": ("ract/cpu_tiny_sft", {}, "texts_and_scores"),
}
"""Runs of the third phase: the recipe of each, the one it is a difference to, and the folder of what it learns from."""


def tiny(repo: Path, root: Path, seeds: tuple[int, ...]) -> Experiment:
    """All that runs at the size of a tiny model; the arguments are those of ``omniquality_r.tiny``."""

    def of_seed(seed: int) -> list[Stage]:
        own = Settings(repo, root / seed_folder(seed), seed, grpo_steps=STEPS, crops=CROPS)
        return below(seed_folder(seed), stages(own))

    return Experiment("ract", "tiny", seeds, once_per_seed(seeds, of_seed), TABLES, NOT_RUN)


def stages(own: Settings) -> list[Stage]:
    """Everything one seed takes."""
    domains, model = own.root / "domains", own.root / "model"
    title, sft_file = "cold start on both domains", domains / "sft.parquet"
    found = [
        data_stage(own),
        _made(own, "domains", "two domains"),
        _made(own, "outside", "a third one, to measure on"),
        model_stage(own, after=("domains",), texts="../domains/sft.parquet", vocab=700),
        sft_stage(own, "sft", title, "q_insight/cpu_tiny_sft", model, sft_file, own.sft_steps),
        _measured(own, "sft", own.sft_model),
    ]
    for name, among in RUNS.items():
        found += _trained(own, name, among)
    found += [align_stage(own, "texts", ""), align_stage(own, "texts_and_scores", "alpha")]
    for name, (recipe, base, texts) in ALIGNED.items():
        learned, start = own.root / texts / "sft.parquet", own.trained("alpha")
        title = f"cross-domain SFT: {name}"
        found.append(sft_stage(own, name, title, recipe, start, learned, SFT_STEPS, **base))
        found.append(_measured(own, name, own.root / name / f"global_step_{SFT_STEPS}" / "huggingface"))
    return found


def _made(own: Settings, name: str, title: str) -> Stage:
    words = flags(data=own.root / "data", out=own.root / name, seed=own.seed)
    return Stage(name, title, module(f"omniq_verl.pipeline.made.ract_{name}", words))


def _trained(own: Settings, name: str, among: Sequence[str]) -> list[Stage]:
    files = {
        f"data.{kind}_files": listed([own.root / "domains" / f"{prefix}_{domain}.parquet" for domain in among])
        for kind, prefix in (("train", "rl"), ("val", "val"))
    }
    recipe, steps = "q_insight/cpu_tiny_joint", len(among) * own.grpo_steps
    stage = grpo_stage(own, name, f"RL: {name}", recipe, own.sft_model, steps, **files)
    return [stage, _measured(own, name, own.trained(name, len(among)))]


def _measured(own: Settings, name: str, model: Path) -> Stage:
    files = [own.root / folder / f"test_{domain}.parquet" for domain, folder in MEASURED.items()]
    return eval_stage(own, f"{name}_test", f"held-out answers after {name}", model, files)


def align_stage(own: Settings, name: str, scores: str) -> Stage:
    """`omniq ract align` of both domains, each by its own model."""
    words = {
        "out": own.root / name,
        "scores": f"[{scores}]",
        "engine.max_model_len": 320,
        "engine.dtype": "float32",
        "engine.memory": 0.3,
        "sampling.max_tokens": 40,
        "run_options.on": "here",
        "run_options.batch": 256,
        "seed": own.seed,
    }
    for domain in ("alpha", "beta"):
        words[f"domains.{domain}.model"] = own.trained(domain)
        words[f"domains.{domain}.data"] = listed([own.root / "domains" / f"rl_{domain}.parquet"])
    return Stage(name, "reasoning texts of both domains", omniq("ract", "align", *settings(words)))


COLUMNS = {f"{domain} {key.upper()}": (domain, key) for domain in MEASURED for key in ("plcc", "srcc")}
_VISION = OurRow("RACT, vision encoder", "ract_vision_test", (None, "2: labels text; trains visual encoder"))
_BOTH = OurRow(
    "RACT, vision encoder and LLM", "ract_test", (None, "3: labels text; trains visual encoder and language model")
)
_START = OurRow("cold start", "sft_test")
NOTE = "Tiny model, held-out crops of two domains and of one outside both; means of four answers at temperature 1."
TABLES = (
    OurTable(
        "rali:A.2",
        (
            _START,
            OurRow("RL on alpha", "alpha_test"),
            OurRow("RL on beta", "beta_test"),
            OurRow("RL on both, naively mixed", "mixed_test"),
            OurRow(_VISION.title, _VISION.folder),
            OurRow(_BOTH.title, _BOTH.folder),
        ),
        evaluated(COLUMNS),
        note=NOTE,
    ),
    OurTable("rali:5", (_START, _VISION, _BOTH), evaluated(COLUMNS), note=NOTE),
    OurTable(
        "rali:A.3",
        (_START, OurRow("RACT, both, with alpha's scores", "ract_scores_test")),
        evaluated(COLUMNS),
        note=NOTE,
    ),
)
NOT_RUN = {"rali:3": "the tiny size has two training domains, the table four sets; --scale paper measures this table"}
