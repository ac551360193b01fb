"""Read text files: prompt lists, label tables, manifests, JSON lines, answers given in a file.

A line ends at ``\\n`` or ``\\r\\n``, or at ``\\r`` in a file without any ``\\n``. Unicode line and paragraph separators
(U+2028, U+2029, U+0085), form feeds, vertical tabs and the separators U+001C to U+001E belong to the line: people paste
them into prompts, and JSON does not escape them.

Files are UTF-8. A byte order mark is not part of the text; a UTF-16 or UTF-32 mark selects that encoding. A NUL, bytes
that do not decode, and lines longer than ``MAX_LINE`` are errors that name the file and the line.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLANKS = " \t\r\u00a0\u3000\ufeff\u200b\u2060\u200e\u200f\u202a\u202b\u202c"
"""Characters stripped around a cell or a prompt. This is not all white space: a line separator may be intended. The
zero-width characters come from spreadsheets, web pages, and the file dialogs of Windows (U+202A before a path)."""
MAX_LINE = 2**20
MAX_TEXT_BYTES = 2**30
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""Byte order marks, longer ones first because one of them is the beginning of another."""
_ARCHIVES = (
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save its sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save its sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it"),
    (b"\xfd7zX", "an xz archive", "unpack it"),
)
"""First bytes of files that people rename to .csv or .txt, their format, and the fix. No text begins with them."""
_SAVE = "save it as UTF-8, or download it again from its owners"
_CORRECT = "correct it, or download it again from its owners"
_BEFORE_END = "\r"
_ENOUGH = 2**20  # number of bytes read to find out how lines end


class LabelFileError(ValueError):
    """A label or text file that cannot be used; the message names the file and the fix."""


def reject(path: Path, what: str, fix: str = _CORRECT) -> LabelFileError:
    """Return the error for a file that cannot be used."""
    return LabelFileError(f"{path}: {what}. Fix: {fix}")


def check_file(path: Path, limit: int = MAX_TEXT_BYTES) -> Path:
    """Return the path after checking that it is a file of at most ``limit`` bytes.

    Raises:
        LabelFileError: the file is missing, empty, too large, or a pickle.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
        head = b"" if not size else _head(path)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise reject(path, f"it cannot be read ({getattr(error, 'strerror', None) or error})", "check it") from None
    if size is None:
        raise reject(path, "there is no such file", "check its name; of labels, see the layout in the script's --help")
    if size == 0:
        raise reject(path, "it is empty")
    if size > limit:
        raise reject(path, f"it has {size:,} bytes, more than any label file of its kind")
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise reject(path, "it is a Python pickle, which is never loaded", "convert it to CSV where you trust it")
    return path


def _head(path: Path, size: int = 4) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def encoding_of(path: Path) -> str:
    """Return the encoding stated by the file's byte order mark, or ``utf-8-sig``."""
    head = _head(path)
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers (from 1), without line ends.

    Raises:
        LabelFileError: the file cannot be used; see this module.
    """
    return ((number, line.removesuffix("\n")) for number, line in enumerate(table_lines(path), 1))


def whole_lines(path: Path, end: str = "\n") -> Iterator[str]:
    """Yield the lines of a text file, each ending in ``\\n``; the last one may lack it.

    Args:
        path: the text file.
        end: the line end used in the file.

    Raises:
        LabelFileError: the file cannot be used; see this module.
    """
    _reject_archive(check_file(path))
    encoding, number = encoding_of(path), 0
    with open(path, encoding=encoding, newline=end) as file:
        try:
            while line := file.readline(MAX_LINE + 2):
                number += 1
                if len(line.removesuffix(end)) > MAX_LINE:
                    raise reject(path, f"line {number} has more than {MAX_LINE:,} characters")
                if "\0" in line:
                    raise reject(path, f"line {number} has a NUL character", _SAVE)
                yield f"{line.removesuffix(end).removesuffix(_BEFORE_END)}\n" if line.endswith(end) else line
        except UnicodeDecodeError as error:
            where = _undecodable(path) if encoding == "utf-8-sig" else f"what follows line {number}"
            kind = encoding.removesuffix("-sig").upper()
            raise reject(path, f"{where} is not {kind} text ({error.reason})", _SAVE) from None


def _reject_archive(path: Path) -> None:
    head = _head(path)
    for mark, what, fix in _ARCHIVES:
        if head.startswith(mark):
            raise reject(path, f"it is {what}, not text", fix)


def _undecodable(path: Path) -> str:
    """Return the position of the first byte that is not UTF-8. The decoder reads ahead, so its error lacks the line."""
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number}, byte {error.start + 1} ({line[error.start : error.start + 1]!r})"
    return "it"


def table_lines(path: Path) -> Iterator[str]:
    """Like ``whole_lines``, but also reads files whose lines end in ``\\r`` alone, as Excel writes them for Macintosh.

    Raises:
        LabelFileError: the file cannot be used; see this module.
    """
    head = _head(check_file(path), _ENOUGH)
    return whole_lines(path, "\r" if b"\r" in head and b"\n" not in head else "\n")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON-lines file with their line numbers; blank lines are skipped.

    Raises:
        LabelFileError: the file cannot be used, or a line is not a JSON object or repeats a key.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line.strip(BLANKS), object_pairs_hook=each_key_once)
        except (ValueError, RecursionError) as error:
            raise reject(path, f"line {number} is not JSON ({error})") from None
        if not isinstance(record, dict):
            raise reject(path, f"line {number} is not a JSON object")
        yield number, record


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of a JSON file, for ``object_pairs_hook``. Python's own reader silently keeps the last value.

    Raises:
        ValueError: a key occurs twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r:.60} is there twice")
    return found


def file_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        LabelFileError: the file cannot be used; see this module.
    """
    return "".join(whole_lines(path))
