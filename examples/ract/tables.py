"""RACT's tables A.2 and 5 with a tiny model: alignment by reasoning, against one domain and naive mixing.

    VERL_PLATFORM=cpu python examples/ract/tables.py --out runs/ract --seeds 0 1 2

Two domains are built from the quickstart's photographs (photos.py), and a third one only for measuring (outside.py).
"Naive mixing" is one RL run on both domains, whose labels disagree, with as many prompts of each as the single-domain
runs. The same command resumes a killed run. The figures are those of a tiny model on small crops: they show that the
chain runs and how it affects that model, not whether a 7B model gains from it.
"""

import json
import sys
from pathlib import Path

from omniq_verl.quickstart.stages import Settings, Stage, data_stage, eval_stage, grpo_stage, model_stage, sft_stage
from omniq_verl.quickstart.tables import Figures, run_seeds, seeds_of, seeds_parser, value_of

REPO = Path(__file__).resolve().parents[2]
RUNS = {"alpha": ("alpha",), "beta": ("beta",), "mixed": ("alpha", "beta")}
MEASURED = {"alpha": "domains", "beta": "domains", "gamma": "outside"}
"""Sets of held-out crops and their folders; no run trains on gamma's distortions."""
SFT_STEPS = 60
"""Steps of the cross-domain SFT."""
ROWS = {
    "cold start": "sft",
    "RL on alpha": "alpha",
    "RL on beta": "beta",
    "RL on both, naively mixed": "mixed",
    "RACT, vision encoder": "ract_vision",
    "RACT, vision encoder and LLM": "ract",
    "RACT, both, with alpha's scores": "ract_scores",
}
ALIGNED = {"ract_vision": ("vision_sft", "texts"), "ract": ("sft", "texts"), "ract_scores": ("sft", "texts_and_scores")}
"""Recipe and training file of each run of the third phase."""


def build(settings: Settings) -> list[Stage]:
    """All stages of one seed."""
    domains, model = settings.root / "domains", settings.root / "model"
    title, lessons = "cold start on both domains", domains / "sft.parquet"
    stages = [
        data_stage(settings),
        made_stage(settings, "domains", "two domains", "photos.py"),
        made_stage(settings, "outside", "a third domain, for measuring only", "outside.py"),
        model_stage(settings, texts="../domains/sft.parquet", vocab=700),
        sft_stage(settings, "sft", title, "q_insight/cpu_tiny_sft", model, lessons, settings.sft_steps),
        measured(settings, "sft", settings.sft_model),
    ]
    for name, among in RUNS.items():
        files = {
            f"data.{kind}_files": f"[{','.join(str(domains / f'{prefix}_{domain}.parquet') for domain in among)}]"
            for kind, prefix in (("train", "rl"), ("val", "val"))
        }
        recipe, steps = "q_insight/cpu_tiny_score_only", len(among) * settings.grpo_steps
        stages.append(grpo_stage(settings, name, f"RL: {name}", recipe, settings.sft_model, steps, **files))
        stages.append(measured(settings, name, settings.trained(name, len(among))))
    stages += [align_stage(settings, "texts", ""), align_stage(settings, "texts_and_scores", "alpha")]
    for name, (recipe, texts) in ALIGNED.items():
        learned, start = settings.root / texts / "sft.parquet", settings.trained("alpha")
        title = f"cross-domain SFT: {name}"
        stages.append(sft_stage(settings, name, title, f"ract/cpu_tiny_{recipe}", start, learned, SFT_STEPS))
        model = settings.root / name / f"global_step_{SFT_STEPS}" / "huggingface"
        stages.append(measured(settings, name, model))
    return stages


def made_stage(settings: Settings, name: str, title: str, script: str) -> Stage:
    words = ["--data", settings.root / "data", "--out", settings.root / name, "--seed", settings.seed]
    return Stage(name, title, [sys.executable, str(Path(__file__).with_name(script)), *map(str, words)])


def measured(settings: Settings, name: str, model: Path) -> Stage:
    files = [settings.root / folder / f"test_{domain}.parquet" for domain, folder in MEASURED.items()]
    return eval_stage(settings, f"{name}_test", f"held-out answers after {name}", model, files)


def align_stage(settings: Settings, name: str, scores: str) -> Stage:
    """Run `omniq ract align` on both domains, each with its own model."""
    words = {
        "out": settings.root / name,
        "scores": f"[{scores}]",
        "engine.max_model_len": 320,
        "engine.dtype": "float32",
        "engine.memory": 0.3,
        "sampling.max_tokens": 40,
        "run_options.on": "here",
        "run_options.batch": 256,
        "seed": settings.seed,
    }
    for domain in ("alpha", "beta"):
        words[f"domains.{domain}.model"] = settings.trained(domain)
        words[f"domains.{domain}.data"] = f"[{settings.root / 'domains' / f'rl_{domain}.parquet'}]"
    command = [
        sys.executable,
        "-m",
        "omniq_verl.cli",
        "ract",
        "align",
        *(f"{key}={value}" for key, value in words.items()),
    ]
    return Stage(name, "reasoning texts of both domains", command)


def collect(roots: list[Path]) -> Figures:
    """PLCC and SRCC on each set of held-out crops, and the share of answers that could be parsed."""
    found: Figures = {}
    for title, folder in ROWS.items():
        sets = [json.loads((root / f"{folder}_test" / "metrics.json").read_text())["sets"] for root in roots]
        found[title] = {
            f"{domain} {key.upper()}": [value_of(one[domain][key]) for one in sets]
            for domain in MEASURED
            for key in ("plcc", "srcc")
        }
        found[title]["parsable"] = [
            sum(one[name]["status"].get("ok", 0) for name in one) / sum(one[name]["answers"] for name in one)
            for one in sets
        ]
    return found


def main() -> None:
    args = seeds_parser(__doc__, "runs/ract", steps=12).parse_args()
    run_seeds(seeds_of(args, REPO, {"train": 20_000, "sft": 2000, "test": 1500}), build, collect)


if __name__ == "__main__":
    main()
