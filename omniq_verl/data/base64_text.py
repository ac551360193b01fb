"""Decode base64 text and data URLs to bytes, or say why they do not decode.

Both alphabets (``+/`` and the URL-safe ``-_``) are accepted, with or without padding. Line ends and white space at the
ends of lines are ignored, because mail and ``base64 FILE`` write them. White space within a line is rejected: usually a
form has turned a ``+`` into a space, and ignoring the space would give different bytes. The type that a data URL states
is ignored; the image's own first bytes determine its format.
"""

import base64
import binascii
import re
from urllib.parse import unquote

_BLANKS = " \t\r\n\f"
_DATA = re.compile(r"[ \t\r\n\f]*data:", re.IGNORECASE)
_SHORTEST = 40
"""Minimum length of an encoded image. A shorter text without padding is more likely a path such as /etc/passwd."""
_OTHERS = re.compile(r"[^A-Za-z0-9+/_-]")
_TO_STANDARD = str.maketrans("-_", "+/")


class BadBase64(ValueError):
    """A text is not base64; the message says why."""


def is_data_url(text: str) -> bool:
    """Whether the text begins with ``data:`` in any case."""
    return _DATA.match(text) is not None


def decode_base64(text: str) -> bytes:
    """Decode base64 or a data URL.

    Raises:
        BadBase64: it does not decode; the message says why and quotes at most one character of the text.
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
    """Join the lines of a text, without the white space at their ends."""
    joined = "".join(line.strip(_BLANKS) for line in text.split("\n"))
    return "".join(line.strip(_BLANKS) for line in joined.split("\r")) if "\r" in joined else joined


def _foreign(character: str) -> str:
    if character in _BLANKS:
        return "it has white space within a line (a form may have turned + into it)"
    return f"{character!a} is not a base64 character"
