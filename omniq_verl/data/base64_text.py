"""Base64 and data URLs -> the bytes they stand for, or why they stand for none.

Both alphabets are read (``+/`` and, of URLs, ``-_``), with or without padding; line ends, and white space at the ends
of lines, are left out, as mail and ``base64 FILE`` write them. White space within a line is rejected: most often a form
has turned a ``+`` into it, and without it other bytes would be decoded. What a data URL says its type is does not
count: an image's own first bytes say what it is.
"""

import base64
import binascii
import re
from urllib.parse import unquote

_BLANKS = " \t\r\n\f"
_DATA = re.compile(r"[ \t\r\n\f]*data:", re.IGNORECASE)
_SHORTEST = 40
"""Characters that an image takes at least; a shorter text without padding is rather a path, such as /etc/passwd."""
_OTHERS = re.compile(r"[^A-Za-z0-9+/_-]")
_TO_STANDARD = str.maketrans("-_", "+/")


class BadBase64(ValueError):
    """Why a text is no base64."""


def is_data_url(text: str) -> bool:
    """Does it begin with ``data:``, in small or capital letters?"""
    return _DATA.match(text) is not None


def decode_base64(text: str) -> bytes:
    """The bytes that base64, or a data URL, stands for.

    Raises:
        BadBase64: it is none; the message says what is wrong, and repeats nothing of the text but one character.
    """
    if is_data_url(text):
        text = _payload(text)
    code = _joined(text)
    bare = code.rstrip("=")
    if found := _OTHERS.search(bare):
        raise BadBase64(_foreign(found.group()))
    if len(code) - len(bare) > 2 or (code != bare and len(code) % 4):
        raise BadBase64("its padding is wrong, or it is cut off")
    if ("+" in bare or "/" in bare) and ("-" in bare or "_" in bare):
        raise BadBase64("it mixes both alphabets of base64, +/ and -_")
    if len(bare) % 4 == 1 or (len(code) % 4 and len(code) < _SHORTEST):
        raise BadBase64("it is cut off, or a path or a word")
    try:
        return base64.b64decode(bare.translate(_TO_STANDARD) + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadBase64("it does not decode") from None


def _payload(url: str) -> str:
    head, comma, payload = url.partition(",")
    if not comma:
        raise BadBase64("a data URL without a comma")
    if head.rpartition(";")[2].strip(_BLANKS).lower() != "base64":
        raise BadBase64("a data URL that is not base64 (data:image/png;base64,...)")
    return unquote(payload) if "%" in payload else payload


def _joined(text: str) -> str:
    """The lines of a text in one, without white space at their ends."""
    joined = "".join(line.strip(_BLANKS) for line in text.split("\n"))
    return "".join(line.strip(_BLANKS) for line in joined.split("\r")) if "\r" in joined else joined


def _foreign(character: str) -> str:
    if character in _BLANKS:
        return "it has white space within a line (a form may have turned + into it)"
    return f"{character!a} is no character of base64"
