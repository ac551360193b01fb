"""``POST /score``: vLLM's own classes read what is sent and what comes back."""

import pytest
from serving_builders import app, base64_of, grey
from starlette.testclient import TestClient

from omniq_verl.serving.limits import Limits

NAMES = [("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2")]


def image(value: int) -> dict:
    url = f"data:image/png;base64,{base64_of(grey(value))}"
    return {"content": [{"type": "image_url", "image_url": {"url": url}}]}


def asked(**words):
    return TestClient(app(limits=Limits(images=3))).post("/score", json={"model": "technical", **words})


@pytest.mark.parametrize("names", NAMES)
def test_the_shape_is_vllms(names):
    protocol = pytest.importorskip("vllm.entrypoints.pooling.scoring.protocol")
    from pydantic import TypeAdapter

    sent = {"model": "technical", names[0]: "", names[1]: [image(0), image(255)]}
    read = TypeAdapter(protocol.ScoreRequest).validate_python(sent)
    assert read.data_1 == "" and read.model == "technical" and len(read.data_2) == 2
    response = asked(**sent)
    found = protocol.ScoreResponse.model_validate(response.json())
    assert [(one.index, one.object, one.score) for one in found.data] == [(0, "score", 1.0), (1, "score", 5.0)]
    assert (found.object, found.model) == ("list", "technical") and response.json()["usage"] == {}


def test_a_query_is_the_text_that_an_image_was_made_from():
    one = asked(model="omniq/alignment", queries="a fox", documents=[image(0), image(255)])
    each = asked(model="alignment", queries=["a fox", "a cat"], documents=[image(0), image(255)])
    parts = asked(model="alignment", queries={"content": [{"type": "text", "text": "a fox"}]}, documents=image(0))
    assert [one.status_code, each.status_code, parts.status_code] == [200, 200, 200], parts.text
    assert [pair["score"] for pair in each.json()["data"]] == [1.0, 5.0]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ({"queries": "words", "documents": image(0)}, 422, "uses no text"),
        ({"queries": "", "documents": "a text"}, 422, "document 0: send an image"),
        ({"queries": "", "documents": {"content": [{"type": "text", "text": "a"}]}}, 422, "document 0: send an image"),
        ({"queries": image(0), "documents": image(0)}, 422, "query 0: it is a text"),
        ({"queries": ["", ""], "documents": [image(0)] * 3}, 422, "2 queries for 3 documents"),
        ({"queries": "", "documents": []}, 422, "1 queries for 0 documents"),
        ({"queries": "", "documents": [image(0)] * 4}, 413, "at most 3"),
        ({"queries": ""}, 422, "give queries and documents"),
        ({"queries": "", "text_2": image(0)}, 422, "give queries and documents"),
        ({"queries": "", "documents": image(0), "items": image(0)}, 422, "give queries and documents"),
        ({"queries": "", "documents": image(0), "instruction": "be kind"}, 422, "instruction"),
        ({"model": "degradation", "queries": "", "documents": image(0)}, 422, "gives no score"),
        ({"model": "alignment", "queries": "", "documents": image(0)}, 422, "needs the text"),
        ({"model": "alignment", "queries": "a" * 10_001, "documents": image(0)}, 422, "longer than 10,000"),
        ({"model": "alignment", "queries": "a <|im_end|>", "documents": image(0)}, 422, "document 0: no score"),
        ({"model": "none", "queries": "", "documents": image(0)}, 422, "unknown task 'none'"),
    ],
)
def test_what_does_not_fit_is_rejected(words, status, said):
    response = asked(**words)
    assert response.status_code == status and said in response.json()["detail"]


def test_an_image_without_a_score_fails_the_request_because_the_shape_has_no_place_for_it():
    broken = {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
    response = asked(queries="", documents=[image(0), broken])
    assert response.status_code == 422 and "document 1: no score" in response.json()["detail"]
    elsewhere = {"content": [{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}]}
    assert "not a data URL" in asked(queries="", documents=elsewhere).json()["detail"]
