"""Findings about one data file, and how they are stored."""

import os
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xxhash import xxh3_64_intdigest

from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.prompt_length import Length
from omniq_verl.doctor.rows import Fault
from omniq_verl.tasks import TASKS

_SHOWN_PER_KIND = 5
DROPPED = "dropped"
"""Kind of the faults that make verl drop the row instead of stopping."""


def each_once(reports: "Sequence[FileReport]") -> "list[FileReport]":
    """Return the reports without duplicates, for files used for both training and validation."""
    return list({os.path.realpath(report.path): report for report in reversed(reports)}.values())[::-1]


@dataclass(frozen=True)
class RowFindings:
    """Findings about one row, without its images."""

    name: str
    """The row's id, or "unknown"."""
    key: int | None
    """A hash of the row's task and id; None if it has no id."""
    source: str | None
    faults: list[Fault]
    length: Length | int | None
    split: str | None
    reads_files: bool
    """Whether an image of the row is a separate file, or its task is user-defined."""


def row_findings(record: dict[str, Any], faults: list[Fault], length: Length | int | None) -> RowFindings:
    """Collect what a file's report needs to know about a row."""
    info = record.get("extra_info")
    info = info if isinstance(info, dict) else {}
    named = info.get("id") is not None
    source = record.get("data_source")
    return RowFindings(
        name=str(info.get("id", "unknown")),
        key=xxh3_64_intdigest(f"{info.get('task')}/{info['id']}".encode(errors="replace")) if named else None,
        source=source if isinstance(source, str) else None,
        faults=faults,
        length=length,
        split=str(info["split"]).strip().lower() if info.get("split") is not None else None,
        reads_files=_is_outside(info.get("task"))
        or any(isinstance(image, dict) and "bytes" not in image for image in record.get("images") or []),
    )


def _is_outside(task: object) -> bool:
    return isinstance(task, str) and task not in TASKS


@dataclass
class FileReport:
    """Findings about one file. Row indices start at 0, as in ``extra_info.index``."""

    path: str
    rows: int = 0
    longest_prompt: int = 0
    """Length of the longest prompt in tokens; 0 if none were counted."""
    problems: list[Problem] = field(default_factory=list)
    keys: set[int] = field(default_factory=set, repr=False)
    """Hashes of the rows' tasks and ids."""
    sources: set[str] = field(default_factory=set)
    """The ``data_source`` values of its rows."""
    bad_rows: int = 0
    """Number of rows with a fault."""
    image_tokens: int = 0
    """Total number of image tokens of all rows; 0 if none were counted."""
    reads_files: bool = False
    """Whether images are separate files or tasks are user-defined. The parquet file alone then does not determine this
    report."""
    dropped: int = 0
    """Rows that verl will drop."""
    test_rows: int = 0
    """Rows of the split ``test``."""
    _found: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def add(self, number: int, row: RowFindings) -> None:
        """Add the findings about a row. Only the first few faults of each kind are listed; the others are counted."""
        if row.key is not None:
            self.keys.add(row.key)
        if row.source is not None:
            self.sources.add(row.source)
        self.reads_files |= row.reads_files
        self.test_rows += row.split == "test"
        if isinstance(row.length, Length):
            self.image_tokens += row.length.images
        total = row.length.total if isinstance(row.length, Length) else row.length
        self.longest_prompt = max(self.longest_prompt, total or 0)
        self.bad_rows += any(fault.kind != DROPPED for fault in row.faults)
        self.dropped += any(fault.kind == DROPPED for fault in row.faults)
        for fault in row.faults:
            if fault.kind == DROPPED:
                continue
            self._found[fault.kind] += 1
            if self._found[fault.kind] <= _SHOWN_PER_KIND:
                where = f"{self.path}, row {number} (id {row.name})"
                self.problems.append(Problem(where, fault.what, fault.fix, row=True))

    def add_rest(self) -> None:
        """Report how many faults were only counted."""
        for kind, found in self._found.items():
            if found > _SHOWN_PER_KIND:
                rest = f"and {found - _SHOWN_PER_KIND:,} more rows with such a fault ({kind})"
                self.problems.append(Problem(self.path, rest, "as above", row=True))

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON; ``from_json`` restores an equal report from them."""
        return {
            "rows": self.rows,
            "longest_prompt": self.longest_prompt,
            "image_tokens": self.image_tokens,
            "bad_rows": self.bad_rows,
            "problems": [[problem.where, problem.what, problem.fix, problem.row] for problem in self.problems],
            "keys": array("Q", sorted(self.keys)).tobytes().hex(),
            "sources": sorted(self.sources),
            "dropped": self.dropped,
            "test_rows": self.test_rows,
        }

    @classmethod
    def from_json(cls, path: str, values: dict[str, Any]) -> "FileReport":
        """Create a report from the values of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: the values do not have that form.
        """
        keys = array("Q", bytes.fromhex(values["keys"]))
        return cls(
            path=path,
            rows=int(values["rows"]),
            longest_prompt=int(values["longest_prompt"]),
            bad_rows=int(values["bad_rows"]),
            problems=[Problem(where, what, fix, bool(row)) for where, what, fix, row in values["problems"]],
            keys=set(keys),
            sources=set(values["sources"]),
            image_tokens=int(values["image_tokens"]),
            dropped=int(values["dropped"]),
            test_rows=int(values["test_rows"]),
        )
