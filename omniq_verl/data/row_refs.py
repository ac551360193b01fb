"""References to rows of prepared files (file, row group, index), so that a job over a million images fits in memory."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omniq_verl.data.images import BadImage, load_image
from omniq_verl.data.prepared import BadRow, check_prompt, image_kind, named_errors, open_prepared, row_info
from omniq_verl.tasks import task_of

_COLUMNS = ("data_source", "extra_info", "prompt", "images")


@dataclass(frozen=True)
class RowRef:
    """The position of a row, and the values needed to select it."""

    key: str
    """``<task>/<id>``."""
    file: str
    group: int
    number: int
    """The row's position within its row group."""
    info: Mapping[str, Any]
    """The row's ``data_source``, id, split, task, label and scale."""


HELD_OUT = ("val", "valid", "validation", "dev", "eval", "test")
"""Splits that are never used for training, in lower case."""


def is_held_out(ref: RowRef) -> bool:
    """Whether the row's split is never used for training. A row without a split may be used."""
    return str(ref.info["split"]).strip().lower() in HELD_OUT


class HeldOutRows(ValueError):
    """The data contains rows that must not be used for training."""


class SameRow(ValueError):
    """Two rows have the same task and id."""


def list_rows(files: Sequence[Path]) -> list[RowRef]:
    """List all rows of the files, in order, without their images. A ``*`` in a name matches any characters.

    Raises:
        SameRow: two rows have the same task and id.
        ValueError: a file was not written by ``omniq data`` or has no rows, a row lacks a field (the message names
            file, row and field), or some files contain images and others file names.
    """
    refs: dict[str, RowRef] = {}
    files = list(expanded(files))
    check_same_images(files)
    for file in files:
        for ref in _row_refs(file):
            if other := refs.get(ref.key):
                raise SameRow(f"{ref.key} is in {named(other)} and in {named(ref)}. Fix: keep one of them")
            refs[ref.key] = ref
    return list(refs.values())


def limited_rows(files: Sequence[Path], limit: int | None = None) -> list[RowRef]:
    """Like ``list_rows``, but only the first ``limit`` rows of each file.

    Raises:
        ValueError: there are no rows; see ``list_rows``.
    """
    taken: Counter[str] = Counter()
    found = []
    for ref in list_rows(files):
        taken[ref.file] += 1
        if limit is None or taken[ref.file] <= limit:
            found.append(ref)
    if not found:
        raise ValueError("there are no rows. Fix: name prepared files, e.g. --data data/koniq/test.parquet")
    return found


def named(ref: RowRef) -> str:
    """Name a row in messages: its file and its row index."""
    with pq.ParquetFile(ref.file) as file:
        before = sum(file.metadata.row_group(group).num_rows for group in range(ref.group))
    return f"{ref.file}, row {before + ref.number}"


def check_same_images(files: Iterable[Path]) -> None:
    """Check that files used together store their images in the same way.

    Raises:
        ValueError: some contain images and others file names, or a file was not written by ``omniq data``.
    """
    kinds: dict[Any, Path] = {}
    for file in expanded(files):
        with open_prepared(file, _COLUMNS) as opened:
            if not opened.metadata.num_rows:
                raise ValueError(f"{file} has no rows. Fix: leave it out, or write it again")
            kinds.setdefault(image_kind(opened.schema_arrow.field("images").type), file)
        if len(kinds) > 1:
            both = " and ".join(map(str, kinds.values()))
            raise ValueError(f"{both} hold their images in two ways. Fix: prepare both with the same --images")


def expanded(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files, with names such as ``train*.parquet`` (as in settings) expanded.

    Raises:
        ValueError: no file matches such a name.
    """
    for file in files:
        found = sorted(file.parent.glob(file.name)) if "*" in file.name and not file.exists() else [file]
        if not found:
            raise ValueError(f"{file}: no file matches this name. Fix: name prepared files")
        yield from found


def learnable_rows(files: Sequence[Path], limit: int | None = None) -> list[RowRef]:
    """Return the first ``limit`` rows, after checking that they are training rows of tasks that ask for a score.

    Raises:
        HeldOutRows: some rows are from a validation or test split.
        ValueError: there are no rows, or a row's task does not ask for a score.
    """
    refs = list_rows(files)[:limit]
    check_learnable(refs)
    return refs


def check_learnable(refs: Sequence[RowRef]) -> None:
    """Run the checks of ``learnable_rows`` on rows that are already listed."""
    if not refs:
        raise ValueError("there are no rows. Fix: name prepared files, e.g. --data data/koniq/train.parquet")
    for ref in refs:
        if is_held_out(ref):
            raise HeldOutRows(
                f"{ref.file} holds rows of the split {ref.info['split']!r} ({ref.key}). Fix: give train files"
            )
        if (task := task_of(ref.info)).asks_for != "score":
            raise ValueError(f"{ref.file}: the task {task.name} has no score, which this needs")
        if fault := task.label_fault({"score": ref.info["score"]}):
            raise ValueError(f"{named(ref)} ({ref.key}): extra_info.score: {fault}. Fix: correct or drop the row")


def _row_refs(path: Path) -> Iterator[RowRef]:
    first = 0  # row index at which the row group begins
    with open_prepared(path, _COLUMNS) as file:
        for group in range(file.num_row_groups):
            with named_errors(path):
                rows = file.read_row_group(group, columns=["data_source", "extra_info", "prompt"]).to_pylist()
            for number, row in enumerate(rows):
                try:
                    info = row_info(row)
                    check_prompt(row["prompt"])
                except BadRow as error:
                    raise ValueError(f"{path}, row {first + number}: {error}") from None
                yield RowRef(f"{info['task']}/{info['id']}", str(path.resolve()), group, number, info)
            first += len(rows)


class RowReader:
    """Reads columns of referenced rows. Caches one row group, because neighbouring rows usually share it."""

    def __init__(self, columns: Sequence[str]):
        self._columns = list(columns)
        self._held: tuple[str, int] | None = None
        self._rows: pa.Table | None = None

    def read(self, refs: Iterable[RowRef]) -> Iterator[dict[str, Any]]:
        """Yield the referenced rows, in order.

        Raises:
            ValueError: a file lacks one of the columns, or can no longer be read.
        """
        for ref in refs:
            yield self._group(ref).slice(ref.number, 1).to_pylist()[0]

    def _group(self, ref: RowRef) -> pa.Table:
        if self._rows is None or self._held != (ref.file, ref.group):
            path = Path(ref.file)
            with open_prepared(path, self._columns) as file, named_errors(path):
                self._rows = file.read_row_group(ref.group, self._columns)
            self._held = (ref.file, ref.group)
        return self._rows


def image_bytes(row: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Return the content of a row's image files, from the row itself or from the files it names.

    Raises:
        BadImage: the row has no image or an empty one, or names a file that cannot be used.
    """
    return tuple(source if isinstance(source, bytes) else load_image(source) for source in image_sources(row))


def image_sources(row: Mapping[str, Any]) -> list[bytes | Path]:
    """Return the images of a row, each as bytes or as a file name. Bytes take precedence, as in verl.

    Raises:
        BadImage: the row has no image, or an image that is neither.
    """
    images = row["images"]
    if not images:
        raise BadImage("the row has no image")
    found: list[bytes | Path] = []
    for image in images:
        data, name = (image.get(key) if isinstance(image, Mapping) else None for key in ("bytes", "image"))
        if data:
            found.append(data)
        elif isinstance(name, str) and name:
            found.append(Path(name))
        else:
            raise BadImage("the row's image has neither bytes nor the name of a file under `image`")
    return found
