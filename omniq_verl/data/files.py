"""Small files that are written completely or not at all, and text that UTF-8 files can hold."""

import os
from pathlib import Path

from xxhash import xxh3_128


def replace_text(path: Path, text: str) -> Path:
    """Write or replace a file atomically: a kill leaves the old one. Lone surrogates become question marks."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8", errors="replace")
    os.replace(unfinished, path)
    return path


def whole_text(text: str) -> str:
    """The text with a question mark for each lone surrogate, which models can write but UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()


def file_digest(path: Path) -> str:
    """128-bit XXH3 of a file's content, as ``xxh128sum`` prints it; reads some GB per second."""
    digest = xxh3_128()
    with open(path, "rb") as file:
        while part := file.read(2**24):
            digest.update(part)
    return digest.hexdigest()
