"""Small files that are there as a whole or not at all, and texts that files can keep."""

import os
from pathlib import Path

from xxhash import xxh3_128


def replace_text(path: Path, text: str) -> Path:
    """Write a file, or replace it, at once: a kill leaves the old one. Half characters become question marks."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8", errors="replace")
    os.replace(unfinished, path)
    return path


def whole_text(text: str) -> str:
    """The text with a question mark for each half character, which models write and no file in UTF-8 can keep."""
    return text.encode(errors="replace").decode()


def file_digest(path: Path) -> str:
    """XXH3 of a whole file, 128 bits, as ``xxh128sum`` prints it; some GB a second."""
    digest = xxh3_128()
    with open(path, "rb") as file:
        while part := file.read(2**24):
            digest.update(part)
    return digest.hexdigest()
