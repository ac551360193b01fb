"""GenAI-Bench (Li et al. 2024), the image part -> parquet: how well generated images match their prompts.

    omniq data genai_bench --root GenAI-Image-1600 --out data/genai_bench

Needs `genai_image.json` and the images, `<generator>/00000.jpeg` and so on, below --root, both of one version (1,600
prompts, 9,600 images; or 527 prompts). The label is the mean of an image's three ratings, 1-5. Two of the published
ratings are typing errors, 41 and 33: ratings outside 1-5 are left out of the mean and stored in `details`.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError, read_json
from omniq_verl.preparation.readers import number, on_disk, text

RATINGS = (1.0, 5.0)


def read(request: Request) -> Iterator[Item]:
    path = request.label_file("genai_image.json")
    entries = read_json(path)
    check(path, entries, request.index)
    for key, entry in entries.items():
        for generator, ratings in entry["models"].items():
            name = on_disk(request.index, f"{generator}/{key}.jpeg", ".jpg")
            yield item(name, text(entry.get("prompt")), generator, ratings)


def check(path: Path, entries: Any, index: FileIndex) -> None:
    """Reject another data set of this name, and labels of one version with images of the other."""
    whole = isinstance(entries, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("models"), dict) for entry in entries.values()
    )
    if not whole:
        raise LabelFileError(
            f"{path}: it is not a JSON object whose entries have models. Fix: take genai_image.json of"
            " BaiqiL/GenAI-Bench-1600 (TIGER-Lab/GenAI-Bench is another data set)"
        )
    # Numbers begin at 0 in the version with 1,600 prompts and at 1 in the one with 527, and mean different prompts.
    if "00000" not in entries and any(index.find(f"DALLE_3/00000.{suffix}") for suffix in ("jpeg", "jpg")):
        raise LabelFileError(
            f"{path}: it is from the version with 527 prompts, but images of the one with 1,600 are below"
            f" {index.root}. Fix: give the folder of one version with --root"
        )


def item(name: str, prompt: str | None, generator: str, given: Any) -> Item:
    ratings = [number(rating) for rating in given] if isinstance(given, list) else [None]
    used = [rating for rating in ratings if rating is not None and RATINGS[0] <= rating <= RATINGS[1]]
    dropped = [rating for rating in ratings if rating not in used]
    return Item(
        name,
        "test",
        fmean(used) if used else None,
        text=prompt,
        details={"generator": generator, "ratings": used, "dropped_ratings": dropped},
        fault=None if used and None not in ratings else f"its ratings are {given!r}",
    )


GENAI_BENCH = DataSet(
    name="genai_bench",
    tasks={"alignment": LabelMap(*RATINGS, "least and greatest rating there is")},
    read=read,
    facts={
        "splits": "none: all are `test`",
        "labels": "mean of the ratings from 1 to 5; others (in the published file 41 and 33) are left out one by one",
        "licence": "tag apache-2.0 of BaiqiL/GenAI-Bench",
    },
)

if __name__ == "__main__":
    main(GENAI_BENCH, __doc__)
