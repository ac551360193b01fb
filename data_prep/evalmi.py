"""EvalMi-50K (Wang et al. 2025) -> parquet: 50,400 images of 24 generators, perception or match to their prompts.

    omniq data evalmi --root EvalMi-50K --out data/evalmi
    omniq data evalmi --root EvalMi-50K --out data/evalmi_alignment --task alignment

Needs `AIGI2025_MOS_yn.xlsx`, `question.xlsx` and the images (`AIGI2025/<generator>/001.png` to `2100.png`) below
--root; --labels names the folder of the two workbooks, if it is a different one. MOS1 is the perception (here: the
technical task), MOS2 the correspondence to the prompt, which is row n of `question.xlsx` for image n. Both are z-scored
to about 0-100; the lowest and highest label of the file are mapped to the ends of the scale. All images are `test`
unless --test-share is less than 1.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError, read_xlsx
from omniq_verl.preparation.readers import draw, label_files, number, share

COLUMNS = {"technical": "MOS1", "alignment": "MOS2"}


def read(request: Request) -> Iterator[Item]:
    labels, questions = label_files(request, "AIGI2025_MOS_yn.xlsx", "question.xlsx")
    column, options = COLUMNS[request.task], request.options
    rows = list(read_xlsx(labels, ["ImageName", column]))
    prompts = prompts_of(questions, max((image_number(row["ImageName"]) for row in rows), default=0))
    for row in rows:
        score, ref = number(row[column]), image_number(row["ImageName"])
        prompt = prompts[ref - 1] if ref else None
        yield Item(
            str(row["ImageName"]),
            "test" if draw(options.seed, prompt or "") < options.test_share else "train",
            score,
            text=prompt,
            details={"generator": PurePosixPath(str(row["ImageName"])).parent.name, "prompt_number": ref},
            fault=fault_of(row[column], score, ref, column),
        )


def image_number(name: object) -> int:
    """Return the number in a name, such as 17 for ``generator/017.png``; 0 if it has none."""
    stem = PurePosixPath(str(name)).stem
    return int(stem) if stem.isdecimal() else 0


def prompts_of(path: Path, highest: int) -> list[str]:
    prompts = [str(row["prompt"]) for row in read_xlsx(path, ["prompt"])]
    # An empty or additional row would give every later image another image's prompt.
    if len(prompts) != highest:
        raise LabelFileError(
            f"{path}: it has {len(prompts)} prompts, but the images are numbered up to {highest}, so they cannot be"
            " matched. Fix: take both workbooks from the same release"
        )
    return prompts


def fault_of(cell: object, score: float | None, ref: int, column: str) -> str | None:
    if not ref:
        return "the name of the image has no number"
    return f"{column} is {cell!r}" if score is None else None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--test-share", type=share, default=1.0, help="test share of the prompts (default: 1, no training split)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that choice (default: 0)")


EVALMI = DataSet(
    name="evalmi",
    tasks={
        "technical": LabelMap(15.9531563777631, 73.3049776344248, "least and greatest MOS1 of all 50,400 images"),
        "alignment": LabelMap(22.0560612221898, 70.247419212392, "least and greatest MOS2 of all 50,400 images"),
    },
    read=read,
    folders=("AIGI2025",),
    facts={
        "splits": "ours, by a draw from --seed and the prompt: how the authors made their folds is not known",
        "licence": "tag apache-2.0 of IntMeGroup/EvalMi-50K",
    },
    add_options=add_options,
    own_options=("test_share", "seed"),
    expected_rows=lambda options: 50_400,
)

if __name__ == "__main__":
    main(EVALMI, __doc__)
