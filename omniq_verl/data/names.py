r"""File names in this package's output, and names that differ only in their Unicode form.

A name on disk is a sequence of bytes. Python decodes bytes that are not UTF-8 to lone surrogates (PEP 383), which no
table, JSON reader or terminal accepts. ``shown_name`` escapes such a name as valid UTF-8, reversibly: a byte that is
not UTF-8 becomes ``\x`` and two hexadecimal digits (``caf\xe9.jpg``), and any other lone surrogate becomes ``\u`` and
four digits. A backslash that could be mistaken for the start of one of these, or for a doubled backslash, is doubled.
All other names stay the same. The tables of ``omniq score`` and ``omniq rali score``, their resume keys, the results of
``Scorer`` and ``Client``, and ``rejects.jsonl`` contain shown names; ``real_name`` restores the path.
"""

import os
import re
import sys
import unicodedata
from io import TextIOWrapper

from omniq_verl.data.text_files import BLANKS

_AMBIGUOUS = re.compile("\\\\(?=[\\\\xu\ud800-\udfff])")
_HALF = re.compile("[\ud800-\udfff]")
_SHOWN = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u(d[89a-f][0-9a-f]{2}))")


def shown_name(name: "str | os.PathLike[str]") -> str:
    """Escape a path or name as valid UTF-8; ``real_name`` reverses this."""
    return escape_halves(_AMBIGUOUS.sub(r"\\\\", os.fspath(name)))


def real_name(shown: str) -> str:
    """Return the path or name that ``shown_name`` was given."""
    return _SHOWN.sub(_real, shown)


def _real(found: "re.Match[str]") -> str:
    if found[1]:
        byte = int(found[1], 16)
        return chr(0xDC00 + byte) if byte >= 0x80 else found[0]
    return chr(int(found[2], 16)) if found[2] else "\\"


def escape_halves(text: str) -> str:
    """Escape the lone surrogates of a text for people to read, as ``shown_name`` does."""
    return _HALF.sub(_escaped, text)


def _escaped(found: "re.Match[str]") -> str:
    number = ord(found[0])
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


def is_utf8(name: "str | os.PathLike[str]") -> bool:
    """Whether a table, a row or a terminal can show this name unchanged."""
    return not _HALF.search(os.fspath(name))


def never_fail_to_print() -> None:
    """Print a character that the terminal cannot show as an escape sequence instead of raising an error."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def composed(name: str) -> str:
    """Return a name with composed letters (NFC). Archives made on macOS contain decomposed ones."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """Return a key that is equal for names that mean the same file on some system: it ignores case and Unicode form."""
    return composed(composed(name).lower()).strip(BLANKS)
