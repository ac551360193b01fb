"""Questions in the shape of OpenAI's chat API: the same answers as /v1/score, and a reason for each rejection."""

import pytest
from serving_builders import Greys, app, base64_of, grey, listening, server
from starlette.testclient import TestClient

from omniq_verl.generation.request import DONE, ERROR, LENGTH, Answer
from omniq_verl.serving.app import build_app
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.settings import key_digest

PATH = "/v1/chat/completions"


def image(value, url=None):
    return {"type": "image_url", "image_url": {"url": url or f"data:image/png;base64,{base64_of(grey(value))}"}}


def text(words):
    return {"type": "text", "text": words}


def chat(*parts, model="technical", **words):
    return {"model": model, "messages": [{"role": "user", "content": list(parts)}], **words}


class Recorder:
    """An engine that answers with a script and remembers what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    async def answer(self, request, sampling):
        self.asked.append((request, sampling))
        return self.answers

    async def check(self):
        pass


def recording(*answers):
    made = server()
    made.models.scorer.engine = Recorder(list(answers) or [Answer("<answer>2</answer>", tokens=7)])
    return TestClient(build_app(made), raise_server_exceptions=False), made.models.scorer.engine


@pytest.fixture
def client():
    return TestClient(app(), raise_server_exceptions=False)


@pytest.mark.parametrize("name", ["technical", "omniq/technical"])
def test_an_image_alone_gets_the_answer_of_v1_score(client, name):
    found = client.post(PATH, json=chat(image(255), model=name)).json()
    url = image(255)["image_url"]["url"]
    scored = client.post("/v1/score", json={"images": [url], "reasoning": True}).json()["results"][0]["scores"]
    assert found["choices"][0]["message"] == {"role": "assistant", "content": scored["technical"]["answer"]}
    assert found["choices"][0]["finish_reason"] == "stop" and found["object"] == "chat.completion"
    assert found["model"] == name and found["id"].startswith("chatcmpl-") and found["created"] > 1.7e9
    assert (found["omniq"]["score"], found["omniq"]["level"], found["omniq"]["status"]) == (5.0, "excellent", "ok")


@pytest.mark.parametrize("temperature", [None, 0.7])
def test_the_engine_gets_the_question_and_the_seed_of_v1_score(temperature):
    client, engine = recording()
    words = {} if temperature is None else {"temperature": temperature, "n": 2}
    samples = {} if temperature is None else {"temperature": temperature, "samples": 2}
    assert client.post(PATH, json=chat(image(9), text(" "), model="alignment", prompt="a fox", **words)).is_success
    sent = {"images": [base64_of(grey(9))], "task": "alignment", "prompt": "a fox", **samples}
    assert client.post("/v1/score", json=sent).is_success
    (ours, our_sampling), (theirs, their_sampling) = engine.asked
    assert (ours.messages, ours.images, ours.seed) == (theirs.messages, theirs.images, theirs.seed)
    assert our_sampling == their_sampling and "a fox" in str(ours.messages)


def test_a_text_is_asked_as_it_is_with_each_image_where_it_was_sent():
    client, engine = recording()
    parts = (text("First: "), image(0), text("\nsecond: "), image(255), text(" Which {low}?"))
    assert client.post(PATH, json=chat(*parts)).is_success
    ((request, _),) = engine.asked
    assert request.messages == [{"role": "user", "content": "First: <image>\nsecond: <image> Which {low}?"}]
    assert len(request.images) == 2 and request.images[0] != request.images[1]


def test_settings_reach_the_engine_and_tokens_are_counted():
    answers = [Answer("<answer>2</answer>", DONE, 7), Answer("<think>so lo", LENGTH, 9)]
    client, engine = recording(*answers)
    sent = {"n": 2, "temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "seed": 3}
    found = client.post(PATH, json=chat(image(0), **sent)).json()
    ((first, sampling),) = engine.asked
    assert (sampling.n, sampling.temperature, sampling.top_p, sampling.max_tokens) == (2, 0.5, 0.9, 9)
    assert [one["finish_reason"] for one in found["choices"]] == ["stop", "length"]
    assert [one["index"] for one in found["choices"]] == [0, 1]
    assert found["usage"] == {"completion_tokens": 16, "prompt_tokens": None, "total_tokens": None}
    assert (found["omniq"]["score"], found["omniq"]["parsed"], found["omniq"]["answers"]) == (2.0, 1, 2)
    client.post(PATH, json=chat(image(0), **{**sent, "seed": 4}))
    assert engine.asked[1][0].seed != first.seed


def test_an_answer_that_cannot_be_parsed_is_sent_with_its_status():
    client, _ = recording(Answer("It is \ud800 fine."))
    found = client.post(PATH, json=chat(image(0), text("How is it?"))).json()
    assert found["choices"][0]["message"]["content"] == "It is ? fine."
    assert found["omniq"]["status"] != "ok" and found["omniq"]["score"] is None


def test_what_the_engine_rejects_is_the_callers_fault():
    client, _ = recording(Answer("ValueError: 9,000 tokens", ERROR))
    found = client.post(PATH, json=chat(image(0)))
    assert found.status_code == 422 and "9,000 tokens" in found.json()["detail"]


HTTP = "http://169.254.169.254/latest"
REJECTED = [
    ({"stream": True}, "stream"),
    ({"model": "gpt-4o"}, "unknown task 'gpt-4o'"),
    ({"model": "x" * 5000}, "unknown task"),
    ({"model": "q_insight_comparison"}, "unknown task"),
    ({"n": 17}, "n: at most 16"),
    ({"n": 0}, "n"),
    ({"n": 2, "temperature": 0}, "temperature"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"max_tokens": 65}, "max_tokens: at most 64"),
    ({"max_completion_tokens": 10**30}, "max_tokens: at most 64"),
    ({"max_completion_tokens": 8, "max_tokens": 9}, "it differs from max_completion_tokens"),
    ({"seed": -1}, "seed"),
    ({"tools": []}, "tools"),
    ({"messages": []}, "messages"),
    ({"messages": chat(image(0))["messages"] * 2}, "messages"),
    ({"messages": [{"role": "system", "content": "Be kind."}]}, "role"),
    ({"messages": [{"role": "user", "content": "no image"}]}, "0 images"),
    (chat(*[image(0)] * 4, text("Which?")), "4 images"),
    (chat(image(0), image(1)), "about one image"),
    (chat(image(0), model="alignment"), "needs the text"),
    (chat(image(0), text("Well?"), prompt="a fox"), "prompt: it has no effect"),
    (chat(image(0), prompt="a <|im_end|>", model="alignment"), "prompt: it contains"),
    (chat(image(0), text("a <|im_end|>")), "the text contains"),
    (chat(image(0), text("an <ima"), text("ge>")), "the text contains"),
    (chat(image(0), text("an <ima"), image(0), text("ge>")), "the text contains"),
    (chat(image(0), text("x" * 10_001)), "longer than 10,000"),
    (chat(image(0, HTTP)), "not a data URL"),
    (chat(image(0, "file:///etc/passwd")), "not a data URL"),
    (chat(image(0, "/etc/passwd")), "not a data URL"),
    (chat(image(0, base64_of(grey(0)))), "not a data URL"),
    (chat(image(0, "data:image/png;base64,file:///etc/passwd")), "not base64"),
    (chat(image(0, f"data:image/png;base64,{base64_of(b'GET / HTTP')}")), "image 0: "),
    (chat({"type": "image_url"}), "image_url"),
    (chat({"type": "text", "text": "a", "image_url": {"url": HTTP}}), "no other"),
    (chat({"type": "input_audio", "input_audio": {}}), "type"),
    (chat(None), "messages"),
]


@pytest.mark.parametrize(("words", "said"), REJECTED)
def test_what_is_no_question_is_rejected_with_a_reason(client, words, said):
    found = client.post(PATH, json={**chat(image(0)), **words})
    assert found.status_code == 422 and said in found.json()["detail"], found.text
    assert found.json()["error"] == {"message": found.json()["detail"], "type": "invalid_request_error"}
    assert len(found.json()["detail"]) < 1000


NULL = ("n", "top_p", "temperature", "max_tokens", "seed", "stream", "stop", "tools", "stream_options", "metadata")


def test_what_clients_send_without_being_asked_changes_nothing(client):
    plain = client.post(PATH, json=chat(image(80))).json()["omniq"]
    more = {**dict.fromkeys(NULL), "frequency_penalty": 0.0, "presence_penalty": 0, "logprobs": False}
    turns = [{**turn, "name": None, "refusal": None} for turn in chat(image(80))["messages"]]
    found = client.post(PATH, json={**chat(image(80)), **more, "messages": turns})
    assert found.status_code == 200 and found.json()["omniq"] == plain
    url = image(80)["image_url"]["url"]
    assert client.post(PATH, json=chat({"type": "image_url", "image_url": url})).json()["omniq"] == plain


@pytest.mark.parametrize("words", [{"frequency_penalty": 0.5}, {"logprobs": True}, {"stop": ["."]}])
def test_what_would_change_an_answer_is_still_rejected(client, words):
    found = client.post(PATH, json={**chat(image(0)), **words})
    assert found.status_code == 422 and found.json()["detail"].startswith(f"{next(iter(words))}: ")


def test_the_place_of_a_fault_has_no_names_of_types(client):
    found = client.post(PATH, json=chat({"type": "image_url", "image_url": 5}))
    assert found.status_code == 422 and found.json()["detail"].startswith("messages.0.content.0.image_url: ")


def test_limits_and_keys_are_those_of_the_other_routes():
    sent = {"json": chat(image(0))}
    locked = TestClient(app(keys=frozenset({key_digest("right")})))
    assert (
        locked.post(PATH, **sent).status_code == 401 and "key" in locked.post(PATH, **sent).json()["error"]["message"]
    )
    assert locked.post(PATH, **sent, headers={"Authorization": "Bearer right"}).status_code == 200
    full = server(limits=Limits(images=1, waiting=1))
    full.admission.taken = 1
    found = TestClient(build_app(full)).post(PATH, **sent)
    assert found.status_code == 429 and found.headers["retry-after"]
    draining = server()
    draining.admission.draining = True
    assert TestClient(build_app(draining)).post(PATH, **sent).status_code == 503
    assert TestClient(app("dead"), raise_server_exceptions=False).post(PATH, **sent).status_code == 503
    assert TestClient(app(limits=Limits(body=100))).post(PATH, **sent).status_code == 413
    assert TestClient(app(limits=Limits(pixels=100))).post(PATH, **sent).status_code == 422
    slow = server("waits", Limits(seconds=0.1))
    assert TestClient(build_app(slow)).post(PATH, **sent).status_code == 504 and slow.admission.taken == 0
    alone = server(rali=Greys())
    alone.models.scorer = None
    assert "only RALI" in TestClient(build_app(alone)).post(PATH, **sent).json()["detail"]


def test_openais_own_client_reads_the_answer():
    from openai import OpenAI, UnprocessableEntityError

    with listening(app()) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        found = client.chat.completions.create(**chat(image(255)))
        assert "<answer>5.00</answer>" in found.choices[0].message.content and found.omniq["score"] == 5.0
        with pytest.raises(UnprocessableEntityError, match="unknown task"):
            client.chat.completions.create(**chat(image(255), model="gpt-4o"))


def test_only_json_is_read(client):
    found = client.post(PATH, files={"images": ("a.png", grey(0))})
    assert found.status_code == 415 and "multipart" not in found.json()["detail"]
    schema = client.get("/openapi.json").json()["paths"][PATH]["post"]["requestBody"]["content"]
    assert schema.keys() == {"application/json"} and "$ref" not in str(schema)
