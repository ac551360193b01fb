"""Helpers of the label file readers: files, numbers, random draws, and file names on disk."""

import hashlib
import math
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from omniq_verl.data.digits import Rounded, half_unit, row_roundings
from omniq_verl.data.names import composed
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import Request
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_tables import LabelFileError, read_csv, read_json, read_jsonl


def label_files(request: Request, *names: str) -> list[Path]:
    """Find the label files of a data set that has several, below ``--labels`` or, without it, below the root.

    Raises:
        LabelFileError: a file is missing, or ``--labels`` is not a folder.
    """
    if request.labels and not request.labels.is_dir():
        raise LabelFileError(f"{request.labels} is not a folder. Fix: give the one that holds {', '.join(names)}")
    index = FileIndex(request.labels) if request.labels else request.index
    found = {name: index.find(name) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        raise LabelFileError(
            f"{index.root}: there is no {', no '.join(missing)} below it. Fix: name the labels' folder with --labels"
        )
    return [path for path in found.values() if path]


def read_table(path: Path, texts: Sequence[str], others: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or JSON-lines file.

    Args:
        path: ends in ``.csv`` or ``.jsonl``.
        texts: columns that must hold text.
        others: other columns that must exist.

    Raises:
        LabelFileError: the file has another suffix, or a column is missing.
    """
    if path.suffix.lower() == ".csv":
        yield from read_csv(path, [*texts, *others])
    elif path.suffix.lower() == ".jsonl":
        yield from _with_keys(path, read_jsonl(path), texts, others)
    else:
        raise LabelFileError(f"{path}: its name ends neither in .csv nor in .jsonl. Fix: convert it to one of them")


def read_records(path: Path, texts: Sequence[str], others: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list.

    Args:
        path: the JSON file.
        texts: keys that must hold text.
        others: other keys that must exist.

    Raises:
        LabelFileError: the file is not a list of objects with these keys.
    """
    found = read_json(path)
    if not isinstance(found, list):
        raise LabelFileError(f"{path}: it is not a JSON list. Fix: correct it, or download it again from its owners")
    yield from _with_keys(path, found, texts, others)


def _with_keys(
    path: Path, records: Iterable[Any], texts: Sequence[str], others: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for ref, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise LabelFileError(
                f"{path}: entry {ref} is not a JSON object. Fix: correct it, or download it again from its owners"
            )
        wrong = [key for key in texts if not isinstance(record.get(key), str)]
        wrong += [key for key in others if key not in record]
        if wrong:
            raise LabelFileError(
                f"{path}: entry {ref} lacks {', '.join(wrong)}. Fix: see the layout in the script's --help"
            )
        yield record


def number(cell: Any) -> Rounded | None:
    """Parse a cell of a label file as a finite number with its rounding; None if it is not one."""
    if isinstance(cell, bool) or "_" in str(cell):  # Python parses "3_1" as 31
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return Rounded(value, half_unit(cell)) if math.isfinite(value) else None


def shares_of(cells: Sequence[Any]) -> list[Rounded] | None:
    """Parse shares of a whole; None if one is not a number or is below 0, or if they do not add up to 1.

    The tolerance depends on the number of digits. The shares of a row have either the same number of decimals or the
    same number of significant digits, and trailing zeros are often dropped ("0.1" among shares of six digits). So the
    row's longest share determines both.
    """
    found = [share for cell in cells if (share := number(cell)) is not None]
    if not found or len(found) < len(cells) or min(found) < 0:
        return None
    shares = [Rounded(share, rounding) for share, rounding in zip(found, row_roundings(cells), strict=True)]
    # The cap is for shares with a single digit. Without it, any sum of shares without decimals (0 and 1) would pass.
    allowed = min(max(1e-6, sum(share.rounding for share in shares)), 0.05 * len(shares))
    return shares if abs(math.fsum(shares) - 1.0) <= allowed + 1e-9 else None


def labelled(name: Any, score: Any, split: str = "test", **details: Any) -> Item:
    """Return an item with a checked score. Details that are None are dropped."""
    value = score if isinstance(score, Rounded) else number(score)
    kept = {key: detail for key, detail in details.items() if detail is not None}
    fault = f"its score {score!r} is not a number" if value is None else None
    return Item(str(name or ""), split, value, details=kept, fault=fault)


def text(cell: Any) -> str | None:
    """Return the text in a cell of a label file; None if it has none."""
    return cell if isinstance(cell, str) else None


def draw(seed: int, *key: str) -> float:
    """Draw a number in [0, 1) that depends only on seed and key, not on other rows or their order.

    Names that differ only in their Unicode form give the same number.
    """
    digest = hashlib.blake2b(
        "\0".join((str(seed), *map(composed, key))).encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def share(given: str) -> float:
    """Parse a command-line option that is a share of the rows.

    Raises:
        ArgumentTypeError: it is not a number from 0 to 1.
    """
    value = number(given)
    if value is None or not 0.0 <= value <= 1.0:
        raise ArgumentTypeError(f"{given!r} is not a share from 0 to 1")
    return value


def on_disk(index: FileIndex, name: str, suffix: str) -> str:
    """Return the name, or the same name with another suffix if only that file exists."""
    try:
        other = str(PurePosixPath(name).with_suffix(suffix))
        return other if index.find(name) is None and index.find(other) else name
    except ValueError:  # the name is invalid and is rejected later, with all others
        return name
