"""HTTP requests to the server's application, in this process, with a stand-in for the model."""

import base64
import json
import logging
import math
import pickle
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutation import TEXTS, VALUES, Files, json_bytes, mutated, mutated_json, mutated_text
from fuzz.rules import Wrong, check
from image_builders import noise, saved, smooth
from serving_builders import Greys, app, grey
from starlette.testclient import TestClient

from omniq_verl.rewards import Status
from omniq_verl.scoring.scorer import BAD_IMAGE, UNNAMED
from omniq_verl.tasks import IMAGE_TASKS

_IMAGES = (
    grey(0),
    grey(200),
    saved(smooth(), "JPEG"),
    saved(noise(), "PNG"),
    saved(noise(channels=4), "TIFF"),
    b"none",
)
_REJECTED = {400, 404, 405, 413, 415, 422}
_STATUSES = {status.value for status in Status} | {BAD_IMAGE, UNNAMED, "error"}
_FORM = "multipart/form-data; boundary=XXfuzzXX"
_KINDS = (
    "application/json",
    _FORM,
    "application/x-www-form-urlencoded",
    "text/plain",
    "",
    "application/json; charset=utf-16",
)


@cache
def _client() -> TestClient:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    client = TestClient(app(rali=Greys()))
    client.__enter__()  # one event loop for all requests of this process
    return client


def make(rng: Random) -> Files:
    route = rng.choice(("/v1/score", "/v1/score", "/v1/compare", "/verl-omni/technical"))
    kind, body = "application/json", b""
    if route.startswith("/verl-omni"):
        kind, body = "application/octet-stream", _pickle(rng)
        route = rng.choice(
            (route, route, "/verl-omni/alignment", "/verl-omni/" + rng.choice(("x", "%00", "..", "a" * 300)))
        )
    elif rng.random() < 0.6:
        body = json_bytes(rng, _question(rng, route))
    else:
        kind, body = _FORM, _form(rng, route)
    if rng.random() < 0.05:
        kind = rng.choice(_KINDS)
    method = rng.choice(("POST",) * 20 + ("GET", "PUT", "DELETE"))
    return {"request.json": json.dumps({"method": method, "route": route, "type": kind}).encode(), "body": body}


def _base64(rng: Random) -> str:
    text = base64.b64encode(rng.choice(_IMAGES)).decode()
    if rng.random() < 0.2:
        text = base64.encodebytes(rng.choice(_IMAGES)).decode()
    text = f"data:image/png;base64,{text}" if rng.random() < 0.3 else text
    return mutated_text(rng, text) if rng.random() < 0.3 else text


def _question(rng: Random, route: str) -> Any:
    words: dict[str, Any] = {"samples": rng.choice((1, 1, 2, 3)), "temperature": 1.0, "reasoning": rng.random() < 0.5}
    if route == "/v1/compare":
        words["pairs"] = [{"a": _base64(rng), "b": _base64(rng)} for _ in range(rng.choice((1, 1, 2)))]
    else:
        words["images"] = [_base64(rng) for _ in range(rng.choice((1, 1, 2, 4)))]
        words["task"] = rng.choice(("technical", ["technical", "degradation"], "alignment"))
        words["prompt"] = rng.choice((None, "a cat", *TEXTS))
    return mutated_json(rng, words) if rng.random() < 0.6 else words


def _form(rng: Random, route: str) -> bytes:
    names = ("a", "b") if route == "/v1/compare" else ("images",) * rng.choice((1, 2))
    parts = [_part(name, rng.choice(_IMAGES), f'; filename="{rng.choice(("x.png", *TEXTS[:30]))}"') for name in names]
    for name in ("task", "prompt", "samples", "reasoning", "x"):
        if rng.random() < 0.3:
            value = rng.choice(("technical", "a cat", "2", "true", *TEXTS, *map(str, VALUES[:12])))
            parts.append(_part(name, value.encode("utf-8", "surrogatepass")))
    body = b"".join(parts) + b"--XXfuzzXX--\r\n"
    return mutated(rng, body) if rng.random() < 0.4 else body


def _part(name: str, data: bytes, file: str = "") -> bytes:
    head = f'--XXfuzzXX\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode("utf-8", "surrogatepass") + data + b"\r\n"


def _pickle(rng: Random) -> bytes:
    count = rng.choice((1, 2))
    words = {"images": [rng.choice(_IMAGES) for _ in range(count)], "prompts": ["a cat"] * count}
    if rng.random() < 0.4:
        words[rng.choice(("images", "prompts", "x"))] = rng.choice(VALUES)
    body = pickle.dumps(words, rng.choice((2, 4, 5)))
    return mutated(rng, body) if rng.random() < 0.6 else body


def run(files: Files, folder: Path) -> str:
    """The outcome, once its status and its content fit together."""
    asked, body = json.loads(files["request.json"]), files["body"]
    headers = {"content-type": asked["type"]} if asked["type"] else {}
    answer = _client().request(asked["method"], asked["route"], content=body, headers=headers)
    if answer.status_code != 200:
        check(answer.status_code in _REJECTED, f"status {answer.status_code}: {answer.text[:500]}")
        detail = answer.json()["detail"]
        check(bool(detail) and len(str(detail)) < 2000, f"detail {str(detail)[:300]}")
        check("Traceback" not in answer.text and ".py" not in answer.text, answer.text[:500])
        return str(answer.status_code)
    if asked["route"].startswith("/verl-omni"):
        found = pickle.loads(answer.content)
        check(set(found) <= {"scores", "error"} and len(found) == 1, f"{found}")
        check(all(1 <= score <= 5 for score in found.get("scores", [])), f"{found}")
        return "200 " + next(iter(found))
    _check_results(answer.json(), asked["route"], body, asked["type"])
    return "200"


def _check_results(found: Any, route: str, body: bytes, kind: str) -> None:
    results = found["results"]
    if kind.startswith("application/json"):
        question = json.loads(body)
        check(len(results) == len(question["pairs" if route == "/v1/compare" else "images"]), f"{len(results)} results")
    for result in results:
        if route == "/v1/compare":
            check(result["status"] in {*_STATUSES, "unreadable"}, f"status {result['status']}")
            check(result["winner"] in (None, "a", "b"), f"winner {result['winner']}")
            continue
        for task, score in result["scores"].items():
            _check_score(task, score)


def _check_score(task: str, score: dict[str, Any]) -> None:
    check(score["status"] in _STATUSES, f"status {score['status']}")
    scale = IMAGE_TASKS[task].scale
    if score["status"] != "ok":
        check(score["score"] is None, f"{score['status']} with score {score['score']}")
    elif scale and not (math.isfinite(score["score"]) and scale.low <= score["score"] <= scale.high):
        raise Wrong(f"score {score['score']}")
