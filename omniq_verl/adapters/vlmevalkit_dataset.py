"""Prepared files as data sets of VLMEvalKit: our question and parser, and PLCC and SRCC over the images with a score.

Source: VLMEvalKit (github.com/open-compass/VLMEvalKit, commit e8e78f0). ``build_dataset(name)`` takes the first class
of the list ``vlmeval.dataset.DATASET_CLASSES`` whose ``supported_datasets()`` has the name (``dataset/__init__.py``,
lines 399-404). ``ImageBaseDataset.build_prompt`` sends the files under ``image_path`` and the text under ``question``.
``evaluate(eval_file)`` reads a table with the column ``prediction``.

Images are written to separate files with their pixels unchanged. From a column ``image``, some versions of the kit
(commit 0507265, ``dump_image``) would write JPEG files, which changes the quality that is scored.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from omniq_verl.adapters.benchmark_rows import check_benchmark, label_of, read_score
from omniq_verl.adapters.lmms_eval_tasks import doc_to_text
from omniq_verl.data.files import replace_text
from omniq_verl.data.images import decode_image, encode_png
from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes
from omniq_verl.evaluation.correlations import correlations

_FIX = "Fix: evaluate the file that VLMEvalKit wrote"
COLUMNS = ("index", "image_path", "question", "answer", "extra_info")


def write_table(file: Path, name: str, root: Path) -> Path:
    """Write ``<root>/<name>.tsv`` and its images, as PNG, under ``<root>/images/<name>/``.

    Args:
        file: a prepared file; every row has one image and a score, and all rows ask the same task.
        name: name of the data set in VLMEvalKit.
        root: the folder that VLMEvalKit calls ``LMUData``.

    Raises:
        ValueError: the file, a row or an image cannot be used, or the name is not a plain file name.
    """
    if not name.isidentifier():
        raise ValueError(f"the name {name!r} cannot be used. Fix: use letters, digits and _")
    refs = check_benchmark(file)
    images = root.resolve() / "images" / name
    images.mkdir(parents=True, exist_ok=True)
    rows = RowReader(["prompt", "images", "reward_model", "extra_info"]).read(refs)
    lines = [_line(number, ref, row, images) for number, (ref, row) in enumerate(zip(refs, rows, strict=True))]
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return replace_text(root / f"{name}.tsv", table.to_csv(sep="\t", index=False))


def _line(number: int, ref: RowRef, row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / f"{number:07d}.png"
    (data,) = image_bytes(row)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(encode_png(decode_image(data)))
    os.replace(unfinished, path)
    info = {name: ref.info[name] for name in ("task", "scale_low", "scale_high")}
    return {
        "index": number,
        "image_path": str(path),
        "question": doc_to_text(row),
        "answer": label_of(row),
        "extra_info": json.dumps(info),
    }


def evaluate_table(table: pd.DataFrame) -> dict[str, float]:
    """Return PLCC and SRCC over the images with a parsed score (NaN if undefined), and the share of parsed answers.

    Args:
        table: one row per image with ``prediction`` (what the model wrote), ``answer`` and ``extra_info``.

    Raises:
        ValueError: a column is missing or repeated, or a row's ``extra_info`` or ``answer`` is invalid.
    """
    columns = list(table.columns)
    if missing := {"prediction", "answer", "extra_info"} - set(columns):
        raise ValueError(f"the table has no columns {sorted(missing)}. {_FIX}")
    if twice := [name for name in ("prediction", "answer", "extra_info") if columns.count(name) > 1]:
        raise ValueError(f"the table has {columns.count(twice[0])} columns {twice[0]!r}. {_FIX}")
    infos = [_info(text, row) for row, text in enumerate(table.extra_info)]
    labels = [_label(cell, row) for row, cell in enumerate(table.answer)]
    scores = [read_score(*pair) for pair in zip(table.prediction, infos, strict=True)]
    read = [(score, label) for score, label in zip(scores, labels, strict=True) if score is not None]
    found = correlations([score for score, _ in read], [label for _, label in read])
    values = {name: math.nan if (value := found[name]) is None else float(value) for name in ("plcc", "srcc")}
    return {**values, "parsed": len(read) / len(table) if len(table) else math.nan}


def _info(text: object, row: int) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"extra_info of line {row} is {text!r:.60}. {_FIX}")
    return found


def _label(cell: object, row: int) -> float:
    try:
        label = float(cell) if isinstance(cell, (int, float, str)) and not isinstance(cell, bool) else math.nan
    except (ValueError, OverflowError):
        label = math.nan
    if not math.isfinite(label):
        raise ValueError(f"answer of line {row} is {cell!r:.60}, not a number. {_FIX}")
    return label


def register(names: Sequence[str]) -> type:
    """Add the data sets to the installed VLMEvalKit and return their class. Call it before the kit's ``run.py``.

    Args:
        names: names of tables that ``write_table`` wrote into the kit's ``LMUData``.

    Raises:
        ValueError: the kit already has a data set with one of these names.
    """
    from vlmeval import dataset as kit  # pyright: ignore[reportMissingImports]  of the user
    from vlmeval.dataset.image_base import ImageBaseDataset  # pyright: ignore[reportMissingImports]  of the user
    from vlmeval.smp import load  # pyright: ignore[reportMissingImports]  of the user

    known = {name for one in kit.DATASET_CLASSES for name in one.supported_datasets()}
    if taken := sorted(known & set(names)):
        raise ValueError(f"VLMEvalKit has a data set {taken[0]!r} already. Fix: write the table under another name")

    class OmniqScores(ImageBaseDataset):
        """Scores of image quality."""

        TYPE = "VQA"
        DATASET_URL = dict.fromkeys(names, "")

        def evaluate(self, eval_file: str, **judge_kwargs: Any) -> dict[str, float]:
            """Return PLCC, SRCC and the share of parsed answers."""
            return evaluate_table(load(eval_file))

    kit.DATASET_CLASSES.append(OmniqScores)
    return OmniqScores
