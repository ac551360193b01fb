"""The protocol of verl-omni's ``http_scorer_client``: a pickled dict of image files and prompts, a pickled dict back.

A pickle can run any code where it is read. So nothing is unpickled here but dicts, lists, tuples, texts, bytes and
numbers, by the names of the operations it is made of, before it is read at all.

That client sends JPEG, which changes the quality that is to be scored. Use
``omniq_verl.serving.reward_client.compute_score`` instead, which sends the image as it is.
"""

import io
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from omniq_verl.scoring.scorer import Score
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.request_parsing import File

_PLAIN = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"}
    | {"BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
    | {"EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS"}
    | {"SETITEM", "SETITEMS", "MEMOIZE", "BINPUT", "BINGET", "LONG_BINGET"}
)
"""Operations that make no object of a class. LONG_BINPUT is none of them: it may ask for any amount of memory."""
_LONGEST = 10_000
"""Operations of a request; one of 64 images has some hundreds."""


class NotPlain(ValueError):
    """A body that is no such request, or would do more than be read."""


def load_plain(body: bytes, limits: Limits) -> tuple[list[File], list[str]]:
    """Images and prompts of a request.

    Raises:
        NotPlain: it is none.
    """
    found = _unpickled(body)
    if not isinstance(found, dict):
        raise NotPlain("a pickled dict with images and prompts is expected")
    images, prompts = found.get("images"), found.get("prompts")
    if not _all_of(images, bytes) or not _all_of(prompts, str) or not 0 < len(images) == len(prompts) <= limits.images:
        raise NotPlain(f"images: bytes of 1 to {limits.images} files; prompts: as many texts")
    if max(map(len, prompts)) > limits.text:
        raise NotPlain(f"a prompt is longer than {limits.text:,} characters")
    return [File(f"image {number}", data) for number, data in enumerate(images)], prompts


def _unpickled(body: bytes) -> Any:
    try:
        for number, (operation, _, _) in enumerate(pickletools.genops(body)):
            if operation.name not in _PLAIN or number >= _LONGEST:
                raise NotPlain("only plain dicts, lists, texts, bytes and numbers are unpickled")
        return _Plain(io.BytesIO(body)).load()
    except NotPlain:
        raise
    except Exception as error:  # of every kind, on a broken pickle
        raise NotPlain("no pickle that can be read") from error


class _Plain(pickle.Unpickler):
    """A second door: no class is ever looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise NotPlain("only plain dicts, lists, texts, bytes and numbers are unpickled")


def _all_of(values: Any, kind: type) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kind) for value in values)


def dump_plain(scores: Sequence[Score]) -> Response:
    """The answer: ``{"scores": [...]}``, or ``{"error": ...}`` where an image has no score.

    That client takes a score for granted; it stops a training with what ``error`` says.
    """
    without = [f"{one.image}: {one.error or one.status}" for one in scores if one.score is None]
    said = {"error": "; ".join(without)} if without else {"scores": [one.score for one in scores]}
    return Response(pickle.dumps(said), media_type="application/octet-stream")
