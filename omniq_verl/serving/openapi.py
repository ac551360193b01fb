"""OpenAPI descriptions of manually parsed request bodies and of error responses."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from omniq_verl.serving.schemas import Failure, PieceEvent

FAILURES = {
    401: "missing or wrong API key",
    413: "request too large, or too many images",
    415: "the body must be JSON or multipart",
    422: "invalid request: see detail",
    429: "at capacity: retry after Retry-After seconds",
    503: "the server is shutting down, or its engine is restarting",
    504: "no answer within the time limit",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route; all of them if no status is given."""
    return {status: {"model": Failure, "description": FAILURES[status]} for status in statuses or FAILURES}


def answered(model: type[BaseModel]) -> dict[str, Any]:
    """Describe the responses of a route that answers with ``model``, or with events that end in it."""
    parts = ", ".join(PieceEvent.model_fields)
    description = f"events piece (with {parts}), then result with the JSON response, or error (with status, detail)"
    events = {"text/event-stream": {"schema": {"type": "string", "description": description}}}
    streamed = {"description": "JSON; with stream, server-sent events", "content": events}
    return {"response_model": model, "responses": {200: streamed, **responses()}}


def body(model: type[BaseModel], files: Sequence[str]) -> dict[str, Any]:
    """Describe a request body that is either a form with files or the same fields in JSON.

    Args:
        model: schema of the JSON body.
        files: form fields that are files; ``reference`` is optional.
    """
    schema = _inlined(model.model_json_schema())
    fields = {name: value for name, value in schema["properties"].items() if name not in (*files, "pairs")}
    sent = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {**dict.fromkeys(files, sent), **fields}, "additionalProperties": False}
    form["required"] = [name for name in files if name != "reference"]
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a request body that is only accepted as JSON."""
    content = {"application/json": {"schema": _inlined(model.model_json_schema())}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any) -> Any:
    """Return a schema with its ``$ref`` inlined, so that it can be embedded in the page's schema."""
    found = schema.get("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inline(found[part["$ref"].rsplit("/", 1)[1]])
            return {key: inline(value) for key, value in part.items() if key != "$defs"}
        return [inline(one) for one in part] if isinstance(part, list) else part

    return inline(schema)
