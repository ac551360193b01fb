"""Mix prepared data sets into one training set, with a given number of rows of each, in one shuffled order.

The choice of rows and their order depend only on the seed and the rows' ids, not on how a data set is split into files.
A smaller number selects a subset of the rows that a larger number selects.

Images are large, so rows are chosen by their ids. Then each file is read once, row group by row group, and its chosen
rows are copied to a temporary file. The mix is written from there in the shuffled order. So memory holds only one row
group at a time, but the disk temporarily holds the mix twice.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

import omniq_verl
from omniq_verl.console import counted
from omniq_verl.data.rows import schema
from omniq_verl.preparation.card import split_of, write_card
from omniq_verl.preparation.readers import draw
from omniq_verl.preparation.shards import has_room, write_groups

PRESETS: dict[str, dict[str, int]] = {
    "omniquality_r": {"ava": 10_000, "evalmuse": 10_000, "koniq": 7_000},
    "q_insight": {"koniq": 7_000, "dq495k": 7_000},
}
"""Joint training sets in the papers: OmniQuality-R sec. 4.1, Q-Insight sec. 4.1."""


class MixError(ValueError):
    """A data set cannot be mixed; the message names the folder and the fix."""


@dataclass(frozen=True, slots=True)
class RowRef:
    """A row and its position."""

    key: str
    """Task and id of the row; two tasks may ask about the same image."""
    path: Path
    number: int
    """Index of the row in its file."""


@dataclass(frozen=True)
class Part:
    """The training rows of a prepared data set."""

    folder: Path
    card: dict[str, Any]
    refs: list[RowRef]
    embedded: bool


@dataclass(frozen=True)
class Plan:
    """A mix before any image is read."""

    parts: dict[str, Part]
    rows: dict[str, int]
    """Number of rows chosen from each data set."""
    order: list[RowRef]
    columns: pa.Schema


def mix(plan: Plan, out: Path, seed: int, shard_rows: int, console: Console) -> dict[str, Any]:
    """Write a mix as ``train.parquet``, or ``train-00000-of-00003.parquet`` and so on; returns its card.

    Args:
        plan: from ``plan_mix`` with the same seed.
        out: folder for the files.
        seed: recorded in the card.
        shard_rows: rows per file.
        console: shows the progress bars; a log gets a line each minute.

    Raises:
        MixError: ``out`` contains something other than a mix.
    """
    _clear(out, plan)
    # A card without files marks the folder as belonging to a mix, so a killed run can start again.
    write_card(out, _card(plan, {}, seed), [])
    count = -(-len(plan.order) // shard_rows)
    names = [f"train-{n:05d}-of-{count:05d}.parquet" for n in range(count)] if count > 1 else ["train.parquet"]
    with TemporaryFile(dir=out) as file:
        spool = Spool(file, plan.columns)
        with counted("choosing", len(plan.order), console) as spool.moved:
            for path, refs in _by_file(plan.order):
                _write_file(path, refs, spool)
        with counted("writing", len(plan.order), console) as spool.moved:
            files = {
                name: _write(spool, plan.order, number * shard_rows, shard_rows, out / name)
                for number, name in enumerate(names)
            }
    return write_card(out, _card(plan, files, seed), [])


def plan_mix(root: Path, wanted: Mapping[str, int], seed: int, all_if_fewer: bool = False) -> Plan:
    """Choose rows and their order.

    Args:
        root: folder with the prepared data sets.
        wanted: number of rows of each data set, by the name of its folder.
        seed: seed of choice and order.
        all_if_fewer: whether to take all rows of a data set that has fewer than wanted.

    Raises:
        MixError: a data set does not exist, has too few rows, or cannot be combined with the others.
    """
    parts = {name: _read_part(root / name) for name in wanted}
    if len({part.embedded for part in parts.values()}) > 1:
        outside = ", ".join(name for name, part in parts.items() if not part.embedded)
        raise MixError(f"some hold images, others ({outside}) names of files. Fix: prepare all with the same --images")
    _reject_twice(parts)
    chosen = {name: _choose(parts[name], count, seed, all_if_fewer) for name, count in wanted.items()}
    order = [ref for refs in chosen.values() for ref in refs]
    order.sort(key=lambda ref: (draw(seed, "order", ref.key), ref.key))
    rows = {name: len(refs) for name, refs in chosen.items()}
    return Plan(parts, rows, order, schema(all(part.embedded for part in parts.values())))


def validation_files(plan: Plan) -> list[Path]:
    """Return the validation files of the parts, which are not copied. A joint run validates on all of them."""
    return [
        part.folder / name for part in plan.parts.values() for name in part.card["files"] if split_of(name) == "val"
    ]


def _read_part(folder: Path) -> Part:
    card = _read_card(folder)
    if not card or "parts" in card:
        what = "it is a mix itself" if card else "there is no prepared data set"
        raise MixError(f"{folder}: {what}. Fix: write one there with omniq data")
    files = {folder / name: about for name, about in card["files"].items() if split_of(name) == "train"}
    if not files:
        raise MixError(f"{folder}: it has no training rows. Fix: see how its script splits")
    refs, forms = [], set()
    for path, about in files.items():
        found, embedded = _read_ids(path)
        if not isinstance(about, dict) or about["rows"] != len(found):
            raise MixError(f"{path}: its rows are not those of the card. Fix: prepare the data set again")
        refs += found
        forms.add(embedded)
    return Part(folder, card, refs, forms == {True})


def _read_card(folder: Path) -> dict[str, Any]:
    """Read a card; empty if there is none."""
    try:
        card = json.loads((folder / "dataset_card.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return card if isinstance(card, dict) and isinstance(card.get("files"), dict) else {}


def _read_ids(path: Path) -> tuple[list[RowRef], bool]:
    """Return the position of every row, and whether images are embedded in the rows."""
    if not path.is_file():
        raise MixError(f"{path}: the card names it, but it is not there. Fix: prepare the data set again")
    with pq.ParquetFile(path) as file:
        forms = [embedded for embedded in (True, False) if file.schema_arrow.equals(schema(embedded))]
        if not forms:
            raise MixError(f"{path}: its columns are not those of this version. Fix: prepare the data set again")
        table = file.read(columns=["ability", "extra_info.id"])
    tasks = table["ability"].to_pylist()
    # pyarrow creates its compute functions at import, so pyright does not know them.
    ids = pc.struct_field(table["extra_info"], "id").to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    keys = (f"{task}/{row_id}" for task, row_id in zip(tasks, ids, strict=True))
    return [RowRef(key, path, number) for number, key in enumerate(keys)], forms[0]


def _reject_twice(parts: Mapping[str, Part]) -> None:
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for ref in part.refs:
            if ref.key in seen:
                raise MixError(f"{ref.key} is in {seen[ref.key]} and in {name}. Fix: take one of the two")
            seen[ref.key] = name


def _choose(part: Part, count: int, seed: int, all_if_fewer: bool) -> list[RowRef]:
    if count > len(part.refs) and not all_if_fewer:
        raise MixError(
            f"{part.folder}: {count:,} rows are wanted, but it has {len(part.refs):,} for training."
            " Fix: take fewer, or all with --all-if-fewer"
        )
    return sorted(part.refs, key=lambda ref: (draw(seed, "choice", ref.key), ref.key))[:count]


def _clear(out: Path, plan: Plan) -> None:
    """Create the folder. Files of an earlier mix are deleted; anything else is an error."""
    if out.resolve() in {part.folder.resolve() for part in plan.parts.values()}:
        raise MixError(f"{out}: it is one of the data sets to be mixed. Fix: give another folder with --out")
    files = sorted(out.glob("*.parquet"))
    if files and "parts" not in _read_card(out):
        raise MixError(
            f"{out}: it holds {files[0].name}, which does not belong to a mix. Fix: give an empty folder with --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    for path in [*files, *out.glob("train*.part")]:
        path.unlink()


def _by_file(order: Iterable[RowRef]) -> list[tuple[Path, list[RowRef]]]:
    files: dict[Path, list[RowRef]] = {}
    for ref in sorted(order, key=lambda ref: ref.number):
        files.setdefault(ref.path, []).append(ref)
    return sorted(files.items())


class Spool:
    """A file of rows that can be read back one at a time, in any order.

    Args:
        file: an empty file, open for writing and reading.
        columns: schema of the rows.
    """

    def __init__(self, file: BinaryIO, columns: pa.Schema):
        self._file, self.columns = file, columns
        self.moved: Callable[[], object] = lambda: None
        """Called after each row that is written or read."""
        self._where: dict[RowRef, tuple[int, int]] = {}
        self._end = 0

    def put(self, ref: RowRef, row: pa.RecordBatch) -> None:
        size = self._file.write(row.serialize())
        self._where[ref] = self._end, size
        self._end += size
        self.moved()

    def size(self, ref: RowRef) -> int:
        """Return the size of the row in bytes."""
        return self._where[ref][1]

    def get(self, ref: RowRef) -> pa.RecordBatch:
        start, size = self._where[ref]
        self._file.seek(start)
        self.moved()
        return pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), self.columns)


def _write_file(path: Path, refs: Sequence[RowRef], spool: Spool) -> None:
    """Copy these rows of a file, in ascending order, to the spool."""
    numbers, first = [ref.number for ref in refs], 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            here = refs[bisect_left(numbers, first) : bisect_left(numbers, end)]
            if here:
                table = file.read_row_group(group).combine_chunks()
                for ref in here:
                    spool.put(ref, table.slice(ref.number - first, 1).to_batches()[0])
            first = end


def _write(spool: Spool, order: Sequence[RowRef], first: int, count: int, path: Path) -> dict[str, Any]:
    """Write one file, which appears under its name only when complete. Returns its number of rows and its checksum."""
    refs = order[first : first + count]
    return {"rows": len(refs), "xxh128": write_groups(path, spool.columns, _tables(spool, refs, first))}


def _tables(spool: Spool, refs: Sequence[RowRef], first: int) -> Iterator[pa.Table]:
    """Yield row groups with these rows, numbered from ``first``."""
    for group in _groups(refs, spool):
        yield _numbered(pa.Table.from_batches(map(spool.get, group)), first)
        first += len(group)


def _groups(refs: Iterable[RowRef], spool: Spool) -> Iterator[list[RowRef]]:
    group: list[RowRef] = []
    size = 0
    for ref in refs:
        if not has_room(len(group), size, spool.size(ref)):
            yield group
            group, size = [], 0
        group.append(ref)
        size += spool.size(ref)
    if group:
        yield group


def _numbered(rows: pa.Table, first: int) -> pa.Table:
    """Number the rows by their position in the mix."""
    info = rows["extra_info"].combine_chunks()
    index = pa.array(range(first, first + len(rows)), pa.int64())
    fields = list(info.type)
    parts = [index if field.name == "index" else info.field(field.name) for field in fields]
    ref = rows.schema.get_field_index("extra_info")
    return rows.set_column(ref, rows.schema.field(ref), pa.StructArray.from_arrays(parts, fields=fields))


def _card(plan: Plan, files: Mapping[str, Any], seed: int) -> dict[str, Any]:
    rows = len(plan.order)
    return {
        "data_source": sorted({part.card["data_source"] for part in plan.parts.values()}),
        "task": dict(Counter(ref.key.partition("/")[0] for ref in plan.order)),
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "rows": rows,
        "seed": seed,
        "parts": {name: _about(part, plan.rows[name], rows) for name, part in plan.parts.items()},
        "files": dict(files),
    }


def _about(part: Part, rows: int, of_all: int) -> dict[str, Any]:
    kept = {key: part.card.get(key) for key in ("data_source", "task", "made_by", "label_map", "options")}
    kept |= {"images": part.card["images"]} if "images" in part.card else {}
    files = {name: about["xxh128"] for name, about in part.card["files"].items() if split_of(name) == "train"}
    return {"rows": rows, "of": len(part.refs), "share": round(rows / of_all, 6), **kept, "files": files}
