"""T2I-CompBench's images with human ratings (Huang et al. 2023) -> parquet: how well they match their prompts.

    omniq data t2i_compbench --root T2I-CompBench --out data/t2i_compbench --low 1 --high 5

The layout of the authors' archive is not known, so this needs a table that you write, `manifest.csv` or
`manifest.jsonl` below --root (or --labels), with the columns image (name of the file), prompt, category and score, and
the lowest and highest score of the rating scale as --low and --high. All images are `test`.
"""

import argparse
from collections.abc import Iterator

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.readers import number, read_table, text


def read(request: Request) -> Iterator[Item]:
    path = request.label_file("manifest.csv", "manifest.jsonl")
    for row in read_table(path, ["image"], ["prompt", "category", "score"]):
        score = number(row["score"])
        yield Item(
            row["image"],
            "test",
            score,
            text=text(row["prompt"]),
            details={"category": row["category"]},
            fault=f"score is {row['score']!r}" if score is None else None,
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--low", type=float, required=True, help="lowest score of the rating scale")
    parser.add_argument("--high", type=float, required=True, help="highest score of the rating scale")


def label_map(options: argparse.Namespace) -> LabelMap:
    try:
        return LabelMap(options.low, options.high, "given by --low and --high")
    except ValueError as error:
        raise LabelFileError(f"--low and --high: {error}") from None


T2I_COMPBENCH = DataSet(
    name="t2i_compbench",
    tasks={"alignment": None},
    read=read,
    facts={
        "splits": "none: all are `test`",
        "labels": "score of a table of the user's, as the layout of the authors' archive is not known",
        "licence": "MIT (the authors' repository)",
    },
    add_options=add_options,
    label_map=label_map,
    own_options=("low", "high"),
)

if __name__ == "__main__":
    main(T2I_COMPBENCH, __doc__)
