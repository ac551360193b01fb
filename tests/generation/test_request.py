"""Requests: settings that make sense, seeds of their own, and one that is rejected."""

import pytest
from generation_builders import Echo
from transformers import PretrainedConfig, Qwen2_5_VLConfig

from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.request import Answer, Request, Sampling, answer_each, seed_of
from omniq_verl.generation.spec import EngineSpec

ECHO = "generation_builders:Echo"


def asked(*texts: str) -> list[Request]:
    return [Request(text, [{"role": "user", "content": text}]) for text in texts]


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 0},
        {"max_tokens": 0},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"n": 2, "temperature": 0},
        {"temperature": float("nan")},
    ],
)
def test_settings_without_sense_are_rejected(settings):
    with pytest.raises(ValueError, match="temperature"):
        Sampling(**settings)


def test_a_seed_belongs_to_key_and_run():
    assert seed_of("a") == seed_of("a", 0) != seed_of("b") != seed_of("b", 1)
    assert all(0 <= seed_of(str(number)) < 2**31 for number in range(1000))
    assert len({seed_of(str(number)) for number in range(1000)}) == 1000
    assert seed_of("half \ud800") >= 0


def test_a_request_that_is_rejected_costs_its_own_answers_only():
    engine = Echo(EngineSpec("rejects bad"))
    texts = ["one", "two", "bad three", "four", "five", "six", "bad seven"]
    found = answer_each(engine, asked(*texts), Sampling(n=2, temperature=1.0))
    assert [answers[0].finish_reason for answers in found] == ["stop", "stop", "error", "stop", "stop", "stop", "error"]
    assert found[2] == [Answer("ValueError: too long", "error")] * 2
    assert [answers[0].text.split(" seed")[0] for answers in found if answers[0].finish_reason == "stop"] == [
        text for text in texts if "bad" not in text
    ]


def test_a_dead_engine_is_not_taken_for_a_bad_request():
    class Dead:
        def answer(self, requests, sampling):
            raise RuntimeError("engine core died")

    with pytest.raises(RuntimeError, match="core died"):
        answer_each(Dead(), asked("a", "b"), Sampling())


def test_an_engine_of_ones_own_is_found_by_name():
    assert isinstance(open_engine(EngineSpec("x", ECHO)), Echo)


@pytest.mark.parametrize(("spec", "said"), [(("x", "vlm"), "unknown engine 'vlm'"), (("x", "openai"), "base_url=")])
def test_an_engine_that_is_none_is_rejected(spec, said):
    with pytest.raises(ValueError, match=said):
        open_engine(EngineSpec(*spec))


@pytest.mark.parametrize(
    ("asked_for", "made_for", "found"),
    [(None, 4096, 4096), (None, 128_000, 8192), (300, 4096, 300), (9000, 4096, 9000)],
)
def test_no_more_tokens_than_a_model_was_made_for_unless_asked_for(asked_for, made_for, found):
    own = Qwen2_5_VLConfig(text_config={"max_position_embeddings": made_for})
    assert EngineSpec("x", max_model_len=asked_for).length_of(own) == found


def test_a_model_that_names_no_length_gets_ours():
    assert EngineSpec("x").length_of(PretrainedConfig()) == 8192


@pytest.mark.parametrize("kind", ["nope:x", "generation_builders:Nobody"])
def test_an_engine_of_ones_own_that_is_not_there_is_named(kind):
    with pytest.raises(ValueError, match=f"the engine is '{kind}', and .* Fix: "):
        open_engine(EngineSpec("x", kind))
