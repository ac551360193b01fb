"""An endpoint as an engine: the real client against a server that writes down what it is asked."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from generation_builders import png

from omniq_verl.generation.openai_api import Endpoint
from omniq_verl.generation.request import Answer, Request, Sampling


class Server(ThreadingHTTPServer):
    """Stands in for a served model, which would need a process of its own with vLLM in it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.failures, self.most, self.reply = [], [], 99, None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        text = str(body["messages"])
        if self.server.failures:
            return self._send(self.server.failures.pop(), {"error": {"message": "busy"}})
        if "too long" in text:
            return self._send(400, {"error": {"message": "maximum context length is 10 tokens"}})
        if self.server.reply is not None:
            return self._send(*self.server.reply)
        choices = [
            {
                "index": n,
                "finish_reason": "length" if n else "stop",
                "message": {"role": "assistant", "content": f"{n}"},
            }
            for n in range(min(body["n"], self.server.most))
        ]
        usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
        self._send(
            200,
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage},
        )

    def _send(self, status, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if data.startswith(b"<") else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def request(text: str = "Rate it.", *images: bytes) -> Request:
    return Request(text, [{"role": "user", "content": "<image>" * len(images) + text}], images, seed=7)


def test_a_request_arrives_with_its_image_and_settings(server):
    image = png()
    Endpoint("m", server.address).answer([request("Rate it.", image)], Sampling(2, 0.7, 0.9, 33))
    (asked,) = server.asked
    (turn,) = asked["messages"]
    assert turn["content"][1] == {"type": "text", "text": "Rate it."}
    head, _, data = turn["content"][0]["image_url"]["url"].partition(",")
    assert (head, base64.b64decode(data)) == ("data:image/png;base64", image)
    found = {key: asked[key] for key in ("model", "n", "temperature", "top_p", "max_tokens", "seed")}
    assert found == {"model": "m", "n": 2, "temperature": 0.7, "top_p": 0.9, "max_tokens": 33, "seed": 7}


def test_answers_come_back_in_the_order_of_the_requests(server):
    found = Endpoint("m", server.address).answer([request("too long"), request()], Sampling(2, 1.0))
    assert [answer.finish_reason for answer in found[0]] == ["error"] * 2 and "maximum context length" in found[0][
        0
    ].text
    assert found[1] == [Answer("0", "stop", 3), Answer("1", "length", 3)]


def test_an_endpoint_that_gives_one_answer_is_asked_for_the_others(server):
    server.most = 1
    (found,) = Endpoint("m", server.address).answer([request()], Sampling(3, 1.0))
    assert len(found) == 3
    assert [(asked["n"], asked["seed"]) for asked in server.asked] == [(3, 7), (2, 8), (1, 9)]


def test_a_busy_server_is_asked_again(server):
    server.failures = [503, 429]
    assert Endpoint("m", server.address).answer([request()], Sampling())[0][0].text == "0"
    assert len(server.asked) == 3


def test_a_server_that_stays_down_ends_the_job(server):
    server.failures = [500] * 9
    with pytest.raises(RuntimeError, match=r"/v1: Error code: 500.*Fix: see the endpoint's own log"):
        Endpoint("m", server.address, retries=1).answer([request()], Sampling())


def test_an_endpoint_that_is_down_is_named():
    with pytest.raises(RuntimeError, match=r"http://127.0.0.1:9/v1/? cannot be reached"):
        Endpoint("m", "http://127.0.0.1:9/v1", retries=0).answer([request()], Sampling())


def said(message: dict) -> dict:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}]}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "<answer>3</answer>", "reasoning_content": "dark"}, "<think>dark</think><answer>3</answer>"),
        ({"content": None, "reasoning": "dark and"}, "<think>dark and"),
        (
            {"content": [{"type": "text", "text": "<answer>"}, {"type": "text", "text": "3</answer>"}]},
            "<answer>3</answer>",
        ),
        ({"content": None}, ""),
    ],
)
def test_a_servers_own_field_for_reasoning_and_lists_of_parts_are_read(server, message, text):
    server.reply = 200, {**said(message), "usage": {"completion_tokens": None, "prompt_tokens": 1, "total_tokens": 1}}
    assert Endpoint("m", server.address).answer([request()], Sampling()) == [[Answer(text, "stop", 0)]]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>a proxy's page</html>", "does not answer as OpenAI's chat API does.*a proxy's page.*http://HOST"),
        (200, b'{"choices": [{"ind', "does not answer as OpenAI's chat API does"),
        (200, {"choices": [{"index": 0}]}, "does not answer as OpenAI's chat API does"),
        (
            404,
            {"detail": "Not Found"},
            "404.*Fix: correct the address, http://HOST:PORT/v1, or the name",
        ),
        (401, {"error": {"message": "no"}}, "401.*Fix: set OPENAI_API_KEY"),
    ],
)
def test_what_is_no_chat_concerns_the_endpoint_and_no_row(server, status, body, words):
    server.reply = status, body
    with pytest.raises(RuntimeError, match=words):
        Endpoint("m", server.address, retries=0).answer([request()], Sampling())


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "http://", "http://[::1", "http://a b/v1", "http://host:99999/v1"]
)
def test_what_is_no_address_is_said_before_anything_is_asked(url):
    with pytest.raises(ValueError, match=r"is no address of a server. Fix: write it as http://HOST:PORT/v1"):
        Endpoint("m", url)


def test_a_proxy_is_not_asked_for_this_machine_and_named_for_others(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Endpoint("m", server.address, retries=0).answer([request()], Sampling())[0][0].text == "0"
    with pytest.raises(RuntimeError, match=r"reached by a proxy .http_proxy.*set no_proxy=example\.com"):
        Endpoint("m", "http://example.com/v1", retries=0).answer([request()], Sampling())


def test_the_line_end_of_a_key_is_no_part_of_it(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key\n")
    assert Endpoint("m", server.address).answer([request()], Sampling())[0][0].text == "0"
    monkeypatch.setenv("OPENAI_API_KEY", "schl\u00fcssel")
    with pytest.raises(ValueError, match="OPENAI_API_KEY has characters"):
        Endpoint("m", server.address)
