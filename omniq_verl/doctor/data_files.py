"""Checks of a parquet file: every row of it, in little memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track
from xxhash import xxh3_64_intdigest

from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.prompt_length import PromptLength
from omniq_verl.doctor.rows import Fault, check_row

COLUMNS = ("data_source", "prompt", "images", "reward_model", "extra_info")
_SHOWN_PER_KIND = 5
_ROWS_AT_ONCE = 64  # of images of up to some MB
_ROWS_WORTH_A_BAR = 2000


@dataclass
class FileReport:
    """Findings about one file. Rows count from 0, as in ``extra_info.index``."""

    path: str
    rows: int = 0
    longest_prompt: int = 0
    """Tokens; 0 if none was counted."""
    problems: list[Problem] = field(default_factory=list)
    keys: set[int] = field(default_factory=set, repr=False)
    """Of each row, made from its task and id."""
    sources: set[str] = field(default_factory=set)
    """``data_source`` of its rows."""
    _found: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def note(self, record: dict[str, Any]) -> None:
        """Remember which row it is, where it says so."""
        info = record.get("extra_info")
        if isinstance(info, dict) and info.get("id") is not None:
            self.keys.add(xxh3_64_intdigest(f"{info.get('task')}/{info['id']}".encode(errors="replace")))
        if isinstance(record.get("data_source"), str):
            self.sources.add(record["data_source"])

    def add(self, number: int, record: dict[str, Any], fault: Fault) -> None:
        """Note a row's fault; of each kind the first few are kept, the others only counted."""
        self._found[fault.kind] += 1
        if self._found[fault.kind] <= _SHOWN_PER_KIND:
            where = f"{self.path}, row {number} (id {_row_id(record)})"
            self.problems.append(Problem(where, fault.what, fault.mend))

    def add_rest(self) -> None:
        """Say how many faults were only counted."""
        for kind, found in self._found.items():
            if found > _SHOWN_PER_KIND:
                rest = f"and {found - _SHOWN_PER_KIND:,} more rows with such a fault ({kind})"
                self.problems.append(Problem(self.path, rest, "as above"))


Check = Callable[[dict[str, Any]], tuple[list[Fault], int | None]]
"""A row -> its faults, and its tokens where they could be counted."""


def check_file(path: str, lengths: PromptLength | None, max_prompt_length: int, labels: bool = True) -> FileReport:
    """Check one parquet file of prompts, row by row.

    Args:
        path: of the file.
        lengths: counts the prompts' tokens; without it, their lengths are not checked.
        max_prompt_length: tokens a prompt may have.
        labels: check tasks and labels, too, as this package's reward reads them.
    """
    return check_table(path, COLUMNS, lambda record: check_row(record, lengths, max_prompt_length, labels))


def check_table(path: str, columns: Sequence[str], check: Check) -> FileReport:
    """Check one parquet file that must have these columns, row by row."""
    report = FileReport(path)
    file = Path(path).expanduser()
    if not file.is_file():
        mend = "give an existing file (data.train_files=PATH, data.val_files=PATH), or write it with data_prep"
        report.problems.append(Problem(path, "there is no such file", mend))
        return report
    try:
        report.rows, missing = _rows_and_missing_columns(file, columns)
        if report.rows and not missing:
            _check_rows(report, _records(file, columns), check)
    except _Unreadable as error:
        report.problems.append(Problem(path, f"the file cannot be read as parquet ({error})", "write or copy it again"))
        return report
    report.problems += _table_problems(path, report.rows, missing)
    return report


class _Unreadable(Exception):
    """The bytes are not those of a whole parquet file."""


def _rows_and_missing_columns(file: Path, columns: Sequence[str]) -> tuple[int, list[str]]:
    try:
        with pq.ParquetFile(file) as parquet:
            present = parquet.schema_arrow.names
            return parquet.metadata.num_rows, [column for column in columns if column not in present]
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable(str(error)) from error


def _table_problems(path: str, rows: int, missing: list[str]) -> list[Problem]:
    problems = []
    if missing:
        what = f"the file lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        problems.append(Problem(path, what, "write it with omniq_verl.data, or rename the columns"))
    if not rows:
        problems.append(Problem(path, "the file has no row", "run its data preparation again"))
    return problems


def _records(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        # Mapped, so that a file written as one huge row group is not read into memory at once either.
        with pq.ParquetFile(file, memory_map=True) as parquet:
            wanted = [name for name in parquet.schema_arrow.names if name in {*columns, "extra_info"}]
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=wanted):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable(str(error)) from error


def _check_rows(report: FileReport, records: Iterator[dict[str, Any]], check: Check) -> None:
    bar = track(
        records,
        description=f"checking {Path(report.path).name}",
        total=report.rows,
        console=Console(stderr=True),
        transient=True,
        disable=report.rows <= _ROWS_WORTH_A_BAR,
    )
    for number, record in enumerate(bar):
        faults, tokens = check(record)
        report.note(record)
        report.longest_prompt = max(report.longest_prompt, tokens or 0)
        for fault in faults:
            report.add(number, record, fault)
    report.add_rest()


def _row_id(record: dict[str, Any]) -> str:
    info = record.get("extra_info")
    return str(info.get("id", "unknown")) if isinstance(info, dict) else "unknown"
