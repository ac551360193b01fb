"""Files of labels, and what every reader of them has in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omniq_verl.preparation.label_tables import (
    LabelFileError,
    read_csv,
    read_json,
    read_jsonl,
    read_mat,
    read_words,
    read_xlsx,
)

READERS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda path: list(read_csv(path, ["name"])),
    "words": lambda path: list(read_words(path, 2)),
    "json": read_json,
    "jsonl": lambda path: list(read_jsonl(path)),
    "xlsx": lambda path: list(read_xlsx(path, ["name"])),
    "mat": lambda path: read_mat(path, "scores"),
}


def file(folder: Path, data: bytes | str, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


def error_of(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(LabelFileError) as caught:
        read(path)
    assert str(path) in str(caught.value) and "Fix: " in str(caught.value)
    return str(caught.value)
