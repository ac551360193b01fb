"""Engines by name, in a form that travels to the worker which opens one."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from omniq_verl.generation.model_folder import check_model_folder
from omniq_verl.generation.request import AsyncEngine, Engine


@dataclass(frozen=True)
class EngineSpec:
    """Which model answers, and what runs it."""

    model: str
    """A Hugging Face folder or name; for ``openai`` the name the endpoint knows."""
    kind: str = "vllm"
    """``vllm``, ``hf`` (transformers), ``openai`` (any endpoint that speaks its chat API), or
    ``package.module:function`` of your own: called with this object, it returns an engine
    (``omniq_verl.generation.request.Engine``)."""
    base_url: str | None = None
    """Of the endpoint, e.g. http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    max_model_len: int = 8192
    """Tokens of question and answer together."""
    dtype: str = "auto"
    memory: float = 0.85
    """Share of a device's memory vLLM may take; of a CPU's machine: of its memory."""
    devices: int = 1
    """GPUs over which one model is split."""
    images: int = 1
    """The most a question shows."""
    allow_pickle: bool = False
    """Load weights that are pickle files, which can run any code."""
    trust_remote_code: bool = False
    """Run Python code that lies in the model's folder."""

    def check(self) -> None:
        """Look at the model's folder, before anything long begins.

        Raises:
            ValueError: it is not there, or not safe to open.
        """
        if self.kind in ("vllm", "hf"):
            check_model_folder(self.model, self.allow_pickle, self.trust_remote_code)


def open_engine(spec: EngineSpec) -> Engine:
    """Load the model, or reach for the endpoint.

    Raises:
        ValueError: there is no such kind, an endpoint without an address, or a model that is not safe to open.
    """
    spec.check()
    if spec.kind == "vllm":
        from omniq_verl.generation.vllm_offline import OfflineModel

        return OfflineModel(spec)
    if spec.kind == "hf":
        from omniq_verl.generation.transformers_model import TransformersModel

        return TransformersModel(spec)
    if spec.kind == "openai":
        from omniq_verl.generation.openai_api import Endpoint

        return Endpoint(spec.model, spec.base_url)
    return _own(spec, "vllm, hf, openai")


def open_async_engine(spec: EngineSpec) -> AsyncEngine:
    """Load a model for requests that come one at a time.

    Raises:
        ValueError: there is no such kind, or the model is not safe to open.
    """
    spec.check()
    if spec.kind == "vllm":
        from omniq_verl.generation.vllm_async import AsyncModel

        return AsyncModel(spec)
    return _own(spec, "vllm")


def _own(spec: EngineSpec, others: str) -> Any:
    module, _, name = spec.kind.partition(":")
    if not name:
        raise ValueError(f"unknown engine {spec.kind!r}: {others} or package.module:function")
    return getattr(import_module(module), name)(spec)
