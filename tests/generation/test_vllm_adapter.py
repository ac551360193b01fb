"""What we need of the installed vLLM, as far as it can be seen without an engine."""

import dataclasses
import io
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLProcessor
from vllm import exceptions
from vllm.config import DeviceConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.renderers import renderer_from_config
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.vllm_adapter import (
    OfflineEngine,
    answers_of,
    engine_failure,
    engine_settings,
    render,
    sampling_params,
    surprises_of,
    translate_error,
    writing_params,
)
from omniq_verl.generation.vllm_offline import load_image_processor, vllm_prompt
from omniq_verl.tiny.model import save_tiny_model


class Core:
    """In place of vLLM's engine core, which is the only one to free its memory."""

    shutdowns = 0

    def shutdown(self) -> None:
        Core.shutdowns += 1


def test_a_closed_engine_has_shut_down_its_core_and_lets_it_go(monkeypatch):
    core, renderer = Core(), SimpleNamespace(shutdown=lambda: None)
    left = weakref.ref(core)
    llm = SimpleNamespace(renderer=renderer, llm_engine=SimpleNamespace(engine_core=core))
    monkeypatch.setattr("vllm.LLM", lambda llm=llm, **_: llm)
    monkeypatch.setattr("omniq_verl.generation.vllm_adapter.engine_settings", lambda spec: {})
    engine = OfflineEngine(EngineSpec("x"))
    monkeypatch.undo()
    del core, llm
    engine.close()
    engine.close()
    engine.drop(["1"])  # of a stream that ends later
    assert Core.shutdowns == 1 and left() is None


SINCE_030 = [getattr(exceptions, name) for name in ("VLLMClientError", "VLLMServerError") if hasattr(exceptions, name)]


@pytest.mark.parametrize(
    "error",
    [
        VLLMValidationError("8,300 tokens", parameter="input_tokens", value=8300),
        ValueError("absolute aspect ratio must be smaller than 200"),
        *(made("8,300 tokens") for made in SINCE_030[:1]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_rejected_request_is_a_value_error_with_its_reason(error):
    found = translate_error(error)
    assert type(found) is ValueError and str(found) == str(error)


@pytest.mark.parametrize(
    "error",
    [
        EngineDeadError(),
        EngineGenerateError(),
        RuntimeError("CUDA out of memory"),
        AssertionError(),
        *(made("no room") for made in SINCE_030[1:]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_engine_is_a_runtime_error_that_names_the_cause(error):
    found = translate_error(error)
    assert type(found) is RuntimeError and f"vLLM's engine has failed ({type(error).__name__}" in str(found)


def test_within_a_step_a_value_error_too_tells_of_the_engine():
    assert "failed (ValueError: shape)" in str(engine_failure(ValueError("shape")))


def test_whatever_rendering_raises_is_about_the_request():
    class Engine:
        class renderer:
            @staticmethod
            def render_cmpl(prompts):
                assert len(prompts) == 2, "Failed to apply prompt replacement"

    with pytest.raises(ValueError, match=r"rejects the request \(AssertionError: Failed to apply"):
        render(Engine, {"prompt": "two images, one placeholder"})


def test_the_engine_knows_all_settings_it_is_opened_with(tmp_path: Path):
    save_tiny_model(tmp_path / "model", ["Rate it."], [np.zeros((80, 80, 3), dtype=np.uint8)])
    settings = engine_settings(EngineSpec(str(tmp_path / "model"), max_model_len=200, images=3, memory=0.3))
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    assert set(settings) | {"disable_log_stats"} <= known
    assert settings["max_model_len"] == 200 and settings["limit_mm_per_prompt"] == {"image": 3}
    assert settings["load_format"] == "safetensors" and settings["mm_processor_cache_gb"] == 0


def test_sampling_is_as_asked_and_nothing_else_is_set():
    sampled = sampling_params(Request("a", [], seed=7), Sampling(3, 0.7, 0.9, 50), [11, 12])
    assert (sampled.n, sampled.temperature, sampled.top_p, sampled.max_tokens, sampled.seed) == (3, 0.7, 0.9, 50, 7)
    assert sampled.logit_bias == {11: -100.0, 12: -100.0} and sampled.output_kind == RequestOutputKind.FINAL_ONLY
    greedy = sampling_params(Request("a", [], seed=7), Sampling(), [])
    assert (greedy.temperature, greedy.seed, greedy.logit_bias, greedy.bad_words) == (0.0, None, None, [])
    assert (greedy.top_k, greedy.repetition_penalty, greedy.stop_token_ids) == (0, 1.0, [])


def test_an_answer_that_is_shown_differs_only_in_what_comes_with_its_parts():
    plain, shown = (make(Request("a", [], seed=7), Sampling(), [11]) for make in (sampling_params, writing_params))
    assert (shown.output_kind, shown.logprobs) == (RequestOutputKind.DELTA, 0)
    shown.output_kind, shown.logprobs = plain.output_kind, plain.logprobs
    assert shown == plain


def test_the_surprise_of_a_token_is_minus_its_own_log_probability():
    found = [{5: Logprob(-0.5), 9: Logprob(-0.1)}, {7: Logprob(-2.0)}, {8: Logprob(0.0)}]
    output = CompletionOutput(0, "abc", [5, 7, 8], None, found)
    assert surprises_of(output) == [0.5, 2.0, 0.0]
    assert surprises_of(CompletionOutput(0, "", [], None, None)) == []


def test_an_answer_that_vllm_aborted_has_ended_in_error():
    outputs = [
        CompletionOutput(index, text, tokens, None, None, finish_reason=reason)
        for index, (text, tokens, reason) in enumerate([("a", [1, 2], "stop"), ("b", [3], "length"), ("", [], "abort")])
    ]
    result = RequestOutput("0", None, [1], None, outputs, finished=True)
    assert answers_of(result) == [Answer("a", "stop", 2), Answer("b", "length", 1), Answer("", "error", 0)]


def renderer_of(model: Path) -> Any:
    """vLLM's renderer without an engine, as for a model that is opened."""
    settings = engine_settings(EngineSpec(str(model), max_model_len=200))
    names = ("model", "max_model_len", "mm_processor_cache_gb", "limit_mm_per_prompt")
    config = EngineArgs(**{name: settings[name] for name in names}, dtype="float32").create_model_config()
    return renderer_from_config(VllmConfig(model_config=config, device_config=DeviceConfig("cpu")))


def test_the_image_processor_is_loaded_once_however_many_threads_prepare_requests(tmp_path: Path, monkeypatch):
    model = tmp_path / "model"
    save_tiny_model(model, ["Rate it."], [np.zeros((80, 80, 3), dtype=np.uint8)])
    processor = AutoProcessor.from_pretrained(model)
    loaded = []
    real = Qwen2_5_VLProcessor.from_pretrained.__func__
    spied = classmethod(lambda cls, *args, **kwargs: loaded.append(1) or real(cls, *args, **kwargs))
    monkeypatch.setattr(Qwen2_5_VLProcessor, "from_pretrained", spied)
    engine = SimpleNamespace(renderer=renderer_of(model))

    load_image_processor(engine, processor)
    loads = len(loaded)
    photo = io.BytesIO()
    Image.new("RGB", (80, 80), "grey").save(photo, "PNG")
    prompt = vllm_prompt(processor, [{"role": "user", "content": "Rate it. <image>"}], [photo.getvalue()])
    with ThreadPoolExecutor(8) as pool:
        rendered = list(pool.map(lambda _: render(engine, prompt), range(8)))
    assert loads >= 1 and len(loaded) == loads
    assert all(one["prompt_token_ids"] == rendered[0]["prompt_token_ids"] for one in rendered)


def test_for_a_language_model_nothing_is_rendered():
    rendered: list[Any] = []
    engine = SimpleNamespace(renderer=SimpleNamespace(render_cmpl=rendered.append))
    load_image_processor(engine, processor=SimpleNamespace())  # a tokenizer, without an image processor
    assert rendered == []
