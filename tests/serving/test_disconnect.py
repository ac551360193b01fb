"""What a server does when a client leaves before its answer: the request is cancelled, whatever its route."""

import asyncio
import base64
import socket
import time
from urllib.parse import urlsplit

import pytest
import requests
from serving_builders import app, base64_of, grey, listening

from omniq_verl.serving.middleware import CancelOnDisconnect

IMAGE = base64_of(grey(0))
URL = "data:image/png;base64," + base64.b64encode(grey(0)).decode()
PART = {"type": "image_url", "image_url": {"url": URL}}
CHAT = {"model": "technical", "messages": [{"role": "user", "content": [PART]}]}
QUESTIONS = {
    "/v1/score": ({"images": [IMAGE] * 3}, 3),
    "/v1/compare": ({"pairs": [{"a": IMAGE, "b": IMAGE}]}, 2),
    "/v1/chat/completions": (CHAT, 1),
    "/score": ({"model": "technical", "queries": "", "documents": {"content": [PART]}}, 1),
}
"""A body for each route, and how many questions the engine is asked."""


def until(holds) -> bool:
    """Whether a condition holds within a minute."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


@pytest.mark.parametrize("path", QUESTIONS)
def test_the_engine_drops_the_questions_of_a_client_that_left_and_answers_the_next(path):
    asgi = app("waits")
    engine, admission = asgi.state.server.models.scorer.engine, asgi.state.server.admission
    body, asked = QUESTIONS[path]
    with listening(asgi) as url:
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{url}{path}", json=body, timeout=(30, 1))
        assert until(lambda: engine.given_up == asked and admission.taken == 0), (engine.given_up, admission.taken)
        engine.script = ""
        assert requests.post(f"{url}{path}", json=body, timeout=60).status_code == 200
    assert engine.given_up == asked


def test_a_client_that_leaves_in_the_middle_of_its_body_takes_no_room():
    asgi = app()
    with listening(asgi) as url:
        there = urlsplit(url)
        with socket.create_connection((there.hostname, there.port)) as client:
            client.sendall(b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
            client.sendall(b'Content-Length: 1000\r\n\r\n{"images": ["')
        assert requests.post(f"{url}/v1/score", json={"images": [IMAGE]}, timeout=60).status_code == 200
    assert asgi.state.server.admission.taken == 0


def answered(application, *messages):
    """What an application sends after it receives these messages and nothing else."""
    sent, waiting = [], list(messages)

    async def receive():
        if waiting:
            return waiting.pop(0)
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    asyncio.run(CancelOnDisconnect(application)({"type": "http"}, receive, send))
    return sent


def test_work_after_the_answer_is_finished_although_the_client_has_left():
    done = []

    async def application(_scope, receive, send):
        await receive()
        await send({"type": "http.response.body"})
        assert await receive() == {"type": "http.disconnect"}
        await asyncio.sleep(0.05)
        done.append(True)

    whole = {"type": "http.request", "body": b"", "more_body": False}
    assert answered(application, whole, {"type": "http.disconnect"}) == [{"type": "http.response.body"}]
    assert done == [True]


def test_an_application_that_fails_after_its_client_left_is_no_error_of_the_server():
    async def application(_scope, receive, _send):
        if (await receive())["type"] == "http.disconnect":
            raise RuntimeError("nobody reads this")

    assert answered(application, {"type": "http.disconnect"}) == []


def test_errors_of_an_application_whose_client_waits_are_passed_on():
    async def application(_scope, _receive, _send):
        raise RuntimeError("somebody reads this")

    with pytest.raises(RuntimeError, match="somebody"):
        answered(application)
