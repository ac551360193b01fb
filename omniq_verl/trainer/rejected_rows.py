"""Find, count and name the rows that training leaves out. Pure."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omniq_verl.data.files import replace_text
from omniq_verl.doctor.report import may_leave_out
from omniq_verl.doctor.rows import Fault
from omniq_verl.doctor.threads import map_in_order, usable_cores

FILE_NAME = "rejected_rows.jsonl"
"""Name of the file in the run's folder; it has a line for each rejected row."""
_SHOWN = 20
_MOST_THREADS = 16


@dataclass(frozen=True)
class Rejected:
    """A row that is left out."""

    index: int
    """Index among the rows of all files, from 0; with ``train_max_samples``, among the selected ones."""
    row: str
    """``extra_info.id``, or "unknown"."""
    source: str
    reasons: tuple[str, ...]


class TooManyRejected(ValueError):
    """More rows were rejected than ``data.max_rejected_share`` allows."""


def reject(records: Iterable[dict[str, Any]], check: Callable[[dict[str, Any]], list[Fault]]) -> Iterator[Rejected]:
    """The rows that have a fault, in order.

    Args:
        records: rows as stored in the parquet files, with images as bytes or file names.
        check: finds the faults of a row; called from several threads.
    """

    def named(record: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
        try:
            reasons = tuple(fault.what for fault in check(record))
        except MemoryError:
            raise
        except Exception as error:  # a row of a form that no check expects
            reasons = (f"the row cannot be read ({type(error).__name__}: {error})",)
        info = record.get("extra_info")
        row = info.get("id", "unknown") if isinstance(info, dict) else "unknown"
        return str(row), str(record.get("data_source")), reasons

    for index, (row, source, reasons) in enumerate(map_in_order(named, records, usable_cores(_MOST_THREADS))):
        if reasons:
            yield Rejected(index, row, source, reasons)


def report(rejected: Sequence[Rejected], rows: int, files: Sequence[str], share: float) -> None:
    """Print the number of rejected rows, and the first of them.

    Args:
        rejected: the rejected rows.
        rows: number of all rows.
        files: their files.
        share: ``data.max_rejected_share``.

    Raises:
        TooManyRejected: there are more than the setting allows.
    """
    if not rejected:
        return
    lines = [f"{len(rejected):,} of {rows:,} rows of {', '.join(files)} are rejected:"]
    lines += [f"  row {one.index} (id {one.row}): {'; '.join(one.reasons)}" for one in rejected[:_SHOWN]]
    if os.environ.get("RANK", "0") == "0":  # one of the SFT trainer's processes prints for all
        print("\n".join(lines), flush=True)
    if not may_leave_out(len(rejected), rows, share):
        raise TooManyRejected(
            f"{len(rejected):,} of {rows:,} rows are rejected, more than data.max_rejected_share={share:g}."
            " Fix: prepare the file again, or raise data.max_rejected_share"
        )


def save_rejected(rejected: Sequence[tuple[str, Rejected]], folder: Path) -> None:
    """Write rejected rows, each with its split, to the run's folder; no file if there are none."""
    path = folder / FILE_NAME
    if not rejected:
        path.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"split": split, **asdict(one)}) + "\n" for split, one in rejected]
    replace_text(path, "".join(lines))
