"""The jointly trained baselines of OmniQuality-R's tables 1 to 3 with a tiny model: Qwen-SFT, Q-Align, DeQA, Q-Insight.

The three that are trained by SFT start from random weights, as the cold start of the other rows does, and learn from
the rows that GRPO trains on. Q-Insight starts from that cold start.
"""

import json
import math
import sys
from pathlib import Path

from omniq_verl.pipeline.commands import flags, omniq
from omniq_verl.pipeline.experiment import OurRow, OurTable
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.summary import value_of
from omniq_verl.pipeline.tiny_stages import Settings, grpo_stage, measure_stage, sft_stage

KINDS = {"qwen_sft": "score", "q_align": "level", "deqa": "soft"}
"""What each baseline by SFT learns, as `omniq data answers` calls it."""
SFT_STEPS = 200
"""Steps of SFT. The answers are shorter than the reasoning of the cold start, which takes 350."""
COLUMNS = ("SRCC", "PLCC", "MAE", "with a score")


def baselines(own: Settings, cold: Settings) -> list[Stage]:
    """Training and evaluation of all four.

    Args:
        own: settings of these stages; its ``sft_steps`` are those of each baseline by SFT.
        cold: of the group with the data, the model with random weights and the cold start.
    """
    data = {f"data.{kind}_files": cold.root / "data" / f"{kind}.parquet" for kind in ("train", "val")}
    recipe, name = "baselines/cpu_tiny_q_insight", "q_insight"
    found = [
        grpo_stage(own, name, "baseline: Q-Insight", recipe, cold.sft_model, own.grpo_steps, **data),
        measure_stage(own, f"{name}_test", "held-out after Q-Insight", own.trained(name), cold.root),
    ]
    for name in KINDS:
        found += supervised(own, cold, name)
    return found


def supervised(own: Settings, cold: Settings, name: str) -> list[Stage]:
    """Rows, training and evaluation of a baseline of ``KINDS``."""
    rows, test = own.root / f"{name}_rows" / "sft.parquet", cold.root / "data" / "test.parquet"
    script = [sys.executable, str(own.repo / "data_prep" / "answers.py")]
    words = flags(data=cold.root / "data" / "train.parquet", kind=KINDS[name], out=rows)
    model = own.root / name / f"global_step_{own.sft_steps}" / "huggingface"
    recipe = f"baselines/cpu_tiny_{name}"
    found = [
        Stage(f"{name}_rows", f"answers without reasoning: {KINDS[name]}", [*script, *words]),
        sft_stage(own, name, f"baseline: {name}", recipe, cold.root / "model", rows, own.sft_steps),
    ]
    if KINDS[name] == "score":
        return [*found, measure_stage(own, f"{name}_test", f"held-out after {name}", model, cold.root)]
    asked = ["eval", "--model", model, "--data", test, "--out", own.root / f"{name}_test", "--engine", "hf"]
    asked += ["--family", "levels", "--mode", "direct", "--dtype", "float32"]
    return [*found, Stage(f"{name}_test", f"expected levels after {name}", omniq(*asked))]


def one_score(folder: Path) -> dict[str, float]:
    """Figures of one score for each image: a greedy answer's, or the expected level.

    The first is read from ``omniq_verl.quickstart.measure``, the second from `omniq eval`.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    if "sets" in metrics:
        (of,) = metrics["sets"].values()
        found = (value_of(of["srcc"]), value_of(of["plcc"]), of["mae"], of["scored"] / of["images"])
    else:
        found = tuple(metrics["greedy"][key] for key in ("srcc", "plcc", "mae", "parsed"))
    return {title: math.nan if value is None else value for title, value in zip(COLUMNS, found, strict=True)}


_GROUP = "MLLM-based, jointly fine-tuned"
TABLE = OurTable(
    "omniquality_r:1",
    (
        OurRow("Q-Align", "baselines/q_align_test", (_GROUP, "Q-Align")),
        OurRow("DeQA", "baselines/deqa_test", (_GROUP, "DeQA")),
        OurRow("Qwen-SFT", "baselines/qwen_sft_test", (_GROUP, "Qwen-SFT")),
        OurRow("Q-Insight", "baselines/q_insight_test", (_GROUP, "Q-Insight")),
        OurRow("SFT", "table4/sft_test"),
        OurRow("stage 2", "table4/stage2_2_test", (_GROUP, "OmniQuality-R (ours)")),
    ),
    one_score,
    note="Tiny model, 600 held-out crops of photographs: one technical data set, none of the paper's. One score for"
    " each image: the expected level of Q-Align and DeQA, a greedy answer of the others.",
)
