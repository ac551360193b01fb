"""``omniq data status``: which data sets are below a folder, what is missing, and where to get it.

    omniq data status --data /data
    omniq data status --data /data --json status.json

--data has one folder for each data set, under any name. A data set is recognised by the names of its label files; its
images are counted but not opened. `omniq data NAME` prepares one data set; `omniq reproduce` prepares all that it uses.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from omniq_verl.data.files import replace_text
from omniq_verl.pipeline.data_sets import DATA_SETS, DataSet
from omniq_verl.pipeline.summary import print_cells

READY, PARTLY, MISSING = "ready", "partly", "missing"
NEARLY_ALL = 0.99
"""Share of its images from which a data set counts as ready: published copies lack a few."""
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Found:
    """One data set as it was found."""

    about: DataSet
    folder: Path | None = None
    """Below --data; None: none holds its label files."""
    images: int = 0
    bytes: int = 0
    missing: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """``READY``, ``PARTLY`` or ``MISSING``."""
        if self.folder is None:
            return MISSING
        return PARTLY if self.missing else READY


@dataclass
class _Folder:
    """A folder directly below --data."""

    path: Path
    names: set[str] = field(default_factory=set)
    """All file names, in lower case."""
    images: int = 0
    bytes: int = 0


def survey(data: Path | None) -> list[Found]:
    """Look for every data set below a folder; file contents are not read.

    Args:
        data: with one folder for each data set, under any name; None: nothing is found.

    Raises:
        ValueError: there is no such folder.
    """
    if data is None:
        return [Found(about, missing=("no --data",)) for about in DATA_SETS]
    if not data.is_dir():
        raise ValueError(f"there is no folder {data}. Fix: name the folder that holds the data sets' folders")
    folders = [_read(path) for path in sorted(data.resolve().iterdir()) if path.is_dir()]
    return [_find(about, folders) for about in DATA_SETS]


def _read(path: Path) -> _Folder:
    found = _Folder(path)
    for entry in _files(path):
        found.names.add(entry.name.lower())
        if entry.name.lower().endswith(_IMAGES):
            found.images += 1
        found.bytes += entry.stat().st_size
    return found


def _files(path: Path) -> Iterator[os.DirEntry]:
    todo = [os.fspath(path)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file():
                    yield entry


def _find(about: DataSet, folders: Sequence[_Folder]) -> Found:
    groups = [[name.lower() for name in group] for group in about.labels]
    having = [folder for folder in folders if any(set(group) & folder.names for group in groups)]
    # Generic names (train.csv, manifest.csv) may lie in several: the folder named like the data set comes first.
    having.sort(key=lambda folder: (_plain(about.name) not in _plain(folder.path.name), -_groups(groups, folder)))
    if not having or (_is_generic(about) and _plain(about.name) not in _plain(having[0].path.name)):
        return Found(about, missing=(f"no folder with {' or '.join(about.labels[0])}",))
    folder = having[0]
    missing = [
        f"{' or '.join(names)}"
        for names, group in zip(about.labels, groups, strict=True)
        if not set(group) & folder.names
    ]
    if folder.images < NEARLY_ALL * about.images:
        missing.append(f"{about.images - folder.images:,} of {about.images:,} images")
    return Found(about, folder.path, folder.images, folder.bytes, tuple(missing))


def _groups(groups: Sequence[Sequence[str]], folder: _Folder) -> int:
    return sum(bool(set(group) & folder.names) for group in groups)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _is_generic(about: DataSet) -> bool:
    return about.name in ("tad66k", "t2i_compbench", "agiqa3k")


def print_data_status(found: Sequence[Found], console: Console) -> None:
    """One table of all data sets, and what to download."""
    lines = [_line(one) for one in found]
    head = ["data set", "state", "found", "missing", "expected layout", "size", "licence", "owner's page"]
    print_cells("data sets", head, lines, console, numbers=False)
    ready = sum(one.state == READY for one in found)
    console.print(f"{ready} of {len(found)} data sets are ready")


def _line(one: Found) -> list[str]:
    seen = f"{one.folder.name}: {one.images:,} images, {one.bytes / 1e9:.1f} GB" if one.folder else "-"
    about = one.about
    size = f"{about.images:,} images; {about.size}" if about.images else about.size
    return [about.title, one.state, seen, "; ".join(one.missing) or "-", about.layout, size, about.licence, about.page]


def as_data(found: Sequence[Found]) -> list[dict[str, object]]:
    """The same for other programs."""
    return [
        {
            "name": one.about.name,
            "state": one.state,
            "folder": None if one.folder is None else str(one.folder),
            "images": one.images,
            "bytes": one.bytes,
            "missing": list(one.missing),
            "page": one.about.page,
            "licence": one.about.licence,
        }
        for one in found
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``omniq data status``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with a folder for each data set; default: list all sets")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    args = parser.parse_args(arguments)
    try:
        found = survey(args.data)
        if args.json:
            replace_text(args.json, json.dumps(as_data(found), indent=2) + "\n")
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print_data_status(found, Console())
