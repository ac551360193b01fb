"""Rows of prepared files by where they lie, so that a job of a million images holds none of them in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omniq_verl.data.images import load_image
from omniq_verl.lfs import check_no_pointer

_KEPT = ("id", "split", "task", "score", "scale_low", "scale_high")


@dataclass(frozen=True)
class Place:
    """Where a row lies, and what is needed to choose it."""

    key: str
    """``<task>/<id>``."""
    file: str
    group: int
    number: int
    """Within its row group."""
    info: Mapping[str, Any]
    """Of the row: its ``data_source``, id, split, task, label and scale."""


HELD_OUT = ("val", "validation", "test")
"""Splits that are never learned from."""


class HeldOutRows(ValueError):
    """The data holds rows that must not be learned from."""


class SameRow(ValueError):
    """Two rows have one task and one id."""


def list_places(files: Sequence[Path]) -> list[Place]:
    """All rows of the files, in their order; reads no images. A ``*`` in a name is for any letters.

    Raises:
        SameRow: two of them could not be told apart.
        ValueError: a file is none that ``data_prep`` writes, or some hold images and others their names.
    """
    places: dict[str, Place] = {}
    files = list(expanded(files))
    check_same_images(files)
    for file in files:
        for place in _places(file):
            if other := places.get(place.key):
                raise SameRow(f"{place.key} is in {other.file} and in {place.file}; keep one of them")
            places[place.key] = place
    return list(places.values())


def check_same_images(files: Iterable[Path]) -> None:
    """Whatever is made of several files has one kind of images.

    Raises:
        ValueError: some hold images and others their names, or a file is none that ``data_prep`` writes.
    """
    kinds: dict[Any, Path] = {}
    for file in expanded(files):
        with _open(file) as opened:
            kinds.setdefault(opened.schema_arrow.field("images").type, file)
        if len(kinds) > 1:
            named = " and ".join(map(str, kinds.values()))
            raise ValueError(f"{named} hold their images in two ways. Mend: prepare both with the same --images")


def expanded(files: Iterable[Path]) -> Iterator[Path]:
    """The files; of a name such as ``train*.parquet``, as in a file of settings, those that are there.

    Raises:
        ValueError: there is none of such a name.
    """
    for file in files:
        found = sorted(file.parent.glob(file.name)) if "*" in file.name and not file.exists() else [file]
        if not found:
            raise ValueError(f"{file}: there is no file of such a name. Mend: name prepared files")
        yield from found


def learnable_places(files: Sequence[Path], limit: int | None = None) -> list[Place]:
    """Rows that may be learned from, whose task asks for a score; the first ``limit`` of them.

    Raises:
        HeldOutRows: some are of a validation or test split.
        ValueError: there is none, or one of a task that asks for no score.
    """
    places = list_places(files)[:limit]
    check_learnable(places)
    return places


def check_learnable(places: Sequence[Place]) -> None:
    """As ``learnable_places``, of rows that are known already."""
    if not places:
        raise ValueError(
            "no rows: name prepared files, data=[data/koniq/train.parquet] or --data data/koniq/train.parquet"
        )
    for place in places:
        if place.info["split"] in HELD_OUT:
            raise HeldOutRows(
                f"{place.file} holds rows of the split {place.info['split']!r} ({place.key}). Mend: give train files"
            )
        if place.info["score"] is None:
            raise ValueError(f"{place.file}: the task {place.info['task']} has no score, which this needs")


def _places(path: Path) -> Iterator[Place]:
    with _open(path) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["data_source", "extra_info"]).to_pylist()
            for number, row in enumerate(rows):
                info = {"data_source": row["data_source"], **{name: row["extra_info"][name] for name in _KEPT}}
                yield Place(f"{info['task']}/{info['id']}", str(path.resolve()), group, number, info)


def _open(path: Path) -> pq.ParquetFile:
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Mend: name its files, e.g. {path}/*.parquet")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file. Mend: name prepared files")
    check_no_pointer(path)
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read as parquet ({error}). Mend: write or copy it again") from error
    if missing := {"data_source", "extra_info", "prompt", "images"} - set(file.schema_arrow.names):
        raise ValueError(f"{path} has no columns {sorted(missing)}; it has to come from data_prep/")
    return file


class RowReader:
    """Reads some columns of rows by their places; holds one row group, as neighbours mostly share it."""

    def __init__(self, columns: Sequence[str]):
        self._columns = list(columns)
        self._held: tuple[str, int] | None = None
        self._rows: pa.Table | None = None

    def read(self, places: Iterable[Place]) -> Iterator[dict[str, Any]]:
        """The rows at these places, in their order."""
        for place in places:
            if self._held != (place.file, place.group):
                with pq.ParquetFile(place.file) as file:
                    self._rows = file.read_row_group(place.group, self._columns)
                self._held = (place.file, place.group)
            yield self._rows.slice(place.number, 1).to_pylist()[0]


def image_bytes(row: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The files of a row's images, which lie in it or are named by it.

    Raises:
        BadImage: a named file is none (any more).
    """
    return tuple(image["bytes"] if image.get("bytes") else load_image(Path(image["image"])) for image in row["images"])
