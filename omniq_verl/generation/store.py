"""Store finished items of a long job on disk, each once, so that a killed job can resume.

A folder has ``config.json`` (what was asked, so that two jobs are never mixed) and one ``.jsonl`` file per start, with
a line for each finished item. A last line torn by a kill is ignored.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from omniq_verl.data.files import file_digest, replace_text

if TYPE_CHECKING:
    from omniq_verl.data.row_refs import RowRef


class StoreInUse(RuntimeError):
    """Another job is writing to the folder."""


class OtherConfig(ValueError):
    """The folder holds results of other settings."""


class Store:
    """Records with a ``key``, appended by one job at a time.

    Args:
        folder: created if missing.
        config: everything on which the records depend: numbers, texts, lists and mappings.
        run: folder of the whole run, if it has other files that depend on the records or on ``config``; messages then
            advise to delete it. None: ``folder`` can be deleted alone.

    Raises:
        StoreInUse: another process has it open.
        OtherConfig: its records belong to another ``config``; the message names the differences.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], run: Path | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._run = folder, run or folder
        self._lock = open(folder / "lock", "a")  # noqa: SIM115  held until close() or the end of the process
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StoreInUse(f"{folder} is being written by another run; wait for it or name another folder") from None
        self.keys = {record["key"] for record in read_store(folder)}
        try:
            _claim(folder / "config.json", json.loads(json.dumps(config)), bool(self.keys), self._run)
        except OtherConfig:
            self._lock.close()
            raise
        self._out = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
        self._lock.close()

    def check_files(self, refs: Iterable["RowRef"]) -> dict[str, str]:
        """Check that records of these rows are about these data files, and remember the content of the files.

        A file may be moved, and files may be added. Images that they only name are not checked.

        Returns:
            The digest of each file, by its path.

        Raises:
            OtherConfig: a file has changed since records about it were finished, or has rows of the same keys as the
                records of another file.
        """
        path = self.folder / "files.json"
        known = json.loads(path.read_bytes()) if self.keys and path.exists() else {}
        finished = {}  # for each file one of its rows that has a record, if there is any
        for ref in refs:
            finished[ref.file] = finished.get(ref.file) or (ref.key if ref.key in self.keys else None)
        now = {name: file_digest(Path(name)) for name in sorted(finished)}
        fix = f"Fix: give another folder, or delete {self._run}"
        if changed := [name for name, digest in now.items() if known.get(name, digest) != digest]:
            raise OtherConfig(
                f"{changed[0]} was rewritten after {self.folder} was started: what is there belongs to other rows."
                f" {fix}"
            )
        other = [name for name, digest in now.items() if finished[name] and digest not in known.values()]
        if known and other:
            raise OtherConfig(
                f"{self.folder} has a result for {finished[other[0]]} that belongs to another file"
                f" ({', '.join(sorted(known)[:3])}), not to {other[0]}. {fix}"
            )
        replace_text(path, json.dumps({**known, **now}, indent=2) + "\n")
        return now

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Save records permanently, except those whose key already exists."""
        new = {record["key"]: record for record in records if record["key"] not in self.keys}
        if not new:
            return
        if self._out is None:
            number = 1 + max((int(path.stem) for path in _parts(self.folder)), default=0)
            self._out = open(self.folder / f"{number:04d}.jsonl", "xb")  # noqa: SIM115  closed by close()
        # ASCII only: an answer may contain a lone surrogate, which UTF-8 cannot encode.
        self._out.write(b"".join(json.dumps(record).encode() + b"\n" for record in new.values()))
        self._out.flush()
        os.fsync(self._out.fileno())
        self.keys |= new.keys()


def known_files(folder: Path) -> dict[str, str] | None:
    """The digests that ``Store.check_files`` has stored, by path; None if there are none."""
    path = folder / "files.json"
    return json.loads(path.read_bytes()) if path.exists() else None


def read_store(folder: Path) -> Iterator[dict[str, Any]]:
    """All records, each key once, in the order of completion."""
    seen = set()
    for path in _parts(folder):
        with open(path, "rb") as lines:
            for line in lines:
                record = _record(line)
                if record is not None and record["key"] not in seen:
                    seen.add(record["key"])
                    yield record


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.jsonl") if path.stem.isdecimal())


def _claim(path: Path, config: dict[str, Any], begun: bool, run: Path) -> None:
    """Write the settings, or compare them if records have ``begun``: records of different settings must not mix."""
    before = _read_config(path) if begun else None
    if before is None:
        replace_text(path, json.dumps(config, indent=2) + "\n")
    elif named := differences(before, config):
        fix = f"give another name, or delete {run}"
        raise OtherConfig(f"{path.parent} was started with other settings ({named}). Fix: {fix}")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, with both values; empty if there are none."""
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in differing)


def _read_config(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
