"""The server's routes: answers, refusals, and that no caller's image gets another's score."""

import asyncio
import gzip
import json
import pickle
import threading
import time

import pytest
from serving_builders import Greys, app, base64_of, grey, server
from starlette.testclient import TestClient

from omniq_verl.serving.app import build_app
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.settings import key_digest

LEVELS = [(0, 1.0), (64, 2.0), (128, 3.01), (255, 5.0)]


def post(client, images, path="/v1/score", **words):
    return client.post(path, json={"images": [base64_of(image) for image in images], **words})


@pytest.fixture
def client():
    return TestClient(app(), raise_server_exceptions=False)


def scores_of(answer, task="technical"):
    assert answer.status_code == 200, answer.text
    return [one["scores"][task]["score"] for one in answer.json()["results"]]


def test_images_in_base64_get_their_scores_in_order(client):
    found = post(client, [grey(value) for value, _ in LEVELS])
    assert scores_of(found) == [score for _, score in LEVELS]
    one = found.json()["results"][0]
    assert one["name"] == "image 0" and one["scores"]["technical"]["level"] == "bad"
    assert one["scores"]["technical"]["reasoning"] is None  # not asked for


def test_images_as_files_get_the_same(client):
    files = [("images", (f"{value}.png", grey(value))) for value, _ in LEVELS]
    found = client.post("/v1/score", files=files, data={"task": "technical", "reasoning": "true"})
    assert scores_of(found) == [score for _, score in LEVELS]
    assert [one["name"] for one in found.json()["results"]] == ["0.png", "64.png", "128.png", "255.png"]
    assert "brightness" in found.json()["results"][0]["scores"]["technical"]["reasoning"]


def test_a_data_url_is_base64_too(client):
    assert scores_of(client.post("/v1/score", json={"images": ["data:image/png;base64," + base64_of(grey(255))]})) == [
        5.0
    ]


def test_several_tasks_are_answered_together(client):
    found = post(client, [grey(255)], task=["technical", "degradation"]).json()["results"][0]["scores"]
    assert found["technical"]["score"] == 5.0
    assert found["degradation"]["status"] == "ok" and found["degradation"]["distortion"] is None


def test_an_alignment_needs_its_text_for_one_or_all(client):
    assert post(client, [grey(0)], task="alignment").status_code == 422
    assert post(client, [grey(0), grey(255)], task="alignment", prompt=["a", "b"]).status_code == 200
    assert post(client, [grey(0), grey(255)], task="alignment", prompt="a").status_code == 200
    assert "2 images" in post(client, [grey(0), grey(255)], task="alignment", prompt=["a"]).json()["detail"]


def test_what_cannot_be_read_costs_no_other_image_its_score(client):
    found = post(client, [grey(255), b"no image", grey(0)]).json()["results"]
    assert [one["scores"]["technical"]["status"] for one in found] == ["ok", "bad_image", "ok"]
    assert "format" in found[1]["scores"]["technical"]["error"]


def test_half_a_character_in_an_answer_is_no_error():
    client = TestClient(app("hostile"), raise_server_exceptions=False)
    found = post(client, [grey(0)], reasoning=True)
    assert found.status_code == 200
    assert found.json()["results"][0]["scores"]["technical"]["status"] != "ok"


def test_pairs_are_compared_in_both_orders(client):
    pairs = [{"a": base64_of(grey(0)), "b": base64_of(grey(255))}, {"a": base64_of(grey(9)), "b": base64_of(grey(9))}]
    found = client.post("/v1/compare", json={"pairs": pairs}).json()["results"]
    assert [one["winner"] for one in found] == ["b", None] and [one["agree"] for one in found] == [True, False]
    files = {"a": ("a.png", grey(200)), "b": ("b.png", grey(0)), "reference": ("r.png", grey(1))}
    assert client.post("/v1/compare", files=files).json()["results"][0]["winner"] == "a"


def test_two_models_side_by_side():
    rali = Greys()
    client = TestClient(app(rali=rali))
    assert scores_of(post(client, [grey(255)], model="rali")) == [5.0] and rali.sizes == [1]
    assert scores_of(post(client, [grey(255)], model="reasoning")) == [5.0] and rali.sizes == [1]
    assert post(client, [grey(255)], model="rali", task="aesthetic").status_code == 422
    assert client.get("/v1/tasks").json()["models"] == ["reasoning", "rali"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ({"images": []}, 422, "images"),
        ({"images": ["/etc/passwd"]}, 422, "paths and URLs are not accepted"),
        ({"images": ["file:///etc/passwd"]}, 422, "paths and URLs are not accepted"),
        ({"images": ["http://169.254.169.254/latest"]}, 422, "paths and URLs are not accepted"),
        ({"images": ["AAAA"], "task": "beauty"}, 422, "unknown task 'beauty'"),
        ({"images": ["AAAA"], "task": "alignment", "prompt": " "}, 422, "alignment needs the text"),
        ({"images": ["AAAA"], "task": ["technical", "technical"]}, 422, "do not repeat any"),
        ({"images": ["AAAA"], "samples": 0}, 422, "samples"),
        ({"images": ["AAAA"], "samples": 17}, 422, "at most 16"),
        ({"images": ["AAAA"], "temperature": 0}, 422, "temperature"),
        ({"images": ["AAAA"], "model": "rali"}, 422, "rali is not served"),
        ({"images": ["AAAA"] * 65}, 413, "at most 64"),
        ({"images": ["AAAA"], "prompt": "x" * 10_001}, 422, "longer than 10,000"),
        ({"images": ["AAAA"], "extra": 1}, 422, "extra"),
        ({"images": {"a": "b"}}, 422, "images"),
        ([], 422, "body"),
    ],
)
def test_what_is_no_question_is_rejected_with_a_reason(client, words, status, said):
    found = client.post("/v1/score", json=words)
    assert found.status_code == status and said in found.json()["detail"]
    assert len(found.json()["detail"]) < 500  # what was sent is not sent back


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b'{"images": ["' + b"[" * 5000, "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b"images", "text/plain", 415),
        (b"", "application/json", 422),
        (b"--x\r\n", "multipart/form-data; boundary=x", 422),
        (b"", "multipart/form-data", 400),
    ],
)
def test_a_broken_body_is_rejected(client, content, kind, status):
    assert client.post("/v1/score", content=content, headers={"content-type": kind}).status_code == status


def test_a_form_without_its_end_loses_no_image_silently(client):
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + grey(0) + b"\r\n"
    for kind in ("multipart/form-data; boundary=x", 'multipart/form-data; boundary="x"; charset=utf-8'):
        sent = [
            client.post("/v1/score", content=body, headers={"content-type": kind}) for body in (2 * part, 3 * part[:-9])
        ]
        assert [one.status_code for one in sent] == [422, 422] and "it is cut off" in sent[0].json()["detail"]
        whole = client.post("/v1/score", content=2 * part + b"--x--\r\n", headers={"content-type": kind})
        assert len(whole.json()["results"]) == 2


def test_a_byte_order_mark_is_no_part_of_json_and_a_compressed_body_is_named(client):
    body, kind = json.dumps({"images": [base64_of(grey(0))]}).encode(), {"content-type": "application/json"}
    marked = client.post("/v1/score", content=b"\xef\xbb\xbf" + body, headers=kind)
    assert marked.status_code == 200 and scores_of(marked) == [1.0]
    packed = client.post("/v1/score", content=gzip.compress(body), headers={**kind, "content-encoding": "gzip"})
    assert packed.status_code == 415 and "content-encoding: 'gzip' is not read" in packed.json()["detail"]


def test_a_field_that_is_null_is_a_field_left_out(client):
    null = dict.fromkeys(("samples", "temperature", "task", "prompt", "reasoning", "stream", "mode", "unknown"))
    found = client.post("/v1/score", json={"images": [base64_of(grey(0))], **null})
    assert found.status_code == 200 and scores_of(found) == [1.0]


def test_a_long_body_is_rejected_by_its_head_and_while_it_comes(client):
    small = TestClient(app(limits=Limits(body=1000)), raise_server_exceptions=False)
    assert post(small, [grey(0, 400)] * 3).status_code == 413
    assert (
        small.post(
            "/v1/score", content=iter([b"x" * 600] * 3), headers={"content-type": "application/json"}
        ).status_code
        == 413
    )
    assert post(small, [grey(0)]).status_code == 200


def test_an_image_of_too_many_pixels_has_a_status_of_its_own():
    client = TestClient(app(limits=Limits(pixels=300), rali=Greys()))
    for model in ("reasoning", "rali"):
        found = post(client, [grey(0), grey(0, 20)], model=model).json()["results"]
        assert [one["scores"]["technical"]["status"] for one in found] == ["ok", "bad_image"]


def test_keys_are_asked_for_where_there_are_some():
    client = TestClient(app(keys=frozenset({key_digest("right")})))
    asked = {"json": {"images": [base64_of(grey(255))]}}
    assert client.post("/v1/score", **asked).status_code == 401
    assert client.post("/v1/score", **asked, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.post("/v1/score", **asked, headers={"Authorization": "Bearer right"}).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_a_local_server_answers_its_own_machine_alone():
    asgi = app(local=True)
    assert TestClient(asgi, client=("127.0.0.1", 5)).get("/healthz").status_code == 200
    assert TestClient(asgi, client=("203.0.113.9", 5)).get("/healthz").status_code == 403
    assert TestClient(app(), client=("203.0.113.9", 5)).get("/healthz").status_code == 200


def test_a_dead_engine_is_unavailable_and_its_words_stay_inside():
    client = TestClient(app("dead"), raise_server_exceptions=False)
    for found in (post(client, [grey(0)]), client.get("/readyz")):
        assert found.status_code == 503 and found.headers["retry-after"] and "own words" not in found.text
    assert client.get("/healthz").status_code == 200


def test_where_there_is_no_room_callers_are_told_to_come_again_and_room_is_given_back():
    made = server("waits", Limits(images=2, waiting=2, seconds=2))
    with TestClient(build_app(made)) as client:
        found = []
        first = threading.Thread(target=lambda: found.append(post(client, [grey(0)] * 2)))
        first.start()
        end = time.monotonic() + 30
        while made.admission.taken < 2 and time.monotonic() < end:
            time.sleep(0.001)
        rejected = post(client, [grey(0)])
        first.join()
    assert rejected.status_code == 429 and rejected.headers["retry-after"] == "1"
    assert found[0].status_code == 504 and made.admission.taken == 0
    assert made.models.scorer.engine.given_up == 2  # nobody waits for them any more


def test_a_server_that_is_told_to_end_begins_nothing_new():
    made = server()
    made.admission.draining = True
    client = TestClient(build_app(made))
    assert post(client, [grey(0)]).status_code == 503 == client.get("/readyz").status_code


def test_verl_omnis_pickles_are_answered_and_others_rejected(client):
    def ask(body, task="alignment"):
        return client.post(f"/verl-omni/{task}", content=body if isinstance(body, bytes) else pickle.dumps(body))

    said = {"images": [grey(0), grey(255)], "prompts": ["a", "b"], "metadata": {}}
    assert pickle.loads(ask(said).content) == {"scores": [1.0, 5.0]}
    assert "image 0" in pickle.loads(ask({**said, "images": [b"none", grey(1)]}).content)["error"]

    class Evil:
        def __reduce__(self):
            return (open, ("evil", "w"))

    for broken in (Evil(), b"", b"cos\nsystem\n.", {"images": [grey(0)]}, {**said, "prompts": ["a"]}, [1], 5):
        assert ask(broken).status_code == 422
    assert ask(b"\x80\x04Nr\xff\xff\xff\xff.").status_code == 422  # asks for 32 GB
    assert ask(said, "degradation").status_code == 422 and ask(said, "none").status_code == 422


def test_images_that_wait_share_batches_and_keep_their_scores():
    rali = Greys()
    made = server(rali=rali)

    async def ask(count: int) -> list[float]:
        found = await asyncio.gather(*(made.models.rali.score(grey(value % 256)) for value in range(count)))
        return [round(4 * (value % 256) / 255 + 1 - score.score, 6) for value, score in enumerate(found)]

    assert set(asyncio.run(ask(100))) == {0.0}
    assert sum(rali.sizes) == 100 and max(rali.sizes) == 16 and len(rali.sizes) < 12


def test_the_page_of_the_routes_needs_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert "http" not in page.replace("https://fastapi.tiangolo.com/img/favicon.png", "")
    schema = client.get("/openapi.json").json()
    assert {"/v1/score", "/v1/compare", "/v1/tasks", "/healthz", "/readyz"} <= schema["paths"].keys()
    body = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert "images" in body["application/json"]["schema"]["properties"] and "multipart/form-data" in body
