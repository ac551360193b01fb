"""Read tables from people and other programs as rows of plain values. No cell is guessed, moved or renamed.

If rows have one cell more than the header, ``pandas.read_csv`` takes their first cell as an index, which moves every
value by one column. It also parses a file called ``NA`` as a missing value, and ``pandas.read_json`` parses the id
``"007"`` as 7. These readers do not.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omniq_verl.data.text_files import BLANKS, LabelFileError, json_lines, reject, table_lines

FORMS = (".csv", ".jsonl", ".parquet")
"""File name endings of the tables that ``table_rows`` reads, in any case."""


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file. Its header must have these columns; empty rows are skipped.

    Blanks around a cell are stripped, also around a quoted one.

    Raises:
        LabelFileError: a column is missing or repeated, or a row has the wrong number of cells.
    """
    # Lines keep their ends, which matter within a quoted cell of several lines.
    rows = csv.reader(table_lines(path), strict=True, skipinitialspace=True)
    first = 1
    try:
        header = [name.strip(BLANKS) for name in next(rows, [])]
        if missing := [name for name in columns if name not in header]:
            what = f"it has no column {', '.join(missing)} (it has {', '.join(header)[:200]})"
            raise reject(path, what, _fix_of_header(header))
        if twice := [name for name in columns if header.count(name) > 1]:
            raise reject(path, f"it has several columns {', '.join(twice)}", "take out or rename all but one")
        first = rows.line_num + 1
        for row in rows:
            row = [cell.strip(BLANKS) for cell in row]
            if any(row):
                if len(row) != len(header):
                    raise reject(path, f"line {rows.line_num} has {len(row)} cells, the header {len(header)}")
                yield dict(zip(header, row, strict=True))
            first = rows.line_num + 1
    except csv.Error as error:
        where = f"line {rows.line_num}" if rows.line_num <= first else f"what begins in line {first}"
        raise reject(path, f"{where} is not CSV ({error})", *_fix_of_quotes(first, rows.line_num)) from None


def _fix_of_header(header: Sequence[str]) -> str:
    for other, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and other in header[0]:
            return f"its cells are separated by {name}; save it with commas"
    return "name its columns as the script's --help does, or give their names with its options"


def _fix_of_quotes(first: int, last: int) -> Sequence[str]:
    return ["close its quotation mark, and write marks within a quoted cell twice"] if last > first else []


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield these columns of a table's rows.

    Args:
        path: a file whose name ends in one of ``FORMS``, in any case. All cells of a CSV are text.
        columns: columns that every row must have. Other columns are left out for parquet files and included for the
            other formats.

    Raises:
        LabelFileError: the file name has another ending, the file cannot be read, or a column is missing.
    """
    ending = path.suffix.lower()
    if ending == ".csv":
        yield from read_csv(path, columns)
    elif ending == ".jsonl":
        for number, record in json_lines(path):
            if missing := [name for name in columns if name not in record]:
                raise reject(path, f"line {number} has no {', '.join(missing)}")
            yield record
    elif ending == ".parquet":
        yield from _parquet_rows(path, columns)
    else:
        raise reject(path, "it is no table that can be read here", f"use {', '.join(FORMS)}")


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if missing := [name for name in columns if name not in file.schema_arrow.names]:
                raise reject(path, f"it has no column {', '.join(missing)}", "name its columns so")
            rows = file.read(columns=list(columns)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise LabelFileError(f"{path}: it cannot be read as parquet ({why}). Fix: write or copy it again") from None
    yield from rows


def score_in(cell: Any) -> float | None:
    """Return the number in a cell; None if the cell is empty or NaN.

    Raises:
        ValueError: the cell contains something else, such as a word or a decimal comma.
    """
    if cell is None or cell == "" or cell != cell:
        return None
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)) or "_" in str(cell):
        raise ValueError(f"{cell!r:.60} is not a number")
    try:
        found = float(cell)
    except (ValueError, OverflowError):
        raise ValueError(f"{cell!r:.60} is not a number") from None
    return None if math.isnan(found) else found
