"""Check every row of parquet files on all cores, with little memory, and only once per file."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.progress import track

from omniq_verl.doctor.file_report import DROPPED, FileReport, RowFindings, row_findings
from omniq_verl.doctor.paths import home_problem
from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.prompt_length import Length, PromptLength
from omniq_verl.doctor.rows import Fault, check_row
from omniq_verl.doctor.threads import map_in_order, usable_cores
from omniq_verl.doctor.verdicts import load_result, result_key, save_result, store_folder
from omniq_verl.lfs import PULL, is_pointer

__all__ = ["Check", "FileReport", "check_file", "check_table", "length_settings", "mean_image_tokens"]

COLUMNS = ("data_source", "prompt", "images", "reward_model", "extra_info")
_ROWS_AT_ONCE = 64  # rows with images of up to some MB
_ROWS_WORTH_A_BAR = 2000
_MOST_THREADS = 16  # each may hold a decoded image of up to 270 MB

Check = Callable[[dict[str, Any]], tuple[list[Fault], Length | int | None]]
"""A function that returns a row's faults and its tokens: a number, or a ``Length`` with the image tokens as well, or
None if they could not be counted. It is called from several threads."""


def check_file(
    path: str,
    lengths: PromptLength | None,
    max_prompt_length: int,
    labels: bool = True,
    named: Mapping[str, str] | None = None,
    drops_long: bool = False,
) -> FileReport:
    """Check one parquet file of prompts, row by row.

    Args:
        path: the parquet file.
        lengths: counts the prompts' tokens; None: do not check lengths.
        max_prompt_length: largest number of tokens a prompt may have.
        labels: whether to check tasks and labels as well, which this package's reward uses.
        named: the file's own names for ``COLUMNS``, if they differ.
        drops_long: whether verl drops prompts that are too long. They are then counted instead of reported.
    """
    check = partial(check_row, lengths=lengths, max_prompt_length=max_prompt_length, labels=labels)
    counted = length_settings(lengths)
    settings = None if counted is None else f"prompts, {max_prompt_length=}, {labels=}, {drops_long=}, {counted}"
    return check_table(path, COLUMNS, _dropping(check) if drops_long else check, settings, named)


def _dropping(check: Check) -> Check:
    def checked(record: dict[str, Any]) -> tuple[list[Fault], Length | int | None]:
        faults, length = check(record)
        return [Fault(DROPPED, one.what, one.fix) if one.kind == "length" else one for one in faults], length

    return checked


def length_settings(lengths: PromptLength | None) -> str | None:
    """Describe how tokens are counted, for the ``settings`` of ``check_table``; None if it cannot be known."""
    return "lengths are not counted" if lengths is None else lengths.fingerprint


def check_table(
    path: str,
    columns: Sequence[str],
    check: Check,
    settings: str | None = None,
    named: Mapping[str, str] | None = None,
) -> FileReport:
    """Check one parquet file that must have these columns, row by row, in several threads.

    Args:
        path: the parquet file.
        columns: names of the columns of a row.
        check: called with each row.
        settings: everything ``check`` depends on besides the row and this package's code. If given, the report is
            stored and reused as long as the file stays the same (see ``verdicts``). Reports of files whose images are
            separate files are not stored.
        named: the file's own names for ``columns``, if they differ.
    """
    file, stored = Path(path), {name: (named or {}).get(name, name) for name in columns}
    if path.startswith("~"):
        return FileReport(path, problems=[home_problem("data file", path)])
    if not file.is_file():
        fix = "give an existing file (data.train_files=PATH, data.val_files=PATH), or write it with omniq data"
        return FileReport(path, problems=[Problem(path, "there is no such file", fix)])
    folder = store_folder() if settings is not None else None
    if folder is None:
        return _check_content(path, file, stored, check)
    before = _state(file)
    try:
        key = result_key(file, f"{path!r}, {tuple(stored.items())}, {settings}")
    except OSError as error:
        return FileReport(path, problems=[_unreadable(path, error)])
    if report := _stored_report(folder, key, path):
        return report
    report = _check_content(path, file, stored, check)
    if not report.reads_files and _state(file) == before:
        save_result(folder, key, report.to_json())
    return report


def mean_image_tokens(files: Sequence[FileReport]) -> float | None:
    """Return the mean number of image tokens per row; None if none were counted."""
    rows, tokens = sum(file.rows for file in files), sum(file.image_tokens for file in files)
    return tokens / rows if tokens else None


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _stored_report(folder: Path, key: str, path: str) -> FileReport | None:
    values = load_result(folder, key)
    if values is None:
        return None
    try:
        return FileReport.from_json(path, values)
    except (KeyError, TypeError, ValueError):
        return None


def _check_content(path: str, file: Path, columns: Mapping[str, str], check: Check) -> FileReport:
    report = FileReport(path)
    try:
        report.rows, missing = _rows_and_missing_columns(file, columns)
        if report.rows and not missing:
            _check_rows(report, _records(file, columns), check)
    except _Unreadable as error:
        report.problems.append(_unreadable(path, error))
        return report
    report.problems += _table_problems(path, report.rows, missing)
    return report


class _Unreadable(Exception):
    """The file is not a complete parquet file."""


def _unreadable(path: str, error: Exception) -> Problem:
    if is_pointer(Path(path)):
        return Problem(path, "it is a Git LFS pointer, not the file itself", PULL)
    return Problem(path, f"the file cannot be read as parquet ({error})", "write or copy it again")


def _rows_and_missing_columns(file: Path, columns: Mapping[str, str]) -> tuple[int, list[str]]:
    try:
        with pq.ParquetFile(file) as parquet:
            present = parquet.schema_arrow.names
            return parquet.metadata.num_rows, [name for name in columns.values() if name not in present]
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable(str(error)) from error


def _table_problems(path: str, rows: int, missing: list[str]) -> list[Problem]:
    problems = []
    if missing:
        what = f"the file lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        problems.append(Problem(path, what, "write it with omniq data, or rename the columns"))
    if not rows:
        problems.append(Problem(path, "the file has no rows", "run its data preparation again"))
    return problems


def _records(file: Path, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    try:
        # The file is memory-mapped, so even a file with one huge row group is not read into memory at once.
        with pq.ParquetFile(file, memory_map=True) as parquet:
            present = parquet.schema_arrow.names
            every = {"extra_info": "extra_info", **columns}
            wanted = {name: column for name, column in every.items() if column in present}
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=sorted(set(wanted.values()))):
                for row in batch.to_pylist():
                    yield {name: row[column] for name, column in wanted.items()}
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable(str(error)) from error


def _check_rows(report: FileReport, records: Iterator[dict[str, Any]], check: Check) -> None:
    # Threads are enough because PIL releases the interpreter's lock: processes took 15% longer for the same images.
    rows = map_in_order(partial(_findings, check), records, usable_cores(_MOST_THREADS))
    bar = track(
        rows,
        description=f"checking {Path(report.path).name}",
        total=report.rows,
        console=Console(stderr=True),
        transient=True,
        disable=report.rows <= _ROWS_WORTH_A_BAR,
    )
    # PIL only warns about images between one and two times its limit. Warning filters belong to the whole process, so
    # they are set here instead of in the threads.
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for number, row in enumerate(bar):
            report.add(number, row)
    report.add_rest()


def _findings(check: Check, record: dict[str, Any]) -> RowFindings:
    faults, length = check(record)
    return row_findings(record, faults, length)
