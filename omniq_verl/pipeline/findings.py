"""All of ``omniq findings`` on tiny models, and RALI's table A.1: trained with reasoning, and without.

Both models start from the same random weights. They learn from the same crops with the same numbers, in as many steps
of the quickstart's recipes; one also learns to write the reasoning first.
"""

from collections.abc import Sequence
from pathlib import Path

from omniq_verl.pipeline.commands import below, flags, module, omniq
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable, once_per_seed, seed_folder
from omniq_verl.pipeline.finding_readers import FIGURES, answered, read_figure
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.tiny_stages import Settings, data_stage, grpo_stage, model_stage, sft_stage

SFT_STEPS, GRPO_STEPS = 250, 6
CROPS = {"train": 600, "sft": 6000, "val": 100, "test": 300}
LIMIT = 100
"""Held-out crops of each finding."""
ANSWERS = ("--engine", "hf", "--dtype", "float32", "--max-tokens", 32)
"""How models answer: greedily, by transformers, which starts faster than vLLM and needs less memory."""
ASKED = {
    "attention": [],
    "text_only": [],
    "domain_gap": ["--by", "photo"],
    "self_consistency": ["--samples", 4],
    "gate": [],
    "no_reasoning": [],
}
"""Findings about both models, by the folder of each, with what only they are told."""


def tiny(repo: Path, root: Path, seeds: tuple[int, ...]) -> Experiment:
    """All that runs at the size of a tiny model; the arguments are those of ``omniquality_r.tiny``."""

    def of_seed(seed: int) -> list[Stage]:
        own = Settings(repo, root / seed_folder(seed), seed, SFT_STEPS, GRPO_STEPS, grpo_save_every=3, crops=CROPS)
        return below(seed_folder(seed), stages(own))

    return Experiment("findings", "tiny", seeds, once_per_seed(seeds, of_seed), TABLES, {})


def stages(own: Settings) -> list[Stage]:
    """Everything one seed takes."""
    direct = own.root / "direct"
    made = module("omniq_verl.pipeline.made.without_reasoning", flags(data=own.root / "data", out=direct))
    found = [data_stage(own), Stage("direct", "the same crops without reasoning", made), model_stage(own)]
    found += _trained(own, "", own.root / "data", "with reasoning")
    found += _trained(own, "direct_", direct, "without reasoning")
    models = [own.sft_model, own.grpo_model]
    found += [_finding(own, name, models, own.root / "data", *more) for name, more in ASKED.items()]
    found.append(_finding(own, "swap", models[1:], own.root / "data", "--vision", own.sft_model))
    found.append(_finding(own, "no_reasoning_direct", _direct_models(own), direct))
    words = ["findings", "reward-hacking", "--run", own.root / "grpo", "--out", own.root / "reward_hacking"]
    return [*found, Stage("reward_hacking", "findings: reward-hacking", omniq(*words))]


def _direct_models(own: Settings) -> list[Path]:
    """After SFT, and after GRPO."""
    return [own.root / "direct_sft" / f"global_step_{own.sft_steps}" / "huggingface", own.trained("direct_grpo")]


def _trained(own: Settings, prefix: str, data: Path, title: str) -> list[Stage]:
    """SFT, GRPO, and the held-out answers after each."""
    sft, grpo = _direct_models(own) if prefix else [own.sft_model, own.grpo_model]
    files = {f"data.{kind}_files": data / f"{kind}.parquet" for kind in ("train", "val")}
    model, sft_file = own.root / "model", data / "sft.parquet"
    return [
        sft_stage(own, f"{prefix}sft", f"SFT {title}", "quickstart/sft", model, sft_file, own.sft_steps),
        grpo_stage(own, f"{prefix}grpo", f"GRPO {title}", "quickstart/grpo", sft, own.grpo_steps, **files),
        _measured(own, f"{prefix}sft", sft, data),
        _measured(own, f"{prefix}grpo", grpo, data),
    ]


def _measured(own: Settings, name: str, model: Path, data: Path) -> Stage:
    words = ["eval", "--model", model, "--data", data / "test.parquet", "--out", own.root / f"{name}_test"]
    return Stage(f"{name}_test", f"held-out answers after {name}", omniq(*words, *ANSWERS))


def _finding(own: Settings, folder: str, models: Sequence[Path], data: Path, *more: object) -> Stage:
    name = folder.removesuffix("_direct").replace("_", "-")
    words = ["findings", name, *(word for model in models for word in ("--model", model))]
    words += ["--data", data / "test.parquet", "--out", own.root / folder, "--limit", LIMIT, "--seed", own.seed]
    return Stage(folder, f"findings: {name}", omniq(*words, *ANSWERS, *more))


TABLES = (
    OurTable(
        "rali:A.1",
        (
            OurRow("SFT with reasoning", "sft_test"),
            OurRow("SFT without reasoning", "direct_sft_test"),
            OurRow("GRPO with reasoning", "grpo_test", (None, "Qwen-GRPO (w/ Reasoning, Q-Insight)")),
            OurRow("GRPO without reasoning", "direct_grpo_test", (None, "Qwen-GRPO (w/o Reasoning)")),
        ),
        answered,
        note=f"Tiny model, {CROPS['test']} held-out crops; {SFT_STEPS} steps of SFT and {GRPO_STEPS} of GRPO on equal"
        " crops. The numbers to learn in SFT are the same coarse ones, so the paper's first row, which learns the exact"
        " labels, has no counterpart. The reasoning also names the distortion and the level, which the numbers do not.",
    ),
    OurTable(
        None,
        tuple(OurRow(title, place) for place, (title, _) in FIGURES.items()),
        read_figure,
        title="findings",
        note=f"Tiny model, the first {LIMIT} of the held-out crops. A finding's own page has intervals.",
    ),
)
