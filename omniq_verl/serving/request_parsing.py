"""Parse request bodies (JSON or multipart) into questions and image files. Any fault raises ``BadRequest``."""

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omniq_verl.data.base64_text import BadBase64, decode_base64
from omniq_verl.scoring.image_inputs import prompts_for
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.schemas import CompareQuestion, ScoreQuestion
from omniq_verl.tasks import text_fault

_MULTIPART = "multipart/form-data"
_TAIL, _KEPT = "omniq_tail", 512
"""Key under which ``LimitBody`` stores the last bytes of a body, and their number. A boundary has at most 70 bytes."""
_BOUNDARY = re.compile(r'boundary=(?:"([^"]*)"|([^;\s]*))', re.IGNORECASE)
_TEXTS = ("task", "prompt", "model", "mode")
"""Fields that stay text even if their content looks like JSON."""
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}
_LONGEST = 800
"""Maximum length of an error message, in characters."""
_SHOWN = 5
"""Maximum number of validation errors in a message."""

Question = TypeVar("Question", bound=BaseModel)


class BadRequest(Exception):
    """A request is rejected.

    Args:
        status: HTTP status.
        why: message for the client. A long message is truncated, because it may quote the request.
    """

    def __init__(self, status: int, why: str):
        super().__init__(why if len(why) <= _LONGEST else f"{why[:_LONGEST]} ...")
        self.status = status


@dataclass(frozen=True)
class File:
    """An image file as the client sent it."""

    name: str
    data: bytes


class LimitBody:
    """ASGI middleware that rejects bodies that are too long, by Content-Length or while they are received.

    It stores the end of the body, so that an unfinished form can be recognised.
    """

    def __init__(self, app: ASGIApp, most: int):
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length, got = dict(scope["headers"]).get(b"content-length", b""), 0
        scope[_TAIL] = b""

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            part = message.get("body", b"")
            got += len(part)
            scope[_TAIL] = (scope[_TAIL] + part[-_KEPT:])[-_KEPT:]
            if got > self._most or (length.isdigit() and int(length[:20]) > self._most):
                raise HTTPException(413, f"the body is longer than {self._most:,} bytes")
            return message

        await self._app(scope, counted, send)


Prompts = list[str | None]
"""The text of each image, or None."""


async def read_score(request: Request, limits: Limits) -> tuple[ScoreQuestion, list[File], Prompts]:
    """Parse ``POST /v1/score`` into a question, its images and the prompt of each.

    Raises:
        BadRequest: the request is invalid.
    """
    if _kind(request) == _MULTIPART:
        async with _form(request, limits, limits.images) as form:
            _check_whole(request)
            files = await _files(form, "images")
            words = {"images": ["sent"] * len(files), **_words(form, ("images",), ("task", "prompt"))}
            question = _model(ScoreQuestion, words)
            return question, files, _check_score(question, limits)
    question = await read_json(request, ScoreQuestion)
    prompts = _check_score(question, limits)
    return question, [_decoded(text, number) for number, text in enumerate(question.images)], prompts


async def read_compare(
    request: Request, limits: Limits
) -> tuple[CompareQuestion, list[tuple[File, File, File | None]]]:
    """Parse ``POST /v1/compare`` into a question and its images.

    Raises:
        BadRequest: the request is invalid.
    """
    if _kind(request) == _MULTIPART:
        async with _form(request, limits, 3 * limits.images) as form:
            _check_whole(request)
            a, b, references = [await _files(form, name) for name in ("a", "b", "reference")]
            if len(a) != len(b) or len(references) not in (0, len(a)):
                raise BadRequest(
                    422, "send the same number of a and b files, and either one reference per pair or none"
                )
            pairs = [{"a": "sent", "b": "sent"}] * len(a)
            question = _check_compare(
                _model(CompareQuestion, {"pairs": pairs, **_words(form, ("a", "b", "reference"), ())}), limits
            )
            return question, list(zip(a, b, references or [None] * len(a), strict=True))
    question = _check_compare(await read_json(request, CompareQuestion), limits)
    return question, [
        (
            _decoded(pair.a, f"pair {number}, a"),
            _decoded(pair.b, f"pair {number}, b"),
            None if pair.reference is None else _decoded(pair.reference, f"pair {number}, reference"),
        )
        for number, pair in enumerate(question.pairs)
    ]


def _kind(request: Request) -> str:
    """Return the content type after checking that the body is not compressed."""
    if (coding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        raise BadRequest(415, f"content-encoding: {coding!r:.40} is not read. Fix: send the body as it is")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(
    request: Request, kind: type[Question], accepted: str = f"application/json or {_MULTIPART}"
) -> Question:
    """Parse a JSON body; ``accepted`` names the content types of the route, for the error.

    Raises:
        BadRequest: the body is not JSON, or not of this kind.
    """
    if _kind(request) != "application/json":
        raise BadRequest(415, f"send {accepted}")
    try:
        return kind.model_validate_json((await request.body()).removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        raise BadRequest(422, _mistakes(error)) from None


def _model(kind: type[Question], words: Mapping[str, Any]) -> Question:
    try:
        return kind.model_validate(words)
    except ValidationError as error:
        raise BadRequest(422, _mistakes(error)) from None


def _mistakes(error: ValidationError) -> str:
    """List the location and message of each validation error, without the input, which may be long."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    messages = [f"{_place(one['loc']) or 'body'}: {one['msg']}" for one in found[:_SHOWN]]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "; ".join([*messages, *more])


def _place(loc: Sequence[int | str]) -> str:
    """Return the location of a fault, without pydantic's names for alternatives it tried, such as ``list[Part]``."""
    return ".".join(str(one) for one in loc if not (isinstance(one, str) and "[" in one))


def _check_whole(request: Request) -> None:
    """Check that a form is complete: the parser silently drops a last file that is truncated."""
    match = _BOUNDARY.search(request.headers.get("content-type", ""))
    tail = request.scope.get(_TAIL)
    if match and tail is not None and f"--{match[1] or match[2]}--".encode("latin-1", "replace") not in tail:
        raise BadRequest(422, "body: it is cut off, the form has no end (--boundary--). Fix: send it again")


def _form(request: Request, limits: Limits, files: int) -> Any:
    return request.form(max_files=files, max_fields=limits.images + 8, max_part_size=4 * limits.text + 1024)


async def _files(form: FormData, name: str) -> list[File]:
    found = form.getlist(name)
    files = [one for one in found if isinstance(one, UploadFile)]
    if len(files) < len(found):
        raise BadRequest(422, f"{name}: send images as files (with a filename)")
    return [File(one.filename or f"image {number}", await one.read()) for number, one in enumerate(files)]


def _words(form: FormData, files: Sequence[str], several: Sequence[str]) -> dict[str, Any]:
    """Return the form fields that are not files, with their JSON types; fields in ``several`` may be repeated."""
    words: dict[str, Any] = {}
    for name in dict.fromkeys(form.keys()):
        values = form.getlist(name)
        texts = [value for value in values if isinstance(value, str)]
        if not texts:
            if name not in files:
                raise BadRequest(422, f"{name}: unexpected file")
            continue
        if len(texts) < len(values) or (name not in several and len(values) > 1):
            raise BadRequest(422, f"{name}: given more than once")
        words[name] = texts if len(texts) > 1 else _value(name, texts[0])
    return words


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    return _SWITCHES.get(text.lower(), text) if name in ("reasoning", "stream") else _number(text)


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check_score(question: ScoreQuestion, limits: Limits) -> Prompts:
    """Check the sizes and prompts of a question, and return one prompt per image."""
    _check_sizes(len(question.images), question.samples, limits)
    try:
        prompts = prompts_for(question.prompt, len(question.images))
    except ValueError as error:
        raise BadRequest(422, str(error)) from None
    # If there is one prompt per image, a prompt with control tokens only fails its own image: see AsyncScorer.
    if isinstance(question.prompt, str) and (fault := text_fault(question.prompt)):
        raise BadRequest(422, f"prompt: it {fault}")
    check_prompts(prompts, limits)
    return prompts


def check_prompts(prompts: Prompts, limits: Limits) -> None:
    """Check the length of the texts.

    Raises:
        BadRequest: a text is too long.
    """
    if max(len(prompt or "") for prompt in prompts) > limits.text:
        raise BadRequest(422, f"a prompt is longer than {limits.text:,} characters")


def _check_compare(question: CompareQuestion, limits: Limits) -> CompareQuestion:
    _check_sizes(len(question.pairs), question.samples, limits)
    return question


def _check_sizes(images: int, samples: int, limits: Limits) -> None:
    if images > limits.images:
        raise BadRequest(413, f"{images} images or pairs; at most {limits.images} per request")
    if samples > limits.samples:
        raise BadRequest(422, f"samples: at most {limits.samples}")


def _decoded(text: str, name: int | str) -> File:
    """Decode base64. No URL or path is ever followed."""
    try:
        return File(f"image {name}" if isinstance(name, int) else name, decode_base64(text))
    except BadBase64 as error:
        raise BadRequest(422, f"image {name}: not base64: {error}; paths and URLs are not accepted") from None
