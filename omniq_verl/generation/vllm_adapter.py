"""Everything this package uses of vLLM, in one file; works with vLLM 0.24 to 0.30.

The two ends of that range differ in one thing that matters here. vLLM 0.24 raises ``ValueError`` for a request that it
rejects and ``Exception`` subclasses for an engine that has failed. vLLM 0.30 raises ``VLLMClientError`` and
``VLLMServerError``, which are neither ``ValueError`` nor ``RuntimeError``. ``translate_error`` maps both to the errors
that the engine protocols of ``request`` promise.
"""

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
"""At vLLM's own level, INFO, its pages of settings would bury our lines."""
_OF_A_GPU = 0.85
"""Share of a GPU's memory that vLLM is given by default."""
_OF_MEMORY = re.compile("memory.utilization|KV cache|kv cache|cache blocks", re.IGNORECASE)
MOST_TOKEN_IDS = 128
"""vLLM's limit on ``logprob_token_ids`` (``vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS``)."""
_STRONGEST_BIAS = -100.0
"""vLLM clamps biases to this. It divides a token's odds by e^100, so that the token is never written."""


class OfflineEngine:
    """A vLLM engine in this process, so that it cannot outlive the process and keep its memory.

    Not safe for several threads, except for ``render``. See ``feeding.StepEngine``.
    """

    def __init__(self, spec: "EngineSpec"):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", _LOG_LEVEL)
        from vllm import LLM

        with naming_our_options(spec):
            llm = LLM(**engine_settings(spec))
        self.renderer, self._engine = llm.renderer, llm.llm_engine

    def add(self, request_id: str, prepared: tuple[Any, Any]) -> None:
        """Take a request.

        Args:
            request_id: a new one for each request.
            prepared: what ``render`` and ``sampling_params`` return.

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
        """Give up requests that are not finished."""
        self._engine.abort_request(list(request_ids))


def open_async(spec: "EngineSpec") -> Any:
    """A ``vllm.v1.engine.async_llm.AsyncLLM``, whose engine is a process of its own."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", _LOG_LEVEL)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    with naming_our_options(spec):
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_settings(spec), disable_log_stats=True))


@contextmanager
def naming_our_options(spec: "EngineSpec") -> Iterator[None]:
    """Say in our words what vLLM says of too much or too little memory: its advice names an option we do not have."""
    try:
        yield
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else ""
        if not _OF_MEMORY.search(said):
            raise
        given = "the default" if spec.memory is None else f"{spec.memory:g}"
        raise RuntimeError(f"{spec.model}: {said} Fix: another --memory, a share from 0 to 1 (now {given})") from error


def engine_settings(spec: "EngineSpec") -> dict[str, Any]:
    """Keyword arguments for vLLM's engine, whether it runs in this process or in its own."""
    from transformers import AutoConfig
    from vllm.platforms import current_platform

    on_cpu, trust = current_platform.is_cpu(), {"trust_remote_code": spec.trust_remote_code}
    # It warns for every image that the number of threads has not changed. (vLLM's import resets levels set before.)
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
        engine: an ``OfflineEngine``, or what ``open_async`` returns.
        prompt: ``prompt`` (text), and ``multi_modal_data`` if it shows images.

    Returns:
        What the engine takes in place of the prompt.

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
        # vLLM's bad_words would do the same one request and one word at a time, in Python, at every step.
        logit_bias=dict.fromkeys(banned, _STRONGEST_BIAS) or None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # nobody else has this object
    )


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
    return [
        Answer(one.text, one.finish_reason if one.finish_reason in (DONE, LENGTH) else ERROR, len(one.token_ids))
        for one in result.outputs
    ]


def translate_error(error: Exception) -> ValueError | RuntimeError:
    """The error that our engines raise in place of one that vLLM raised while it took or answered a request.

    Returns:
        ``ValueError`` if vLLM rejected the request, ``RuntimeError`` if the engine failed.
    """
    from vllm import exceptions

    client_error = getattr(exceptions, "VLLMClientError", ValueError)  # vLLM 0.24 has none
    return ValueError(str(error)) if isinstance(error, (ValueError, client_error)) else engine_failure(error)


def engine_failure(error: BaseException) -> RuntimeError:
    """The error that our engines raise once vLLM's engine has failed."""
    return RuntimeError(f"vLLM's engine has failed ({type(error).__name__}: {error})")
