"""Create the quickstart's tiny model, with a tokenizer from the data's texts and a patch embedding from its images."""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from omniq_verl.tasks import IMAGE_PLACEHOLDER
from omniq_verl.tiny.model import TinySize, save_tiny_model

_CHAT_WORDS = "system\nYou are a helpful assistant.\nuser\nassistant\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the SFT data")
    parser.add_argument("--texts", default="sft.parquet", help="file there whose texts the tokenizer is learned from")
    parser.add_argument("--vocab", type=int, default=TinySize.vocab, help="learned tokens (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = pq.read_table(args.data / args.texts, columns=["messages", "images"]).slice(0, 1000).to_pylist()
    texts = [turn["content"].replace(IMAGE_PLACEHOLDER, "") for row in rows for turn in row["messages"]]
    images = [np.array(Image.open(io.BytesIO(row["images"][0]["bytes"]))) for row in rows[:200]]
    parameters = save_tiny_model(args.out, [_CHAT_WORDS, *texts], images, args.seed, TinySize(vocab=args.vocab))
    print(f"{parameters / 1e6:.2f} million parameters in {args.out}")


if __name__ == "__main__":
    main()
