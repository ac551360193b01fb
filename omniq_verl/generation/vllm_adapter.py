"""All uses of vLLM in this package; works with vLLM 0.24 to 0.30.

The two ends of that range differ in one relevant way. vLLM 0.24 raises ``ValueError`` for a request that it
rejects and ``Exception`` subclasses for an engine that has failed. vLLM 0.30 raises ``VLLMClientError`` and
``VLLMServerError``, which are neither ``ValueError`` nor ``RuntimeError``. ``translate_error`` maps both to the errors
that the engine protocols of ``request`` promise.
"""

import gc
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omniq_verl.generation.cpu_memory import cpu_share, measured_memory, weight_bytes
from omniq_verl.generation.request import DONE, ERROR, LENGTH, Answer, Request, Sampling

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec

_LOG_LEVEL = "WARNING"
"""At vLLM's default, INFO, its pages of settings would bury our lines."""
_OF_A_GPU = 0.85
"""Default share of a GPU's memory for vLLM."""
_OF_MEMORY = re.compile("memory.utilization|KV cache|kv cache|cache blocks", re.IGNORECASE)
MOST_TOKEN_IDS = 128
"""vLLM's limit on ``logprob_token_ids`` (``vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS``)."""
_STRONGEST_BIAS = -100.0
"""Strongest bias that vLLM accepts. It divides a token's odds by e^100, so the token is never written."""


class OfflineEngine:
    """A vLLM engine in this process, so that it cannot outlive the process and occupy its memory.

    Within the process, it occupies memory until ``close``. Not thread-safe, except for ``render``. See
    ``feeding.StepEngine``.
    """

    def __init__(self, spec: "EngineSpec"):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", _LOG_LEVEL)
        from vllm import LLM

        with naming_our_options(spec):
            llm = LLM(**engine_settings(spec))
        self.renderer, self._engine = llm.renderer, llm.llm_engine
        self._closed = False

    def add(self, request_id: str, prepared: tuple[Any, Any]) -> None:
        """Add a request.

        Args:
            request_id: a new id for each request.
            prepared: results of ``render`` and ``sampling_params``.

        Raises:
            ValueError: vLLM rejects the request, for example because it is too long with its image tokens.
            RuntimeError: the engine has failed.
        """
        try:
            self._engine.add_request(request_id, *prepared)
        except Exception as error:
            raise translate_error(error) from error

    def step(self) -> list[tuple[str, list[Answer]]]:
        """Generate at least one token for some of the requests; returns ids and answers of those that are finished.

        Raises:
            RuntimeError: the engine has failed.
        """
        return [(result.request_id, answers_of(result)) for result in self.results()]

    def results(self) -> list[Any]:
        """As ``step``, with vLLM's own ``RequestOutput`` of each finished request.

        Raises:
            RuntimeError: the engine has failed.
        """
        try:
            return [result for result in self._engine.step() if result.finished]
        except Exception as error:  # a ValueError from in here, too, is about the engine
            raise engine_failure(error) from error

    def drop(self, request_ids: Sequence[str]) -> None:
        """Cancel unfinished requests."""
        if not self._closed:
            self._engine.abort_request(list(request_ids))

    def close(self) -> None:
        """Give back the memory, also that of a GPU. vLLM hides its objects from the garbage collector until then."""
        if self._closed:
            return
        self._closed = True
        try:
            self.renderer.shutdown()
            self._engine.engine_core.shutdown()
        finally:
            del self.renderer, self._engine
            _free_memory()


def _free_memory() -> None:
    """Collect what nothing refers to any more, and return its memory to the GPU."""
    import torch

    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def open_async(spec: "EngineSpec") -> Any:
    """A ``vllm.v1.engine.async_llm.AsyncLLM``, whose engine is a separate process."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", _LOG_LEVEL)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    with naming_our_options(spec):
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_settings(spec), disable_log_stats=True))


@contextmanager
def naming_our_options(spec: "EngineSpec") -> Iterator[None]:
    """Replace vLLM's advice about too much or too little memory, which names an option that we do not have."""
    try:
        yield
    except Exception as error:
        message = str(error).splitlines()[0] if str(error) else ""
        if not _OF_MEMORY.search(message):
            raise
        given = "the default" if spec.memory is None else f"{spec.memory:g}"
        raise RuntimeError(
            f"{spec.model}: {message} Fix: another --memory, a share from 0 to 1 (now {given})"
        ) from error


def engine_settings(spec: "EngineSpec") -> dict[str, Any]:
    """Keyword arguments for vLLM's engine, in this process or in a separate one."""
    from transformers import AutoConfig
    from vllm.platforms import current_platform

    on_cpu, trust = current_platform.is_cpu(), {"trust_remote_code": spec.trust_remote_code}
    # vLLM logs an unchanged thread count for every image; silence it. (Importing vLLM resets earlier log levels.)
    logging.getLogger("vllm.v1.worker.cpu_worker").setLevel(logging.ERROR)
    return {
        "model": spec.model,
        "max_model_len": spec.length_of(AutoConfig.from_pretrained(spec.model, **trust)),
        "dtype": spec.dtype,
        "gpu_memory_utilization": _memory_share(spec, on_cpu),
        "tensor_parallel_size": spec.devices,
        "load_format": "auto" if spec.allow_pickle else "safetensors",
        **trust,
        "use_tqdm_on_load": sys.stderr.isatty(),
        "enforce_eager": on_cpu,
        # On the CPU the prefill of a seeded request must not be split: see recipes/hardware/cpu.yaml.
        "enable_chunked_prefill": not on_cpu,
        "limit_mm_per_prompt": {"image": spec.images},
        # render() runs in several threads, and vLLM's cache of processed images is not thread-safe.
        "mm_processor_cache_gb": 0,
    }


def _memory_share(spec: "EngineSpec", on_cpu: bool) -> float:
    if on_cpu:
        return cpu_share(spec.memory, weight_bytes(spec.model), *measured_memory())
    return _OF_A_GPU if spec.memory is None else spec.memory


def render(engine: Any, prompt: Mapping[str, Any]) -> Any:
    """Tokenise a prompt and run the image processor on its images. Several threads may do this at once.

    Args:
        engine: an ``OfflineEngine``, or the result of ``open_async``.
        prompt: ``prompt`` (text), and ``multi_modal_data`` if it has images.

    Returns:
        The engine's input for this prompt.

    Raises:
        ValueError: vLLM rejects the prompt, for example because its text alone is too long.
    """
    try:
        (rendered,) = engine.renderer.render_cmpl([prompt])
    except MemoryError:
        raise
    except Exception as error:  # rendering changes nothing in the engine, so only this prompt can be at fault
        raise ValueError(f"vLLM rejects the request ({type(error).__name__}: {error})") from error
    return rendered


def sampling_params(request: Request, sampling: Sampling, banned: Sequence[int]) -> Any:
    """A request's ``vllm.SamplingParams``; the ``banned`` token ids are never written."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        # vLLM gives answer number j of the request the seed request.seed + j.
        seed=request.seed if sampling.temperature > 0 else None,
        # vLLM's bad_words would do the same in Python, one request and one word at a time, at every step.
        logit_bias=dict.fromkeys(banned, _STRONGEST_BIAS) or None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # the object is not shared
    )


def writing_params(request: Request, sampling: Sampling, banned: Sequence[int]) -> Any:
    """As ``sampling_params``, for results that come token by token with the log-probability of each."""
    from vllm.sampling_params import RequestOutputKind

    params = sampling_params(request, sampling, banned)
    params.output_kind, params.logprobs = RequestOutputKind.DELTA, 0  # 0: of the chosen token alone
    return params


def surprises_of(output: Any) -> list[float]:
    """Minus the log-probability of each new token in a ``CompletionOutput``, before temperature and bias."""
    return [
        max(0.0, -found[token].logprob) for token, found in zip(output.token_ids, output.logprobs or (), strict=True)
    ]


def extended(rendered: Any, tokens: Sequence[int]) -> Any:
    """What ``render`` returns, with further token ids behind the prompt."""
    return {**rendered, "prompt_token_ids": [*rendered["prompt_token_ids"], *tokens]} if tokens else rendered


def token_params(tokens: Sequence[int]) -> Any:
    """A request for the log-probabilities of these tokens, at most ``MOST_TOKEN_IDS``, behind a prompt."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        logprob_token_ids=list(tokens),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def log_probs_of(result: Any) -> dict[int, float]:
    """Log-probabilities of the first token of a finished ``RequestOutput``, before temperature and bias."""
    return {token: found.logprob for token, found in result.outputs[0].logprobs[0].items()}


def answers_of(result: Any) -> list[Answer]:
    """The answers in a finished ``RequestOutput``."""
    return [Answer(one.text, finish_reason_of(one), len(one.token_ids)) for one in result.outputs]


def finish_reason_of(output: Any) -> str:
    """Why a finished ``CompletionOutput`` ended."""
    return output.finish_reason if output.finish_reason in (DONE, LENGTH) else ERROR


def translate_error(error: Exception) -> ValueError | RuntimeError:
    """The error that our engines raise instead of one that vLLM raised while it accepted or answered a request.

    Returns:
        ``ValueError`` if vLLM rejected the request, ``RuntimeError`` if the engine failed.
    """
    from vllm import exceptions

    client_error = getattr(exceptions, "VLLMClientError", ValueError)  # vLLM 0.24 has none
    return ValueError(str(error)) if isinstance(error, (ValueError, client_error)) else engine_failure(error)


def engine_failure(error: BaseException) -> RuntimeError:
    """The error that our engines raise after vLLM's engine has failed."""
    return RuntimeError(f"vLLM's engine has failed ({type(error).__name__}: {error})")
