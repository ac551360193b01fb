"""Texts to draw: a .txt file with one a line, or a .jsonl with one an object (GenEval's metadata, for one)."""

import json
from pathlib import Path
from typing import Any


def read_texts(path: Path) -> list[dict[str, Any]]:
    """Each text under ``prompt``, with all else its line holds.

    Raises:
        ValueError: the file cannot be read, has no texts, or a line is no object with a text under ``prompt``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    read = _object if path.suffix == ".jsonl" else _plain
    found = [read(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ValueError(f"{path} has no texts")
    return found


def _plain(_path: Path, _number: int, line: str) -> dict[str, Any]:
    return {"prompt": line.strip()}


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: no JSON ({error})") from error
    if not (isinstance(found, dict) and isinstance(found.get("prompt"), str) and found["prompt"].strip()):
        raise ValueError(f"{path}, line {number}: no object with a text under 'prompt'")
    return found
