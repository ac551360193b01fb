"""The protocol of verl-omni's ``http_scorer_client``: a pickled dict of image files and prompts, a pickled dict back.

Loading a pickle can run arbitrary code. This module therefore checks the opcodes first and allows only those that build
dicts, lists, tuples, strings, bytes and numbers.

verl-omni's client sends JPEG, which changes the quality to be scored. Prefer
``omniq_verl.serving.reward_client.compute_score``, which sends the image unchanged.
"""

import io
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, TypeGuard, TypeVar

from starlette.responses import Response

from omniq_verl.scoring.scorer import Score
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.request_parsing import File

_Kind = TypeVar("_Kind")

_PLAIN = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"}
    | {"BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
    | {"EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS"}
    | {"SETITEM", "SETITEMS", "MEMOIZE", "BINPUT", "BINGET", "LONG_BINGET"}
)
"""Opcodes that create no class instances. LONG_BINPUT is excluded: it may allocate any amount of memory."""
_LONGEST = 10_000
"""Maximum number of opcodes of a request; a request with 64 images has several hundred."""


class NotPlain(ValueError):
    """A body that is not such a request, or that contains a pickle opcode that is not allowed."""


def load_plain(body: bytes, limits: Limits) -> tuple[list[File], list[str]]:
    """Parse a request into images and prompts.

    Raises:
        NotPlain: the body is not a valid request.
    """
    found = _unpickled(body)
    if not isinstance(found, dict):
        raise NotPlain("the body must be a pickled dict with images and prompts")
    images, prompts = found.get("images"), found.get("prompts")
    if not _all_of(images, bytes) or not _all_of(prompts, str) or not 0 < len(images) == len(prompts) <= limits.images:
        raise NotPlain(
            f"images must be a list of 1 to {limits.images} files as bytes, prompts a list with one text per image"
        )
    if max(map(len, prompts)) > limits.text:
        raise NotPlain(f"a prompt is longer than {limits.text:,} characters")
    return [File(f"image {number}", data) for number, data in enumerate(images)], list(prompts)


def _unpickled(body: bytes) -> Any:
    try:
        for number, (operation, _, _) in enumerate(pickletools.genops(body)):
            if operation.name not in _PLAIN or number >= _LONGEST:
                raise NotPlain("only plain dicts, lists, texts, bytes and numbers are unpickled")
        return _Plain(io.BytesIO(body)).load()
    except NotPlain:
        raise
    except Exception as error:  # a broken pickle can raise any exception
        raise NotPlain("the body is not a readable pickle") from error


class _Plain(pickle.Unpickler):
    """Second safeguard: never look up a class."""

    def find_class(self, module: str, name: str) -> Any:
        raise NotPlain("only plain dicts, lists, texts, bytes and numbers are unpickled")


def _all_of(values: Any, kind: type[_Kind]) -> TypeGuard[Sequence[_Kind]]:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kind) for value in values)


def dump_plain(scores: Sequence[Score]) -> Response:
    """Build the response: ``{"scores": [...]}``, or ``{"error": ...}`` if an image has no score.

    The client expects a score for every image; it stops training and reports ``error``.
    """
    without = [f"{one.image}: {one.error or one.status}" for one in scores if one.score is None]
    answer = {"error": "; ".join(without)} if without else {"scores": [one.score for one in scores]}
    return Response(pickle.dumps(answer), media_type="application/octet-stream")
