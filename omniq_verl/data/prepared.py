"""Open prepared parquet files and check them. Errors name the file or row, and the fix."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omniq_verl.lfs import check_no_pointer
from omniq_verl.tasks import shown, task_of
from omniq_verl.tasks.labels import is_number

INFO = ("id", "split", "task", "score", "scale_low", "scale_high")
"""Keys of ``extra_info`` that identify and select rows."""
_WRITE = "write the file with omniq data (omniq data manifest takes any table of images and scores)"


class BadRow(ValueError):
    """A row that cannot be used; the message names the field and the fix."""


def open_prepared(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """Open a prepared file that has these columns, in the types that rows need.

    Raises:
        ValueError: the file is missing, a folder, not parquet, or lacks a column. The message names the fix.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Fix: name its files, e.g. {path}/*.parquet")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file. Fix: name prepared files")
    with named_errors(path):
        file = pq.ParquetFile(path)
    schema = file.schema_arrow
    if missing := sorted(set(columns) - set(schema.names)):
        file.close()
        raise ValueError(f"{path} has no columns {missing}. Fix: {_WRITE}")
    for name in set(columns) & _FAULTS.keys() if file.metadata.num_rows else ():
        if fault := _FAULTS[name](schema.field(name).type):
            file.close()
            raise ValueError(f"{path}: the column {name} {fault}. Fix: {_WRITE}")
    return file


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn any exception of pyarrow while it reads a file into one line that names the file.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        check_no_pointer(path)
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as parquet ({why}). Fix: write or copy it again") from error


def image_kind(column: pa.DataType) -> str | None:
    """Return how a file stores its images: ``bytes`` in the rows, or ``image`` for file names; None if neither.

    verl uses the bytes wherever the key exists, even if it is empty (rl_dataset.py:335).
    """
    image = _item(column)
    names = [field.name for field in image] if image is not None and pa.types.is_struct(image) else []
    return next((kind for kind in ("bytes", "image") if kind in names), None)


def _item(column: pa.DataType) -> pa.DataType | None:
    """Return the type of a list's items; None if it is not a list."""
    return column.value_type if hasattr(column, "value_type") and not pa.types.is_dictionary(column) else None


def _fault_of_images(column: pa.DataType) -> str | None:
    if image_kind(column) is None:
        return f"is of type {column}, not a list of images with `bytes` (a file's content) or `image` (a file's name)"
    return None


def _fault_of_prompt(column: pa.DataType) -> str | None:
    turn = _item(column)
    if turn is None or not pa.types.is_struct(turn) or {"role", "content"} - {field.name for field in turn}:
        return f"is of type {column}, not a list of turns with `role` and `content`"
    return None


def _fault_of_struct(column: pa.DataType) -> str | None:
    return None if pa.types.is_struct(column) else f"is of type {column}, not an object with keys (a struct)"


_FAULTS: dict[str, Callable[[pa.DataType], str | None]] = {
    "images": _fault_of_images,
    "prompt": _fault_of_prompt,
    "extra_info": _fault_of_struct,
    "reward_model": _fault_of_struct,
}
"""Checks of the columns' types, by column; each check returns what is wrong, or None."""


def row_info(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies a row: its ``data_source`` and the ``INFO`` keys of its ``extra_info``; None if missing.

    Args:
        row: a row with ``data_source`` and ``extra_info``.

    Raises:
        BadRow: the source or id is missing, the task is unknown, the scale is wrong, or a value has the wrong type.
    """
    info, source = row["extra_info"], row["data_source"]
    if not isinstance(source, str) or not source:
        raise BadRow(f"data_source is {shown(source)}. Fix: write the name of the data set")
    if not isinstance(info, Mapping):
        raise BadRow(f"extra_info is {shown(info)}. Fix: {_WRITE}")
    name = info.get("id")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise BadRow(f"extra_info.id is {shown(name)}, neither text nor a whole number. Fix: give each row its own id")
    try:
        task_of(info)
    except ValueError as error:
        raise BadRow(str(error)) from None
    found = {"data_source": source, **{key: info.get(key) for key in INFO}}
    if not isinstance(found["split"], str | None):
        raise BadRow(f"extra_info.split is {shown(found['split'])}. Fix: write train, val or test")
    if not is_number(found["score"]):
        if found["score"] is not None and found["score"] == found["score"]:
            raise BadRow(f"extra_info.score is {shown(found['score'])}. Fix: write a number")
        found["score"] = None  # pandas writes NaN for missing values
    return found


def check_prompt(prompt: object) -> None:
    """Check that the prompt is a list of turns with text.

    Raises:
        BadRow: it is something else.
    """
    turns = prompt if isinstance(prompt, list) else []
    if not turns or not all(isinstance(turn, Mapping) and _is_turn(turn) for turn in turns):
        raise BadRow(f"prompt is {shown(prompt)}, not a list of turns with role and content as text. Fix: {_WRITE}")


def _is_turn(turn: Mapping[str, Any]) -> bool:
    return isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
