"""Pretrain a tiny CLIP on photographs, and evaluate the six cases of RALI's table 4 with it.

    python -m omniq_verl.pipeline.made.tiny_clip pretrain --data runs/rali/data/sft.parquet --out runs/rali/clip
    python -m omniq_verl.pipeline.made.tiny_clip cases --clip runs/rali/clip --all runs/rali/all_texts/model \
        --one runs/rali/one_text/model --train runs/rali/data/train.parquet --test runs/rali/data/test.parquet \
        --out runs/rali/cases

Every other crop has a caption with its distortion, the others one with their hue. That stands in for the pretraining of
OpenAI's CLIP.
"""

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from transformers import CLIPImageProcessor

from omniq_verl.data.files import replace_text
from omniq_verl.data.row_refs import list_rows
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.rali.compress import Compression
from omniq_verl.rali.encoder import open_encoder, save_whole
from omniq_verl.rali.fit import Fit
from omniq_verl.rali.fit_files import compress_and_fit
from omniq_verl.rali.pixels import embed, pixels_of
from omniq_verl.rali.preprocessing import read_preprocessing
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.clip import TinyClipSize, build_clip, build_tokenizer, pretrain_clip, whiten_patches

DIMENSIONS = 43
"""Two thirds of 64, as the paper's 512 are of 768."""


@dataclass(frozen=True)
class Case:
    """A column of the table."""

    encoder: str
    """``clip``, ``all`` or ``one``: the options that name its folder."""
    dimensions: int | None = DIMENSIONS
    buckets: int = 240
    fitted: bool = True


CASES = {
    "1": Case("clip"),
    "2": Case("all", dimensions=None),
    "3": Case("all", buckets=1),
    "4": Case("one"),
    "5": Case("all", fitted=False),
    "6": Case("all"),
}


def pretrain(args: argparse.Namespace, console: Console) -> None:
    """Write a tiny CLIP that was trained on crops and their captions, unless it is there."""
    if args.out.is_dir() and (args.out / "config.json").exists():
        return
    size = TinyClipSize(image_side=args.crop)
    processor = CLIPImageProcessor(
        size={"shortest_edge": args.crop}, crop_size={"height": args.crop, "width": args.crop}
    )
    make = read_preprocessing(processor.to_dict())
    rows = pq.read_table(args.data).to_pylist()
    captions = [caption(row, number) for number, row in enumerate(rows)]
    raw = np.stack([make(row["images"][0]["bytes"]) for row in rows]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    pixels = (raw - np.reshape(make.mean, (3, 1, 1))) / np.reshape(make.std, (3, 1, 1))
    pixels = pixels.astype(np.float32)
    tokenizer = build_tokenizer(captions, size)
    torch.manual_seed(args.seed)
    model = build_clip(tokenizer, size)
    whiten_patches(model, pixels[:300], args.seed)
    losses = pretrain_clip(model, tokenizer, pixels, captions, args.epochs, seed=args.seed)
    losses = list(track(losses, f"seed {args.seed}: pretraining", args.epochs, console=console))
    console.print(f"pretraining: loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")
    save_whole(args.out, model.eval(), tokenizer, processor)


def caption(row: dict[str, Any], number: int) -> str:
    """What is wrong with a crop, or its hue; in turn."""
    wrong = row["messages"][1]["content"].removeprefix("<think>").partition("</think>")[0].rpartition(",")[0]
    return f"a picture with {wrong}" if number % 2 else "a picture, hue " + hue(row)


def hue(row: dict[str, Any]) -> str:
    """What a crop's mean colour is nearest to."""
    with Image.open(io.BytesIO(row["images"][0]["bytes"])) as image:
        pixel = np.asarray(image.convert("RGB").resize((1, 1)))[0, 0].astype(int)
    names = ("dark", "red", "green", "blue", "grey", "bright")
    centres = np.array([[30] * 3, [150, 80, 60], [90, 130, 80], [70, 100, 150], [120] * 3, [210] * 3])
    return names[int(np.argmin(((centres - pixel) ** 2).sum(axis=1)))]


def cases(args: argparse.Namespace, _console: Console) -> None:
    """Fit each case on the one file, measure it on the other, and write ``cases.json``."""
    files = {"train": args.train, "test": args.test}
    seen = {name: embedded(getattr(args, name), files) for name in {case.encoder for case in CASES.values()}}
    found = {number: measure(case, *seen[case.encoder], args.seed) for number, case in CASES.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    replace_text(args.out / "cases.json", json.dumps(found, indent=2) + "\n")


def embedded(encoder: Path, files: dict[str, Path]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Embeddings and labels of the crops to learn from and to measure on."""
    refs = {name: list_rows([file]) for name, file in files.items()}
    opened = open_encoder(str(encoder))
    embeddings = {name: embed(opened, pixels_of(some, opened.preprocessing)) for name, some in refs.items()}
    return embeddings, {name: np.array([ref.info["score"] for ref in some]) for name, some in refs.items()}


def measure(case: Case, embeddings: dict[str, np.ndarray], labels: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """PLCC and SRCC of a case, and the range of its basis scores."""
    compression = Compression(case.dimensions, buckets=case.buckets, seed=seed)
    fit = Fit(seed=seed) if case.fitted else Fit(epochs=0, seed=seed)
    found = compress_and_fit(embeddings["train"], labels["train"], TECHNICAL.score_scale, compression, fit)
    with torch.inference_mode():
        scores = found.scorer(torch.from_numpy(embeddings["test"])).numpy()
    basis = found.scorer.scores_K.detach()
    figures = correlations(scores, labels["test"])
    return {"plcc": figures["plcc"], "srcc": figures["srcc"], "low": float(basis.min()), "high": float(basis.max())}


def parser() -> argparse.ArgumentParser:
    """Both commands and their options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = found.add_subparsers(required=True)
    first = commands.add_parser("pretrain", help="pretrain a tiny CLIP")
    first.set_defaults(run=pretrain)
    first.add_argument("--data", type=Path, required=True, help="crops and what is wrong with them (sft.parquet)")
    first.add_argument("--crop", type=int, default=80, help="side of a crop in pixels (default: 80)")
    first.add_argument("--epochs", type=int, default=10, help="passes over all crops (default: 10)")
    second = commands.add_parser("cases", help="measure the six cases of table 4")
    second.set_defaults(run=cases)
    for name, text in (
        ("clip", "folder of the pretrained CLIP"),
        ("all", "folder of the CLIP aligned with all texts"),
        ("one", "folder of the CLIP aligned with one text each"),
        ("train", "crops to fit on"),
        ("test", "crops to measure on"),
    ):
        second.add_argument(f"--{name}", type=Path, required=True, help=text)
    for command in (first, second):
        command.add_argument("--out", type=Path, required=True, help="folder to write")
        command.add_argument("--seed", type=int, default=0, help="(default: 0)")
    return found


def main() -> None:
    args = parser().parse_args()
    args.run(args, Console())


if __name__ == "__main__":
    main()
