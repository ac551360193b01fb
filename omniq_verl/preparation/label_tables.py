"""Read label files as rows of plain values. Outside input is never unpickled or executed."""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from omniq_verl.data.tables import read_csv
from omniq_verl.data.text_files import (
    BLANKS,
    LabelFileError,
    check_file,
    each_key_once,
    json_lines,
    reject,
    text_lines,
)

__all__ = [
    "LabelFileError",
    "check_file",
    "read_csv",
    "read_json",
    "read_jsonl",
    "read_lines",
    "read_mat",
    "read_words",
    "read_xlsx",
]

_MAX_JSON_BYTES = 2**28  # a JSON file is read as a whole and takes about ten times its size in memory
_MAX_SHEET_BYTES = 2**28
_MAX_RATIO = 200  # compression shrinks real sheets by a factor of five to thirty, a bomb by a thousand
_MAX_VARIABLE_BYTES = 2**28
_MAT_COMPRESSED = 15


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, without line ends.

    Raises:
        LabelFileError: the file is not text, or a line is too long to be a label.
    """
    return (line for _, line in text_lines(path))


def read_words(path: Path, columns: int) -> Iterator[list[str]]:
    """Yield the rows of a text file without a header, with cells separated by spaces and tabs.

    Raises:
        LabelFileError: a row has the wrong number of cells.
    """
    for number, line in enumerate(read_lines(path), 1):
        words = [word for word in re.split("[ \t]", line.strip(BLANKS)) if word]
        if not words:
            continue
        if len(words) != columns:
            raise reject(path, f"line {number} has {len(words)} words, not {columns}")
        yield words


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        LabelFileError: it is not JSON, or an object has the same key twice.
    """
    check_file(path, _MAX_JSON_BYTES)
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=each_key_once)
    except (ValueError, RecursionError) as error:
        raise reject(path, f"it is not JSON ({error})") from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file.

    Raises:
        LabelFileError: a line is not a JSON object.
    """
    return (record for _, record in json_lines(path))


def read_xlsx(path: Path, columns: Sequence[str], sheet: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows below the header of an Excel sheet. The header is the first row that has all these columns.

    Cells hold the value that Excel last computed, or the text of the error, such as ``#REF!``.

    Raises:
        LabelFileError: the file is not a workbook or is too large unpacked, no row has the columns, or a column is
            repeated.
    """
    header: dict[str, int] | None = None
    for row in _sheet_rows(path, sheet):
        if header is None:
            names = [str(cell).strip(BLANKS).strip() if cell is not None else "" for cell in row]
            if all(name in names for name in columns):
                if twice := [name for name in columns if names.count(name) > 1]:
                    raise reject(path, f"it has several columns {', '.join(twice)}", "take out or rename all but one")
                header = {name: names.index(name) for name in columns}
            continue
        cells = {name: _cell(row[ref]) if ref < len(row) else None for name, ref in header.items()}
        if any(cell is not None for cell in cells.values()):
            yield cells
    if header is None:
        raise reject(path, f"none of its rows names the columns {', '.join(columns)}")


def _cell(cell: Any) -> Any:
    return cell.strip(BLANKS) if isinstance(cell, str) else cell


def _sheet_rows(path: Path, sheet: str | None) -> Iterator[tuple[Any, ...]]:
    check_file(path)
    _reject_zip_bomb(path)
    from openpyxl import load_workbook

    with open(path, "rb") as file:  # if given a path, openpyxl checks the file name's ending
        try:
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            found = book[sheet] if sheet else book.worksheets[0]
            # The size stated in a sheet may be too small, or include a billion empty cells.
            found.reset_dimensions()
            yield from found.iter_rows(values_only=True)
        except Exception as error:  # openpyxl raises many kinds of errors on broken files
            raise reject(path, f"it is not a workbook with the sheet {sheet or 'that comes first'} ({error})") from None


def _reject_zip_bomb(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise reject(path, "it is not an Excel workbook") from None
    if unpacked > _MAX_SHEET_BYTES or unpacked > _MAX_RATIO * path.stat().st_size + 2**20:
        raise reject(path, f"it unpacks to {unpacked:,} bytes, which no label file does")


def read_mat(path: Path, name: str) -> np.ndarray:
    """Read one variable of a MATLAB file (version 5; numbers and text cells, no objects).

    Raises:
        LabelFileError: it is not such a file, or does not have the variable.
    """
    check_file(path)
    _reject_mat_bomb(path)
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=[name])
    except Exception as error:  # scipy raises many kinds of errors on broken files
        raise reject(path, f"it is not a MATLAB 5 file ({error})") from None
    if name not in found:
        raise reject(path, f"it has no variable {name}")
    return found[name]


def _reject_mat_bomb(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(128)
        order = ">" if head[126:] == b"MI" else "<"
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            end = file.tell() + size
            if kind == _MAT_COMPRESSED and _inflates_beyond(file, size, _MAX_VARIABLE_BYTES):
                raise reject(path, f"it unpacks to more than {_MAX_VARIABLE_BYTES:,} bytes, which no label file does")
            file.seek(end)


def _inflates_beyond(file: BinaryIO, size: int, limit: int) -> bool:
    inflater, unpacked = zlib.decompressobj(), 0
    while unpacked <= limit and (piece := file.read(min(size, 2**14))):  # unpacks to at most 17 MB
        size -= len(piece)
        try:
            unpacked += len(inflater.decompress(piece))
        except zlib.error:  # the reader reports it
            return False
    return unpacked > limit
