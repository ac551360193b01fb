"""GenEval (Ghosh et al. 2023): its 553 prompts, in the folders its scorer reads.

    omniq data geneval --metadata evaluation_metadata.jsonl --out runs/geneval

Needs `prompts/evaluation_metadata.jsonl` of the authors' repository. There are no images and no human scores: an object
detector decides whether an image is right. Writes `prompts.jsonl` (id, tag and prompt, one line each) and, for every
prompt, `<id>/metadata.jsonl` and an empty `<id>/samples/` for the generated images, `00000.png` and so on; then the
authors' `evaluate_images.py` can read the folder.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import omniq_verl
from omniq_verl.preparation.card import write_card
from omniq_verl.preparation.file_index import given_path
from omniq_verl.preparation.label_tables import LabelFileError, read_jsonl
from omniq_verl.tasks.outside_text import FIX, text_fault

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines unchanged.

    Raises:
        LabelFileError: a line is not in GenEval's format.
    """
    lines = list(read_jsonl(path))
    for number, line in enumerate(lines, 1):
        prompt, include = line.get("prompt"), line.get("include")
        if line.get("tag") not in TAGS or not (isinstance(prompt, str) and prompt.strip() and include):
            raise LabelFileError(
                f"{path}: entry {number} lacks a known tag, a prompt or include. Fix: take it from djghosh13/geneval"
            )
        if fault := text_fault(prompt):
            raise LabelFileError(f"{path}: the prompt of entry {number} {fault}. Fix: {FIX}")
    return lines


def write(lines: list[dict[str, Any]], out: Path, source: Path) -> dict[str, Any]:
    """Write prompts and folders, and return the card."""
    numbered = [(f"{number:05d}", line) for number, line in enumerate(lines)]
    for name, line in numbered:
        (out / name / "samples").mkdir(parents=True, exist_ok=True)
        (out / name / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    prompts = [json.dumps({"id": name, "tag": line["tag"], "prompt": line["prompt"]}) + "\n" for name, line in numbered]
    (out / "prompts.jsonl").write_text("".join(prompts))
    card = {
        "data_source": "geneval",
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "prompts": len(lines),
        "tags": dict(Counter(line["tag"] for line in lines)),
        "labels": "none: GenEval's own scorer says of each image whether it is right",
        "licence": "MIT (the authors' repository)",
        "source": {"name": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
    }
    return write_card(out, card, [])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", type=given_path, required=True, help="evaluation_metadata.jsonl")
    parser.add_argument("--out", type=given_path, required=True, help="folder for prompts.jsonl and its folders")
    args = parser.parse_args(arguments)
    try:
        card = write(read(args.metadata), args.out, args.metadata)
    except LabelFileError as error:
        sys.exit(str(error))
    print(f"geneval: {card['prompts']} prompts in {args.out}")


if __name__ == "__main__":
    main()
