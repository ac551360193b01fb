"""RALI's table 4 with a tiny CLIP: what each component does, in six cases.

A CLIP of half a million random weights is pretrained for some minutes on crops of photographs, in place of OpenAI's
CLIP. A stand-in for a reasoning model (``made/critic.py``) writes five reasonings for each image. PCA takes 43 of 64
dimensions: two thirds, as 512 of 768 in the paper.
"""

import json
import sys
from pathlib import Path

from omniq_verl.pipeline.commands import below, flags, module, omniq
from omniq_verl.pipeline.experiment import Experiment, OurRow, OurTable, once_per_seed, seed_folder
from omniq_verl.pipeline.stage import Stage

CROP, PRETRAIN, TRAIN, TEST = 80, 4000, 2000, 600
"""Side of a crop in pixels; crops to pretrain on, to align and fit on, and to measure on."""
PRETRAIN_EPOCHS, ALIGN_EPOCHS, ALIGN_RATE = 10, 10, 3e-4
"""The paper's learning rate of a real CLIP is 1e-5."""
CRITIC = "omniq_verl.pipeline.made.critic:Critic"


def tiny(repo: Path, root: Path, seeds: tuple[int, ...]) -> Experiment:
    """All that runs at the size of a tiny CLIP; the arguments are those of ``omniquality_r.tiny``."""
    stages = [data_stage(repo, root), *once_per_seed(seeds, lambda seed: seed_stages(root, seed))]
    return Experiment("rali", "tiny", seeds, stages, TABLES, NOT_RUN)


def data_stage(repo: Path, root: Path) -> Stage:
    """Crops, the same for all seeds; ``sft.parquet`` is what the CLIP is pretrained on."""
    sizes = flags(crop=CROP, train=TRAIN, sft=PRETRAIN, val=20, test=TEST)
    script = str(repo / "data_prep" / "photo_distortions.py")
    return Stage("data", "photographs -> parquet", [sys.executable, script, *flags(out=root / "data", seed=0), *sizes])


def seed_stages(root: Path, seed: int) -> list[Stage]:
    """Pretraining, reasonings, alignment with all of them and with one each, and the six cases."""
    data, here = root / "data", root / seed_folder(seed)
    made = "omniq_verl.pipeline.made.tiny_clip"
    pretrained = flags(data=data / "sft.parquet", out=here / "clip", crop=CROP, epochs=PRETRAIN_EPOCHS, seed=seed)
    asked = ["--engine", CRITIC, "--seeds", 5, "--max-tokens", 64, "--on", "here", "--seed", seed]
    texts = omniq("rali", "pairs", "--model", data / "train.parquet", "--data", data / "train.parquet")
    cases = flags(clip=here / "clip", all=here / "all_texts" / "model", one=here / "one_text" / "model")
    ends = flags(train=data / "train.parquet", test=data / "test.parquet", out=here / "cases", seed=seed)
    found = [
        Stage("clip", "pretraining of a tiny CLIP", module(made, "pretrain", pretrained)),
        Stage("pairs", "five reasonings of each crop", [*texts, "--out", str(here / "pairs"), *map(str, asked)]),
        _align(here, "all_texts", seed),
        _align(here, "one_text", seed, "--texts", 1),
        Stage("cases", "the six cases", module(made, "cases", cases, ends)),
    ]
    return below(seed_folder(seed), found)


def _align(here: Path, name: str, seed: int, *more: object) -> Stage:
    files = ["--pairs", here / "pairs" / "pairs.parquet", "--out", here / name, "--model", here / "clip"]
    run_options = ["--epochs", ALIGN_EPOCHS, "--batch", 64, "--learning-rate", ALIGN_RATE, "--precision", "fp32"]
    command = omniq("rali", "align", *files, *run_options, "--seed", seed, *more)
    return Stage(name, f"alignment: {name.replace('_', ' ')}", command)


def read_case(folder: Path) -> dict[str, float]:
    """Figures of a case: ``cases.json`` above the folder, which is named by the case's number."""
    found = json.loads((folder.parent / "cases.json").read_text())[folder.name]
    return {"PLCC": found["plcc"], "SRCC": found["srcc"], "lowest basis": found["low"], "highest basis": found["high"]}


CASES = {
    "1": ("no alignment", "case 1: without contrastive alignment, seed augmentation"),
    "2": ("no PCA", "case 2: without pca reduction"),
    "3": ("plain k-means", "case 3: without bucketed k-means"),
    "4": ("one seed", "case 4: without seed augmentation"),
    "5": ("no score definition", "case 5: without scoring definition"),
    "6": ("all", "case 6: all parts"),
}
"""Cases of table 4, and the paper's own titles."""
TABLES = (
    OurTable(
        "rali:4",
        tuple(
            OurRow(f"{number}: {mine}", f"cases/{number}", (None, theirs)) for number, (mine, theirs) in CASES.items()
        ),
        read_case,
        note="Tiny CLIP, 600 held-out crops; 'basis' is the range of the fitted scores of the basis vectors.",
    ),
)
_SETS = "the photographs of the tiny size are one data set; --scale paper measures this table"
NOT_RUN = {"rali:2": _SETS, "rali:A.5": _SETS, "rali:A.6": _SETS}
