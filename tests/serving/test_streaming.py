"""Answers that are sent while they are written, and what happens when their reader leaves."""

import asyncio
import json
import threading
import time

import pytest
import requests
from evaluation_builders import Rater
from serving_builders import Writer, app, base64_of, grey, listening
from starlette.testclient import TestClient

from omniq_verl.generation.request import Answer, Piece, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.serving.in_process import InThread
from omniq_verl.serving.limits import Limits


def body(*values: int, **words) -> dict:
    return {"images": [base64_of(grey(value)) for value in values], "stream": True, **words}


def events(text: str) -> list[tuple[str, dict]]:
    """Names and data, as the standard of server-sent events reads them."""
    found = []
    for one in text.strip("\n").split("\n\n"):
        name, data = one.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_the_parts_of_each_answer_come_in_order_and_the_plain_response_at_the_end():
    client = TestClient(app(rater=Writer))
    sent = body(0, 255, reasoning=True, task=["technical", "aesthetic"])
    response = client.post("/v1/score", json=sent)
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, (last, result) = events(response.text)
    assert last == "result" and {name for name, _ in pieces} == {"piece"}
    assert result == client.post("/v1/score", json={**sent, "stream": False}).json()
    for index in (0, 1):
        for task in ("technical", "aesthetic"):
            mine = [one for _, one in pieces if (one["index"], one["name"]) == (index, task)]
            assert "".join(one["text"] for one in mine) == result["results"][index]["scores"][task]["answer"]
            assert [one["entropy"] for one in mine] == [[0.0], [0.25], [0.5], [0.75]]


def test_a_comparison_shows_both_orders():
    asked = {"pairs": [{"a": base64_of(grey(0)), "b": base64_of(grey(255))}], "stream": True}
    *pieces, (_, result) = events(TestClient(app(rater=Writer)).post("/v1/compare", json=asked).text)
    texts = {order: "".join(one["text"] for _, one in pieces if one["name"] == order) for order in ("ab", "ba")}
    assert texts == {"ab": "<answer>Image B</answer>", "ba": "<answer>Image A</answer>"}
    assert result["results"][0]["winner"] == "b"


def test_an_engine_that_cannot_show_its_answers_gives_them_as_a_whole():
    ((name, result),) = events(TestClient(app()).post("/v1/score", json=body(255)).text)
    assert name == "result" and result["results"][0]["scores"]["technical"]["score"] == 5.0


def test_a_form_can_ask_for_events():
    files = [("images", ("a.png", grey(0)))]
    found = TestClient(app(rater=Writer)).post("/v1/score", files=files, data={"stream": "true"})
    assert [name for name, _ in events(found.text)] == ["piece"] * 4 + ["result"]


@pytest.mark.parametrize(
    ("script", "limits", "words", "status", "said"),
    [
        ("", Limits(), {"samples": 2}, 422, "stream needs samples 1"),
        ("", Limits(images=2, waiting=2), {"task": ["technical", "aesthetic"]}, 429, "at capacity"),
        ("", Limits(), {"task": "none"}, 422, "unknown task 'none'"),
    ],
)
def test_a_request_that_is_rejected_at_once_has_a_plain_status(script, limits, words, status, said):
    response = TestClient(app(script, limits, rater=Writer)).post("/v1/score", json=body(0, 255, **words))
    assert response.status_code == status and said in response.json()["detail"]


@pytest.mark.parametrize(
    ("script", "limits", "status"), [("dead", Limits(), 503), ("endless", Limits(seconds=0.2), 504)]
)
def test_a_later_failure_is_an_event(script, limits, status):
    asgi = app(script, limits, rater=Writer)
    *_, (name, said) = events(TestClient(asgi).post("/v1/score", json=body(0)).text)
    assert name == "error" and said["status"] == status and "own words" not in said["detail"]
    assert asgi.state.server.admission.taken == 0


def test_writing_ends_when_the_reader_leaves():
    asgi = app("endless", rater=Writer)
    server = asgi.state.server
    with listening(asgi) as url:
        response = requests.post(f"{url}/v1/score", json=body(0), stream=True, timeout=30)
        assert next(response.iter_lines()) == b"event: piece"
        assert server.admission.taken == 1 and not server.models.scorer.engine.left.is_set()
        response.close()
        assert server.models.scorer.engine.left.wait(60)
        for _ in range(600):
            if server.admission.taken == 0:
                return
            time.sleep(0.05)
    raise AssertionError("its place is never free again")


class SyncWriter(Rater):
    """An engine in a thread that writes until it is told to stop."""

    def __init__(self):
        super().__init__(EngineSpec(""))
        self.ended = threading.Event()

    def write(self, request, sampling, tell, stopped):
        while not stopped.wait(0.01):
            tell(Piece("word ", (0.5,), (0.25,)))
        self.ended.set()
        return [Answer("")]


def test_an_engine_in_a_thread_is_stopped_and_is_free_for_the_next_question():
    request = Request("a", [{"role": "user", "content": "<image>"}], (grey(0),))

    async def leave() -> tuple[list, list[Answer]]:
        engine, told, enough = InThread(writer), [], asyncio.Event()

        def tell(piece: Piece) -> None:
            told.append(piece)
            enough.set()

        asked = asyncio.ensure_future(engine.write(request, Sampling(), tell))
        await enough.wait()
        asked.cancel()
        return told, await asyncio.wait_for(engine.answer(request, Sampling()), 10)

    writer = SyncWriter()
    told, answers = asyncio.run(leave())
    assert writer.ended.is_set() and told[0] == Piece("word ", (0.5,), (0.25,))
    assert "<answer>1.00</answer>" in answers[0].text
