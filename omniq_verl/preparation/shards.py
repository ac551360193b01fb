"""Write items as parquet files, in shards. Workers write them in parallel, and a restarted run keeps finished shards.

A shard is a fixed range of the label file's items, so its bytes depend only on the data: not on the number or speed of
the workers, or on earlier kills. It appears under its final name only when complete. A sidecar in `.shards/` records
the outcome.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128

import omniq_verl
from omniq_verl.data.image_size import UNBOUNDED, ImageSize
from omniq_verl.data.images import BadImage, check_image, read_image
from omniq_verl.data.rows import Row, schema
from omniq_verl.preparation.stored_images import StoredImage
from omniq_verl.tasks import outside_marks

PARQUET: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
"""Images are already compressed, and statistics of their bytes are useless."""
GROUP_BYTES = 4 * 2**20
"""Bytes of images per row group, and so the memory of a writer. Eight times as much would exceed the CPU caches."""
GROUP_ROWS = 512
_SUMMARIES = ("dataset_card.json", "rejects.jsonl", "scores.png", "classes.png")

Change = Callable[[bytes], bytes]
"""Picklable transform of a checked image. Its ``repr`` must name everything that the result depends on."""


@dataclass(frozen=True)
class Planned:
    """A row without the bytes of its images, and where these are stored."""

    row: Row
    path: Path | StoredImage
    name: str
    """The file's name, with all folders below the root."""
    change: Change | None = None
    """A change applied to each image; None for no change."""
    others: tuple[Path | StoredImage, ...] = ()
    """The further images of a comparison, in the question's order."""
    size: ImageSize = UNBOUNDED
    """Bounds that larger images are shrunk to, before ``change``."""

    def state(self) -> tuple[Any, ...]:
        """Return a value that changes if the row would change: it covers the label, and the files' sizes and times."""
        state = (self.row, self.name, *map(_state, (self.path, *self.others)))
        state = (*state, self.size) if self.size else state
        return state if self.change is None else (*state, self.change)


@dataclass(frozen=True)
class Reject:
    """A rejected item and the reason."""

    row_id: str
    image: str
    """The file below the root, or the name in the label file if no file was found."""
    reason: str
    """Begins with its kind: ``label``, ``path``, ``image`` or ``duplicate``."""


@dataclass(frozen=True)
class Shard:
    """Consecutive items of one split."""

    path: Path
    first: int
    """Index of the first item within its split."""
    items: tuple[Planned, ...]
    decode: bool = False
    embed: bool = True

    @property
    def sidecar(self) -> Path:
        """File that records the outcome."""
        return self.path.parent / ".shards" / f"{self.path.name}.json"

    def mark(self) -> str:
        """Return a text that changes if the shard would: it covers labels, options, and sizes and times of images."""
        rows = [planned.state() for planned in self.items]
        named = [] if self.embed else [str(planned.path) for planned in self.items]
        marks = outside_marks({planned.row.task for planned in self.items})
        text = repr((omniq_verl.__version__, self.first, self.decode, rows, named, *marks.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _state(image: Path | StoredImage) -> tuple[Any, ...] | None:
    file, ref = (image, ()) if isinstance(image, Path) else (image.file, (image,))
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, *ref


@dataclass
class Written:
    """The outcome of writing a shard."""

    rows: int = 0
    scores: list[float] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    """Rows by distortion and severity, or by choice, if these are the labels."""
    rejects: list[Reject] = field(default_factory=list)
    shrunk: int = 0
    """Rows whose image was shrunk."""
    size: int = 0
    """Size of the file in bytes."""
    xxh128: str = ""
    """Checksum of the file, as ``xxh128sum`` prints it."""


def split_into_shards(items: Sequence[Planned], out: Path, split: str, size: int, **build_options: bool) -> list[Shard]:
    """Return the shards of a split: ``train.parquet``, or ``train-00000-of-00003.parquet`` and so on."""
    count = max(-(-len(items) // size), 1)
    names = [f"{split}-{n:05d}-of-{count:05d}.parquet" for n in range(count)] if count > 1 else [f"{split}.parquet"]
    return [
        Shard(out / name, number * size, tuple(items[number * size : (number + 1) * size]), **build_options)
        for number, name in enumerate(names)
    ]


def claim_folder(out: Path, shards: Sequence[Shard], data_source: str) -> None:
    """Prepare the folder for these shards. Other files of earlier runs are deleted.

    Raises:
        FileExistsError: the folder holds another data set, or a file with a shard's name that no earlier run wrote.
    """
    _reject_other_data(out, shards, data_source)
    (out / ".shards").mkdir(parents=True, exist_ok=True)
    ours = {shard.sidecar for shard in shards}
    for sidecar in (out / ".shards").glob("*.json"):
        if sidecar not in ours:
            (out / sidecar.stem).unlink(missing_ok=True)
            sidecar.unlink()
    unfinished = [path for folder in (".", ".shards", "converted") for path in (out / folder).glob("*.part")]
    for path in [*unfinished, *(out / name for name in _SUMMARIES)]:
        path.unlink(missing_ok=True)


def _reject_other_data(out: Path, shards: Sequence[Shard], data_source: str) -> None:
    if _data_source(out) not in (None, data_source):
        raise FileExistsError(f"{out} holds another data set. Fix: choose another folder with --out")
    for shard in shards:
        if shard.path.exists() and not shard.sidecar.exists():
            raise FileExistsError(f"{shard.path} was not made by this script. Fix: move it, or give another --out")


def _data_source(out: Path) -> str | None:
    try:
        return json.loads((out / "dataset_card.json").read_bytes())["data_source"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "unknown"


def read_sidecar(shard: Shard, mark: str) -> Written | None:
    """Return the outcome of the shard in an earlier run with the same mark; None if it has to be written."""
    try:
        stored = json.loads(shard.sidecar.read_text(encoding="utf-8"))
        if stored.pop("mark") != mark or stored["size"] != shard.path.stat().st_size:
            return None
        return Written(**{**stored, "rejects": [Reject(**reject) for reject in stored["rejects"]]})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_shard(shard: Shard, mark: str) -> Written:
    """Write a shard and its sidecar; runs in a worker."""
    # From now on the sidecar marks the file as ours, but it does not state an outcome yet.
    write_whole(shard.sidecar, b"{}")
    written = Written()
    written.xxh128 = write_groups(shard.path, schema(shard.embed), _tables(shard, written))
    written.size = shard.path.stat().st_size
    write_whole(shard.sidecar, json.dumps({"mark": mark, **asdict(written)}).encode())
    return written


def write_groups(path: Path, columns: pa.Schema, groups: Iterable[pa.Table]) -> str:
    """Write a parquet file atomically, with a row group for each table; returns its checksum."""
    unfinished = _unfinished(path)
    with _FileHash(unfinished) as hashed:
        with pq.ParquetWriter(unfinished, columns, **PARQUET) as writer:
            for group in groups:
                writer.write_table(group)
                hashed.catch_up()  # now, while the data is still in the CPU caches
        hashed.catch_up()
    os.replace(unfinished, path)
    return hashed.xxh128()


def has_room(rows: int, size: int, more: int) -> bool:
    """Return whether another row fits into a row group. A row larger than a group gets a separate group.

    Args:
        rows: rows in the group so far.
        size: bytes of those rows.
        more: bytes of the next row.
    """
    return not rows or (rows < GROUP_ROWS and size + more <= GROUP_BYTES)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    unfinished = _unfinished(path)
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


def _unfinished(path: Path) -> Path:
    # The name includes the process id, because a worker of a killed run may live on for a moment.
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _tables(shard: Shard, written: Written) -> Iterator[pa.Table]:
    """Yield the row groups of a shard, and record the outcome of its items in ``written``."""
    group = _Group(shard.embed)
    for number, planned in enumerate(shard.items, shard.first):
        try:
            found = [_image(ref, planned, shard) for ref in (planned.path, *planned.others)]
        except BadImage as bad:
            written.rejects.append(Reject(planned.row.row_id, planned.name, f"image: {bad}"))
            continue
        written.rows += 1
        _note(planned.row, written)
        images, before = [image for image, _ in found], [size for _, size in found if size]
        written.shrunk += bool(before)
        size = sum(map(len, images))
        if not has_room(len(group.records), group.size, size):
            yield group.table()
            group.clear()
        group.add(_sized(planned.row, before).record(number, *images))
    if group.records:
        yield group.table()


def _sized(row: Row, before: Sequence[tuple[int, int]]) -> Row:
    """Add the former sizes of images that were shrunk to the row."""
    return replace(row, details={**row.details, "shrunk_from": list(map(list, before))}) if before else row


def _image(ref: Path | StoredImage, planned: Planned, shard: Shard) -> tuple[bytes | str, tuple[int, int] | None]:
    """Return an image as stored in the row (bytes or file name), and its former size if it was shrunk."""
    before = None
    try:
        original = read_image(ref) if isinstance(ref, Path) else ref.read()
        data = check_image(original, shard.decode)
        if planned.size:
            data, before = planned.size.shrink(data)
        if planned.change is not None:
            data = planned.change(data)
    except BadImage as bad:
        raise BadImage(f"{ref.name}: {bad}" if planned.others else str(bad)) from None
    if shard.embed:
        return data, before
    return str(ref if data is original else _converted(shard.path.parent, data)), before


def _note(row: Row, written: Written) -> None:
    if row.score is not None:
        written.scores.append(row.score)
    else:
        name = row.choice or (f"{row.distortion} {row.severity}" if row.distortion else "null")
        written.classes[name] = written.classes.get(name, 0) + 1


def _converted(out: Path, data: bytes) -> Path:
    """Write a converted copy for rows that name their images. Its name is a hash of its content: never outdated."""
    copy = out / "converted" / f"{hashlib.sha256(data).hexdigest()[:32]}.png"
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        write_whole(copy, data)
    return copy


class _Group:
    """Rows that become one row group.

    The bytes of embedded images are copied side by side into memory that is reused for the next group: allocating
    fresh memory takes longer than the copy.
    """

    def __init__(self, embed: bool):
        self.schema = schema(embed)
        self.embed = embed
        self.records: list[dict[str, Any]] = []
        # numpy declares the buffer protocol for Python 3.12 and later.
        memory = np.empty(GROUP_BYTES if embed else 0, dtype=np.uint8)
        self._memory = memoryview(memory)  # pyright: ignore[reportArgumentType]
        self.clear()

    def clear(self) -> None:
        self.records = []
        self._ends, self._rows = [0], [0]  # image ends in bytes, row ends in images
        self._bytes: memoryview | bytes = self._memory

    @property
    def size(self) -> int:
        """Bytes of the embedded images."""
        return self._ends[-1]

    def add(self, record: dict[str, Any]) -> None:
        if self.embed:
            self._write_images([image["bytes"] for image in record.pop("images")])
        self.records.append(record)

    def _write_images(self, images: Sequence[bytes]) -> None:
        alone = sum(map(len, images)) > len(self._memory)  # too large for the buffer, so it gets its own group
        if alone:
            self._bytes = b"".join(images)  # joining a single image does not copy it
        for data in images:
            start = self.size
            if not alone:
                self._memory[start : start + len(data)] = data
            self._ends.append(start + len(data))
        self._rows.append(len(self._ends) - 1)

    def table(self) -> pa.Table:
        table = pa.Table.from_pylist(self.records, schema=self.schema)
        if not self.embed:
            return table
        ends = pa.py_buffer(np.array(self._ends, dtype=np.int32))
        data = pa.BinaryArray.from_buffers(pa.binary(), self._rows[-1], [None, ends, pa.py_buffer(self._bytes)])
        images = pa.ListArray.from_arrays(
            pa.array(self._rows, pa.int32()), pa.StructArray.from_arrays([data], ["bytes"])
        )
        ref = self.schema.get_field_index("images")
        return table.set_column(ref, self.schema.field(ref), images)


class _FileHash:
    """128-bit XXH3 of a file that is still being written. SHA-256 would take half as long as everything else."""

    def __init__(self, path: Path):
        path.touch()
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed by __exit__
        self._digest, self._memory = xxh3_128(), bytearray(2**18)

    def __enter__(self) -> "_FileHash":
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def catch_up(self) -> None:
        """Read what was written since the last call."""
        view = memoryview(self._memory)
        while count := self._file.readinto(self._memory):
            self._digest.update(view[:count])

    def xxh128(self) -> str:
        return self._digest.hexdigest()
