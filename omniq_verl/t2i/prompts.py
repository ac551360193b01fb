"""Texts to draw: a .txt file with one text per line, or a .jsonl file with one object per line (GenEval's metadata)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omniq_verl.data.text_files import BLANKS, json_lines, reject, text_lines
from omniq_verl.tasks import check_text

_WRITE = "write them into a .txt (one per line) or a .jsonl (one object per line, with its text under 'prompt')"


def read_texts(path: Path) -> list[dict[str, Any]]:
    """Read texts, each under ``prompt`` with its line's other keys. Blank lines and surrounding blanks are dropped.

    Raises:
        ValueError: the suffix is neither .txt nor .jsonl (in any case), the file cannot be read or has no texts, a line
            is not an object with a text under ``prompt``, or a text contains control tokens of a model.
    """
    readers = {".txt": _plain, ".jsonl": _objects}
    if path.suffix.lower() not in readers:
        raise reject(path, f"prompts cannot be read from a file that ends in {path.suffix or path.name!r}", _WRITE)
    found = []
    for number, one in readers[path.suffix.lower()](path):
        check_text(one["prompt"], f"{path}, line {number}: the prompt")
        found.append(one)
    if not found:
        raise reject(path, "it has no texts", _WRITE)
    return found


def _plain(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in text_lines(path):
        if line.strip(BLANKS).strip():
            yield number, {"prompt": line.strip(BLANKS)}


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, found in json_lines(path):
        if not (isinstance(found.get("prompt"), str) and found["prompt"].strip(BLANKS).strip()):
            raise reject(path, f"line {number} is not an object with a text under 'prompt'")
        yield number, found
