"""EvalMuse-40K (Han et al. 2024) -> parquet: how well generated images match their prompts.

    omniq data evalmuse --root EvalMuse --out data/evalmuse

Needs `train_list.json` and the images (`dataset/images/<generator>/...` of images.zip) below --root. The label is the
mean of an image's ratings, 1-5, without those that are null. `test.json` has no ratings. Test and validation images are
therefore held out from the training list, whole prompts at a time, by --test-share, --val-share and --seed.
"""

import argparse
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.readers import draw, number, read_records, share, text

RATINGS = (1.0, 5.0)


def read(request: Request) -> Iterator[Item]:
    path, options = request.label_file("train_list.json"), request.options
    records = list(read_records(path, ["img_path"], ["prompt", "prompt_id"]))
    if not any("total_score" in record for record in records):
        raise LabelFileError(f"{path}: it has no ratings (no total_score). Fix: take train_list.json, not test.json")
    for record in records:
        if options.drop_meaningless and is_meaningless(record):
            continue
        prompt_id, given = str(record["prompt_id"]), record.get("total_score")
        ratings = [number(rating) for rating in given if rating is not None] if isinstance(given, list) else []
        sound = all(rating is not None and RATINGS[0] <= rating <= RATINGS[1] for rating in ratings)
        yield Item(
            record["img_path"],
            split_of(prompt_id, options),
            fmean(ratings) if ratings and sound else None,
            text=text(record["prompt"]),
            details={"ratings": ratings, "prompt_id": prompt_id, "type": record.get("type")},
            fault=None if ratings and sound else f"total_score is {given!r}",
        )


def split_of(prompt_id: str, options: argparse.Namespace) -> str:
    """Return a prompt's split. The validation share begins where the test share ends, so it changes no test image."""
    drawn = draw(options.seed, prompt_id)
    if drawn < options.test_share:
        return "test"
    return "val" if drawn < options.test_share + options.val_share else "train"


def is_meaningless(record: dict[str, Any]) -> bool:
    """Whether most raters called the prompt too abstract or said that it has no subject."""
    given = record.get("promt_meaningless")  # spelled like this in the file
    votes = [vote for vote in given if vote is not None] if isinstance(given, list) else []
    return 2 * sum(vote == 1 for vote in votes) > len(votes)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test-share", type=share, default=0.1, help="share of the prompts to test on (default: 0.1)")
    parser.add_argument(
        "--val-share", type=share, default=0.03, help="share of the prompts to validate on (default: 0.03)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that choice (default: 0)")
    parser.add_argument("--drop-meaningless", action="store_true", help="leave out prompts most called meaningless")


EVALMUSE = DataSet(
    name="evalmuse",
    tasks={"alignment": LabelMap(*RATINGS, "least and greatest rating there is")},
    read=read,
    folders=("dataset",),
    facts={
        "splits": "ours, by a draw from --seed and prompt_id: the official test.json has no ratings",
        "labels": "mean of total_score without nulls, as in the authors' process_train.py",
        "licence": "tag bsd-3-clause of DY-Evalab/EvalMuse",
    },
    add_options=add_options,
    own_options=("test_share", "val_share", "seed", "drop_meaningless"),
)

if __name__ == "__main__":
    main(EVALMUSE, __doc__)
