"""Write the items of a reader as parquet, with rejects, a card and a histogram."""

import json
import multiprocessing
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from rich.console import Console

import omniq_verl
from omniq_verl.console import progress_bar
from omniq_verl.data.image_size import UNBOUNDED, ImageSize
from omniq_verl.data.names import composed, escape_halves, is_utf8, shown_name
from omniq_verl.data.rows import Row
from omniq_verl.preparation.card import write_card
from omniq_verl.preparation.file_index import BadPath, FileIndex
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.shards import (
    Change,
    Planned,
    Reject,
    Shard,
    Written,
    claim_folder,
    read_sidecar,
    split_into_shards,
    write_shard,
    write_whole,
)
from omniq_verl.tasks import Scale, find_task


@dataclass(frozen=True)
class Item:
    """What a label file states about one image."""

    name: str
    """The image's name, with as many folders as the label file gives."""
    split: str
    raw_score: float | None = None
    distortion: str | None = None
    severity: str | None = None
    text: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None
    """Why the label cannot be used, if the reader found a fault."""
    version: str = ""
    """Distinguishes several rows of one image; ends the row's id."""
    change: Change | None = None
    """A change to the image before it becomes part of the row."""


@dataclass(frozen=True)
class Source:
    """A data set as requested: everything its rows depend on, except for the images."""

    name: str
    """The rows' ``data_source``."""
    task: str
    items: Iterable[Item]
    labels: LabelMap | None = None
    """None for tasks whose answer is not a score."""
    scale: Scale | None = None
    """None selects the task's own scale."""
    folders: tuple[str, ...] = ()
    """Folders that are searched first, if several images have the same name."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For the card: where splits and labels come from, licence, options."""
    size: ImageSize = UNBOUNDED
    """Bounds that larger images are shrunk to."""
    expected_rows: int | None = None
    """Number of items in the owners' label file; None if they do not state it."""


@dataclass(frozen=True)
class BuildOptions:
    """How a data set is written; none of these options changes a row."""

    workers: int = 1
    shard_rows: int = 4096
    embed: bool = True
    decode: bool = False
    engine: str = "local"


def prepare(
    source: Source, index: FileIndex, out: Path, build_options: BuildOptions, console: Console
) -> dict[str, Any]:
    """Write a data set; returns its card.

    Shards that an earlier run wrote with the same labels, options and image files are reused.

    Args:
        source: what to write.
        index: index of the folder with the images.
        out: folder for ``<split>.parquet``, ``rejects.jsonl``, ``dataset_card.json`` and ``scores.png`` (or
            ``classes.png``).
        build_options: workers and shards.
        console: shows the progress bar.

    Raises:
        FileExistsError: ``out`` holds another data set, or files with these names that this script did not write.
    """
    return write(source, *plan(source, index), out, build_options, console)


def write(
    source: Source,
    planned: Mapping[str, Sequence[Planned]],
    rejects: Sequence[Reject],
    out: Path,
    build_options: BuildOptions,
    console: Console,
) -> dict[str, Any]:
    """Like ``prepare``, for rows that are already planned.

    Args:
        source: facts for the card; its items are not read.
        planned: rows by split.
        rejects: items rejected during planning.
        out: the folder, as in ``prepare``.
        build_options: workers and shards.
        console: shows the progress bar.
    """
    out = out.resolve()  # rows may name files in it
    if not is_utf8(out):
        raise BadPath(f"{shown_name(out)} is not UTF-8, which parquet files need. Fix: give another folder with --out")
    shards = [shard for split, rows in planned.items() for shard in _shards(rows, out, split, build_options)]
    claim_folder(out, shards, source.name)
    written = _write(shards, build_options, console)
    rejects = [*rejects, *(reject for one in written for reject in one.rejects)]
    _write_rejects(out / "rejects.jsonl", rejects)
    return write_card(out, _card(source, shards, written, rejects), [one.scores for one in written])


def plan(source: Source, index: FileIndex) -> tuple[dict[str, list[Planned]], list[Reject]]:
    """Return the rows of each split, in the label file's order, and the items that cannot become rows."""
    planned: dict[str, list[Planned]] = {}
    rejects, seen = [], set()
    for item in source.items:
        row_id = f"{source.name}/{composed(escape_halves(str(item.name)))}{item.version}"
        try:
            found = _planned(source, item, row_id, index, seen)
        except _Rejected as error:
            rejects.append(Reject(row_id, str(item.name), str(error)))
        else:
            planned.setdefault(item.split, []).append(found)
        seen.add(row_id)
    return planned, rejects


class _Rejected(ValueError):
    """Why an item cannot become a row; begins with the kind of the reason."""


def _planned(source: Source, item: Item, row_id: str, index: FileIndex, seen: set[str | tuple[Path, str]]) -> Planned:
    if fault := item.fault or _fault(item):
        raise _Rejected(f"label: {fault}")
    try:
        path = index.find(item.name, *source.folders)
    except BadPath as error:
        raise _Rejected(f"path: {error}") from None
    if path is None:
        raise _Rejected("image: there is no such file")
    # An inconsistent label file may name the same image twice, with other folders or in another case.
    if row_id in seen or (path, item.version) in seen:
        raise _Rejected("duplicate: the label file names this image again")
    seen.add((path, item.version))
    try:
        row = to_row(source, item, row_id)
    except ValueError as error:
        raise _Rejected(f"label: {str(error).removeprefix(f'row {row_id}: ')}") from None
    return Planned(row, path, str(path).removeprefix(f"{index.root}/"), item.change, size=source.size)


def _fault(item: Item) -> str | None:
    if not isinstance(item.name, str):
        return f"the image's name is {item.name!r}, no text"
    if not re.fullmatch("[a-z][a-z0-9_]*", str(item.split)):
        return f"{item.split!r} is not the name of a split"
    return None


def to_row(source: Source, item: Item, row_id: str) -> Row:
    """Return the row of an item.

    Raises:
        ValueError: its label is outside the label map's bounds, or is not a label of the task.
    """
    labels = source.labels
    mapped = {} if labels is None else labels.fields(item.raw_score, source.task, source.scale)
    return Row(
        data_source=source.name,
        row_id=row_id,
        task=source.task,
        split=item.split,
        distortion=item.distortion,
        severity=item.severity,
        scale=source.scale,
        text=item.text,
        details=item.details,
        **mapped,
    )


def _shards(rows: Sequence[Planned], out: Path, split: str, build_options: BuildOptions) -> list[Shard]:
    return split_into_shards(
        rows, out, split, build_options.shard_rows, decode=build_options.decode, embed=build_options.embed
    )


def _write(shards: list[Shard], build_options: BuildOptions, console: Console) -> list[Written]:
    marks = {shard.path: shard.mark() for shard in shards}
    done = {shard.path: found for shard in shards if (found := read_sidecar(shard, marks[shard.path]))}
    left = [shard for shard in shards if shard.path not in done]
    with progress_bar(console, "rows") as bar:
        total = sum(len(shard.items) for shard in shards)
        task = bar.add_task("images", total=total, completed=total - sum(len(shard.items) for shard in left))
        for shard, written in ENGINES[build_options.engine](left, marks, build_options.workers):
            done[shard.path] = written
            bar.advance(task, len(shard.items))
    return [done[shard.path] for shard in shards]


Engine = Callable[[Sequence[Shard], dict[Path, str], int], Iterator[tuple[Shard, Written]]]


def _local(shards: Sequence[Shard], marks: dict[Path, str], workers: int) -> Iterator[tuple[Shard, Written]]:
    if workers == 1 or len(shards) < 2:
        yield from ((shard, write_shard(shard, marks[shard.path])) for shard in shards)
        return
    # Workers are spawned: a thread of this process draws a progress bar, and a fork could wait forever for its locks.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=fresh, initializer=_end_with_parent) as pool:
        try:
            futures = {pool.submit(write_shard, shard, marks[shard.path]): shard for shard in shards}
            yield from ((futures[future], future.result()) for future in as_completed(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # otherwise all other shards are written before the error appears
            raise


def _end_with_parent() -> None:
    """End workers together with their parent: after a kill they would keep writing next to a new run."""
    process = multiprocessing.parent_process()
    assert process is not None  # this is the initialiser of a worker
    parent = process.sentinel

    def watch() -> None:
        connection.wait([parent])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ray(shards: Sequence[Shard], marks: dict[Path, str], _workers: int) -> Iterator[tuple[Shard, Written]]:
    """Write shards with Ray Data; ``out`` and ``root`` have to be the same folders on every node."""
    import ray

    if not shards:  # Ray Data cannot build an empty data set
        return

    def write(entry: dict[str, Any]) -> dict[str, int]:
        number, shard, mark = entry["item"]
        write_shard(shard, mark)
        return {"number": number}

    entries = [(number, shard, marks[shard.path]) for number, shard in enumerate(shards)]
    for entry in ray.data.from_items(entries, override_num_blocks=len(entries)).map(write).iter_rows():
        shard = shards[entry["number"]]
        written = read_sidecar(shard, marks[shard.path])
        if written is None:
            raise FileNotFoundError(f"{shard.path} was written on another node, but cannot be seen from here")
        yield shard, written


ENGINES: dict[str, Engine] = {"local": _local, "ray": _ray}


def _write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    # ASCII only, because some readers treat certain characters in names as line ends.
    lines = ({**asdict(reject), "image": shown_name(reject.image)} for reject in rejects)
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _card(
    source: Source, shards: Sequence[Shard], written: Sequence[Written], rejects: Sequence[Reject]
) -> dict[str, Any]:
    reasons = Counter(reject.reason.split(":")[0] for reject in rejects)
    rows = sum(one.rows for one in written)
    files = {
        shard.path.name: {"rows": one.rows, "xxh128": one.xxh128} for shard, one in zip(shards, written, strict=True)
    }
    classes = sum((Counter(one.classes) for one in written), Counter())
    counted = "choices" if find_task(source.task).asks_for == "choice" else "classes"
    return {
        "data_source": source.name,
        "task": source.task,
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "rows": rows,
        "rejects": {"all": len(rejects), **dict(sorted(reasons.items()))},
        "label_map": None if source.labels is None else source.labels.card(source.task, source.scale),
        "label_rows": {"found": rows + len(rejects), "expected": source.expected_rows},
        **source.facts,
        **({"images": {**asdict(source.size), "shrunk": sum(one.shrunk for one in written)}} if source.size else {}),
        **({counted: dict(sorted(classes.items()))} if classes else {}),
        "files": files,
    }
