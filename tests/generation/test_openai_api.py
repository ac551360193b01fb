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
        self.asked, self.failures, self.most = [], [], 99
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
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
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
    from openai import InternalServerError

    server.failures = [500] * 9
    with pytest.raises(InternalServerError):
        Endpoint("m", server.address, retries=1).answer([request()], Sampling())


def test_an_endpoint_that_is_down_is_named():
    with pytest.raises(RuntimeError, match=r"http://127.0.0.1:9/v1/? cannot be reached"):
        Endpoint("m", "http://127.0.0.1:9/v1", retries=0).answer([request()], Sampling())
