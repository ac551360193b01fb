"""Requests that nobody should send: none brings the server down, reads a file, or makes it call anyone."""

import io
import json
import socket
import zlib

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from PIL import Image
from serving_builders import app, base64_of, grey
from starlette.testclient import TestClient

APP = app()
schema = schemathesis.openapi.from_asgi("/openapi.json", APP)
CALM = list(HealthCheck)


def chat(url: str, *more: dict) -> dict:
    """A chat about an image behind this URL."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, *more]
    return {"model": "technical", "messages": [{"role": "user", "content": parts}]}


@pytest.fixture(autouse=True)
def nothing_outward(monkeypatch):
    """No name is looked up, and nobody called."""

    def reject(*args, **_):
        raise AssertionError(f"a call outward: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", reject)
    monkeypatch.setattr(socket.socket, "connect", reject)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=300, deadline=None, suppress_health_check=CALM, derandomize=True)
def test_whatever_the_page_allows_and_forbids_is_answered(case):
    answer = case.call()
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text and ".py" not in answer.text
    if answer.status_code >= 400:
        assert len(answer.text) < 2000


def png(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, of one colour, in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    rows = zlib.compress(bytes(min(height, 100) * (width + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("L", (16, 16), value) for value in (0, 255)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


HOSTILE = {
    "a bomb": png(60_000, 60_000),
    "a line": png(60_000, 1),
    "cut off": png(100, 100)[:60],
    "frames": gif(),
    "empty": b"",
    "words": b"GET / HTTP/1.1\r\n\r\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(/etc/passwd) (r) file",
    "noise": bytes(range(256)) * 50,
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_an_image_that_is_none_is_a_bad_image_by_every_way_in(kind):
    client, data = TestClient(APP, raise_server_exceptions=False), HOSTILE[kind]
    for found in (
        client.post("/v1/score", json={"images": [base64_of(data)]}),
        client.post("/v1/score", files={"images": ("../../etc/passwd", data)}),
    ):
        assert found.status_code == 200
        assert found.json()["results"][0]["scores"]["technical"]["status"] == "bad_image"
    found = client.post("/v1/compare", json={"pairs": [{"a": base64_of(data), "b": base64_of(grey(0))}]})
    assert found.json()["results"][0]["status"] == "bad_image"
    found = client.post("/v1/chat/completions", json=chat(f"data:image/png;base64,{base64_of(data)}"))
    assert found.status_code == 422 and "image 0" in found.json()["detail"]


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "../../../etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:1/",
        "https://example.org/a.png",
        "ftp://example.org/a.png",
        "data:text/html,<script>",
        "data:image/png;base64,file:///etc/passwd",
        "\\\\host\\share",
        "A" * 3,
        "=" * 100,
    ],
)
def test_addresses_and_paths_are_no_images(text):
    client = TestClient(APP, raise_server_exceptions=False)
    for words in ({"images": [text]}, {"images": [base64_of(text.encode())]}):
        found = client.post("/v1/score", json=words)
        assert found.status_code == 422 or (found.json()["results"][0]["scores"]["technical"]["status"] == "bad_image")
    assert client.post("/v1/score", data={"images": text}, files={"x": b"x"}).status_code == 422
    assert client.post("/v1/chat/completions", json=chat(text)).status_code == 422


@pytest.mark.parametrize(
    "prompt",
    ["{text}{low}%s%n", "\x00\x1b[2J", "\u202e\ufeff" * 50, "a" * 10_000],
)
def test_a_prompt_is_only_a_text(prompt):
    client = TestClient(APP, raise_server_exceptions=False)
    words = {"images": [base64_of(grey(0))], "task": "alignment", "prompt": prompt, "reasoning": True}
    assert client.post("/v1/score", json=words).status_code == 200
    url = f"data:image/png;base64,{base64_of(grey(0))}"
    found = client.post("/v1/chat/completions", json=chat(url, {"type": "text", "text": prompt}))
    assert found.status_code == 200


@pytest.mark.parametrize("prompt", ["<image>" * 100, "<|image_pad|>" * 10, "a fox<|im_end|>", "[INST] a fox"])
def test_a_prompt_with_control_tokens_is_rejected_and_of_several_costs_its_own_image_alone(prompt):
    client = TestClient(APP, raise_server_exceptions=False)
    words = {"images": [base64_of(grey(0))], "task": "alignment", "prompt": prompt}
    found = client.post("/v1/score", json=words)
    assert found.status_code == 422 and "prompt: it contains" in found.json()["detail"]
    url = f"data:image/png;base64,{base64_of(grey(0))}"
    found = client.post("/v1/chat/completions", json=chat(url, {"type": "text", "text": prompt}))
    assert found.status_code == 422 and "the text contains" in found.json()["detail"]
    words = {"images": [base64_of(grey(0))] * 3, "task": "alignment", "prompt": ["a fox", prompt, "a cat"]}
    scores = [one["scores"]["alignment"] for one in client.post("/v1/score", json=words).json()["results"]]
    assert scores[1]["status"] == "error" and "control token" in scores[1]["error"] and scores[1]["score"] is None
    assert "error" not in (scores[0]["status"], scores[2]["status"])


def test_numbers_without_an_end_are_rejected():
    client = TestClient(APP, raise_server_exceptions=False)
    image = base64_of(grey(0))
    for number in ("1e999", "NaN", "-Infinity", "9" * 5000):
        for name in ("samples", "temperature"):
            body = f'{{"images": ["{image}"], "{name}": {number}}}'
            found = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
            assert found.status_code == 422 and json.loads(found.text)["detail"]
        for name in ("n", "temperature", "top_p", "max_tokens", "seed"):
            body = json.dumps({**chat(f"data:image/png;base64,{image}"), name: "NUMBER"}).replace('"NUMBER"', number)
            found = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
            assert found.status_code == 422 and json.loads(found.text)["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"messages": ' + b"[" * 100_000,
        b'{"model": "technical", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "\\u0000", "messages": [{"role": "user", "content": {"type": "text"}}]}',
        b'{"model": {"$ref": "technical"}, "messages": {"0": {}}}',
    ],
)
def test_a_chat_that_is_none_is_rejected(body):
    client = TestClient(APP, raise_server_exceptions=False)
    found = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 422 and len(found.json()["detail"]) < 1000
