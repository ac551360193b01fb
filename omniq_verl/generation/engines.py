"""Open engines by name, in the process that uses them."""

from typing import Any

from omniq_verl.generation.request import AsyncEngine, Engine, close_engine
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.weights import check_cached
from omniq_verl.object_reference import FORM, is_reference, load_function

EXPECTED = "function(spec: EngineSpec) -> an engine with answer(requests, sampling)"


def open_engine(spec: EngineSpec) -> Engine:
    """Load the model, or set up the connection to an endpoint.

    Raises:
        ValueError: the engine is unknown, the endpoint has no address, or the model is not safe to open.
    """
    spec.check()
    if spec.kind == "vllm":
        from omniq_verl.generation.vllm_offline import OfflineModel

        return _checked(OfflineModel(spec), spec)
    if spec.kind == "hf":
        from omniq_verl.generation.transformers_model import TransformersModel

        return TransformersModel(spec)
    if spec.kind == "openai":
        from omniq_verl.generation.openai_api import Endpoint

        return Endpoint(spec.model, spec.base_url)
    return _own(spec, "vllm, hf, openai")


def open_async_engine(spec: EngineSpec) -> AsyncEngine:
    """Load a model for requests that arrive one at a time.

    Raises:
        ValueError: the engine is unknown, or the model is not safe to open.
    """
    spec.check()
    if spec.kind == "vllm":
        from omniq_verl.generation.vllm_async import AsyncModel

        return _checked(AsyncModel(spec), spec)
    return _own(spec, "vllm")


def _checked(opened: Any, spec: EngineSpec) -> Any:
    # vLLM has downloaded a hub model by now. It does not notice missing parts of a fused tensor.
    try:
        check_cached(spec.model, spec.trust_remote_code)
    except Exception:
        close_engine(opened)
        raise
    return opened


def _own(spec: EngineSpec, others: str) -> Any:
    if not is_reference(spec.kind):
        raise ValueError(f"unknown engine {spec.kind!r}: {others} or {FORM}")
    opened = load_function("the engine", spec.kind, EXPECTED, 1)(spec)
    if not callable(getattr(opened, "answer", None)):
        raise ValueError(
            f"the engine is {spec.kind!r}, which returns {opened!r:.80} without a method answer. Fix: name {EXPECTED}"
        )
    return opened
