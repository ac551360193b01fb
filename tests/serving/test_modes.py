"""Families and scores without reasoning over HTTP: the answers are those of ``Scorer``."""

import pytest
from serving_builders import DirectRater, Greys, app, base64_of, grey
from starlette.testclient import TestClient
from typer.testing import CliRunner

from omniq_verl.cli import app as omniq
from omniq_verl.families.find import FAMILIES
from omniq_verl.families.levels import Q_REALIGN
from omniq_verl.families.q_insight import Q_INSIGHT
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.scoring.scorer import Scorer
from omniq_verl.serving.in_process import in_process_app
from omniq_verl.serving.schemas import score_answer
from omniq_verl.serving.settings import ServerSettings
from omniq_verl.tasks import Scale

FENCED = "fenced_builders:Fenced"
VALUES = (0, 100, 255)


def client(family=None, mode=None, scale=None) -> TestClient:
    settings = ServerSettings(EngineSpec("", FENCED), family=family, mode=mode, scale=scale)
    return TestClient(in_process_app(settings))


def asked(http: TestClient, **words) -> list[dict]:
    images = [base64_of(grey(value)) for value in VALUES]
    response = http.post("/v1/score", json={"images": images, "reasoning": True, **words})
    assert response.status_code == 200, response.text
    return [one["scores"]["technical"] for one in response.json()["results"]]


def scored(mode: str, family=None, scale=None) -> list[dict]:
    scorer = Scorer(EngineSpec("", FENCED), mode=mode, family=family)
    found = scorer.score([grey(value) for value in VALUES], scale=scale)
    return [score_answer(one, reasoning=True).model_dump() for one in found]


@pytest.mark.parametrize("family", [Q_INSIGHT, None])
@pytest.mark.parametrize("mode", ["reason", "direct"])
@pytest.mark.parametrize("scale", [None, Scale(0.0, 5.0)])
def test_a_served_family_and_mode_give_the_scores_of_the_scorer(family, mode, scale):
    expected = scored(mode, family, scale)
    assert asked(client(family, mode, scale)) == expected  # by the server's setting
    assert asked(client(family, None, scale), mode=mode) == expected  # by the request
    # Not all alike: a family and a mode make a difference.
    assert [one["status"] for one in expected] == ["ok" if family or mode == "direct" else "not_a_number"] * 3


def test_both_modes_come_in_one_response():
    found = asked(client(Q_INSIGHT), mode="both")
    for one, direct in zip(found, scored("direct", Q_INSIGHT), strict=True):
        assert one.pop("direct") == {
            name: direct[name] for name in ("status", "score", "level", "std", "outside", "error")
        }
    expected = scored("reason", Q_INSIGHT)
    assert found == [{name: value for name, value in one.items() if name != "direct"} for one in expected]


def test_a_family_of_levels_answers_directly_and_compares_nothing():
    http = client(Q_REALIGN)
    assert asked(http) == scored("direct", Q_REALIGN)
    pair = {"pairs": [{"a": base64_of(grey(0)), "b": base64_of(grey(255))}]}
    response = http.post("/v1/compare", json=pair)
    assert response.status_code == 422 and "Q-ReAlign cannot compare images" in response.json()["detail"]
    known = http.get("/v1/tasks").json()
    assert (known["family"], known["mode"], known["modes"]) == ("q_realign", "direct", ["direct"])
    assert [(one["name"], one["low"], one["high"]) for one in known["tasks"]] == [
        ("technical", 0.0, 1.0),
        ("aesthetic", 0.0, 1.0),
    ]


def test_a_chat_and_a_pair_are_answered_in_the_servers_mode_and_family():
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_of(grey(255))}"}}
    chat = {"model": "technical", "messages": [{"role": "user", "content": [url]}]}
    pair = {"model": "technical", "queries": "", "documents": {"content": [url]}}
    for mode in ("reason", "direct"):
        http, expected = client(Q_INSIGHT, mode), scored(mode, Q_INSIGHT)[-1]
        found = http.post("/v1/chat/completions", json=chat).json()
        assert found["omniq"]["score"] == expected["score"]
        assert found["choices"][0]["message"]["content"] == expected["answer"]
        assert http.post("/score", json=pair).json()["data"][0]["score"] == expected["score"]
    assert http.post("/v1/chat/completions", json={**chat, "n": 2}).status_code == 422


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"mode": "direct", "samples": 2}, "mode direct does not sample"),
        ({"mode": "direct", "task": "degradation"}, "asks for no number"),
        ({"mode": "both", "task": "degradation"}, "asks for no number"),
        ({"mode": "direct", "model": "rali"}, "it has no effect on RALI"),
        ({"mode": "fast"}, "mode"),
    ],
)
def test_a_mode_that_cannot_be_is_rejected(words, said):
    http = TestClient(app(rater=DirectRater, rali=Greys()))
    response = http.post("/v1/score", json={"images": [base64_of(grey(0))], **words})
    assert response.status_code == 422 and said in response.json()["detail"]


def test_an_engine_without_probabilities_has_no_direct_mode():
    http = TestClient(app())
    assert http.get("/v1/tasks").json()["modes"] == ["reason"]
    response = http.post("/v1/score", json={"images": [base64_of(grey(0))], "mode": "direct"})
    assert response.status_code == 422 and "returns no probabilities" in response.json()["detail"]


def test_the_modes_and_the_direct_answer_are_in_the_schema():
    schema = TestClient(app()).get("/openapi.json").json()
    sent = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "expected value" in sent["properties"]["mode"]["description"]
    assert "server-sent events" in sent["properties"]["stream"]["description"]
    answer = schema["components"]["schemas"]["ScoreAnswer"]["properties"]
    assert "direct" in answer and "outside" in answer
    assert "/score" in schema["paths"]


@pytest.mark.parametrize("command", ["serve", "demo"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--family", "q_insihgt"), "use q_insight"),
        (("--mode", "fast"), "unknown mode 'fast'"),
        (("--family", "q_realign", "--mode", "reason"), "Q-ReAlign has no mode 'reason'"),
        (("--family", "q_realign", "--mode", "both"), "Q-ReAlign has no mode 'reason'"),
    ],
)
def test_the_commands_reject_what_cannot_be_before_a_model_is_loaded(tmp_path, command, words, said):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    found = CliRunner().invoke(
        omniq, [command, "--model", str(tmp_path), *words], env={"COLUMNS": "300", "TERM": "dumb"}
    )
    assert found.exit_code == 1 and said in found.output, found.output


def test_a_family_needs_no_other_tasks():
    assert {"technical"} <= set(FAMILIES["q_insight"].tasks)
    words = ["serve", "--model", "m", "--family", "auto", "--task", "a.b:c"]
    found = CliRunner().invoke(omniq, words, env={"COLUMNS": "200", "TERM": "dumb"})
    assert found.exit_code == 2 and "--task has no effect with --family" in found.output
