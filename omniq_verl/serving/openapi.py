"""What the page of the routes shows of bodies that are read by hand, and of refusals."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from omniq_verl.serving.schemas import Failure

FAILURES = {
    401: "no API key, or a wrong one",
    413: "too long, or too many images",
    415: "neither JSON nor multipart",
    422: "no such question",
    429: "no room at present: come again after Retry-After seconds",
    503: "the server is about to end, or its engine to start again",
    504: "no answer in time",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals of a route; without any: all."""
    return {status: {"model": Failure, "description": FAILURES[status]} for status in statuses or FAILURES}


def body(model: type[BaseModel], files: Sequence[str]) -> Mapping[str, Any]:
    """A body as a form with files, or the same in JSON.

    Args:
        model: of the JSON.
        files: fields of the form that are files; ``reference`` may be missing.
    """
    schema = _inlined(model.model_json_schema())
    fields = {name: value for name, value in schema["properties"].items() if name not in (*files, "pairs")}
    sent = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {**dict.fromkeys(files, sent), **fields}, "additionalProperties": False}
    form["required"] = [name for name in files if name != "reference"]
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any) -> Any:
    """A schema without references, as its definitions are nobody else's."""
    found = schema.get("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inline(found[part["$ref"].rsplit("/", 1)[1]])
            return {key: inline(value) for key, value in part.items() if key != "$defs"}
        return [inline(one) for one in part] if isinstance(part, list) else part

    return inline(schema)
