r"""File names in what this package writes, and the same name in two forms of Unicode.

A name on the disk is bytes. Python reads those that are no UTF-8 as half characters (PEP 383), which no table, JSON
reader or terminal takes. ``shown_name`` writes such a name as valid UTF-8 that can be turned back: a byte that is no
UTF-8 becomes ``\x`` and two hexadecimal digits (``caf\xe9.jpg``), any other half character ``\u`` and four, and a
backslash of the name that could be mistaken for the start of one of these, or of a doubled one, is doubled. All other
names, and that is nearly every name, stay as they are. The tables of ``omniq score`` and ``omniq rali score``, their
resume keys, the results of ``Scorer`` and ``Client``, and ``rejects.jsonl`` hold shown names; ``real_name`` gives the
path back.
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
    """A path or name as valid UTF-8, which ``real_name`` turns back."""
    return escape_halves(_AMBIGUOUS.sub(r"\\\\", os.fspath(name)))


def real_name(shown: str) -> str:
    """The path or name that ``shown_name`` made a text of."""
    return _SHOWN.sub(_real, shown)


def _real(found: "re.Match[str]") -> str:
    if found[1]:
        byte = int(found[1], 16)
        return chr(0xDC00 + byte) if byte >= 0x80 else found[0]
    return chr(int(found[2], 16)) if found[2] else "\\"


def escape_halves(text: str) -> str:
    """A text without half characters, for people to read: each as ``shown_name`` writes it."""
    return _HALF.sub(_escaped, text)


def _escaped(found: "re.Match[str]") -> str:
    number = ord(found[0])
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


def is_utf8(name: "str | os.PathLike[str]") -> bool:
    """Can a table, a row or a terminal hold this name as it is?"""
    return not _HALF.search(os.fspath(name))


def never_fail_to_print() -> None:
    """A letter that the terminal cannot show, or half of one, is printed as its number instead of a traceback."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def composed(name: str) -> str:
    """A name with its letters composed (NFC): an archive made on macOS has them decomposed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """What two names have in common that mean the same file on some system: whatever their case and form of Unicode."""
    return composed(composed(name).lower()).strip(BLANKS)
