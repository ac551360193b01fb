"""Write small files completely or not at all, and make text encodable as UTF-8."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xxhash import xxh3_128


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` for a new file or folder. It replaces ``path`` when the block succeeds.

    After a kill or an error, ``path`` is unchanged. Leftovers of an earlier kill at the temporary path are removed
    first. A folder at ``path`` is replaced as a whole.
    """
    unfinished = path.with_name(f"{path.name}.part")
    _remove(unfinished)
    try:
        yield unfinished
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(unfinished, path)
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> Path:
    """Write a text file in one step, so a kill leaves the old file. Lone surrogates become question marks."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="replace")
    return path


def replace_bytes(path: Path, data: bytes) -> Path:
    """Write a file in one step, so a kill leaves the old file."""
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(data)
    return path


def whole_text(text: str) -> str:
    """Replace lone surrogates, which models can write but UTF-8 cannot encode, by question marks."""
    return text.encode(errors="replace").decode()


def file_digest(path: Path) -> str:
    """Return the 128-bit XXH3 of a file's content, as ``xxh128sum`` prints it. Reads a few GB per second."""
    digest = xxh3_128()
    with open(path, "rb") as file:
        while part := file.read(2**24):
            digest.update(part)
    return digest.hexdigest()
