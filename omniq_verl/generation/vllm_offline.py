"""vLLM in this process over a Hugging Face folder."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omniq_verl.generation.question import decode_images, question_text, vision_tokens
from omniq_verl.generation.request import ERROR, Answer, Request, Sampling

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec

MOST_PIXELS = 2**28
"""Of the images vLLM is given together, as it holds what it makes of all of them, some 25 bytes a pixel: 7 GB. That is
all of 256 images of 1024 x 768 (KonIQ), and 20 of the largest that are not scaled down. Ours."""


def vllm_prompt(processor: Any, messages: Sequence[Mapping[str, str]], images: Sequence[bytes]) -> dict[str, Any]:
    """A question as vLLM takes it, with the text and the images verl's rollouts would send.

    Args:
        processor: of the model.
        messages: as in a row's ``prompt``.
        images: image files, one for each placeholder.

    Raises:
        ValueError: an image does not decode, or is of a shape the processor refuses.
    """
    text = question_text(processor, messages)
    if not images:
        return {"prompt": text}
    return {"prompt": text, "multi_modal_data": {"image": decode_images(processor, images)}}


def engine_settings(spec: "EngineSpec") -> dict[str, Any]:
    """What vLLM's engine is opened with, in this process or beside it."""
    from transformers import AutoConfig
    from vllm.platforms import current_platform

    on_cpu, trust = current_platform.is_cpu(), {"trust_remote_code": spec.trust_remote_code}
    # For every image: that the number of threads stays as it is.
    logging.getLogger("vllm.v1.worker.cpu_worker").setLevel(logging.ERROR)
    return {
        "model": spec.model,
        "max_model_len": spec.length_of(AutoConfig.from_pretrained(spec.model, **trust)),
        "dtype": spec.dtype,
        "gpu_memory_utilization": spec.memory,
        "tensor_parallel_size": spec.devices,
        "load_format": "auto" if spec.allow_pickle else "safetensors",
        **trust,
        "enforce_eager": on_cpu,
        # A seeded request must not be split on the CPU: see recipes/hardware/cpu.yaml.
        "enable_chunked_prefill": not on_cpu,
        "limit_mm_per_prompt": {"image": spec.images},
    }


def sampling_params(request: Request, sampling: Sampling, banned: Sequence[str]) -> Any:
    """As vLLM takes it; ``banned`` words are never written."""
    from vllm import SamplingParams

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        # vLLM gives the n answers of a request the seeds from here on.
        seed=request.seed if sampling.temperature > 0 else None,
        bad_words=list(banned),
    )


def answers_of(result: Any) -> list[Answer]:
    """Of one of vLLM's finished requests."""
    return [Answer(output.text, output.finish_reason or ERROR, len(output.token_ids)) for output in result.outputs]


class OfflineModel:
    """A vLLM engine over one model folder, in this process."""

    def __init__(self, spec: "EngineSpec"):
        # vLLM's engine as a process of its own would outlive this one if it is killed, and keep its memory.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # its pages of settings would bury our own lines
        from transformers import AutoProcessor
        from vllm import LLM

        self._processor = AutoProcessor.from_pretrained(spec.model, trust_remote_code=spec.trust_remote_code)
        self._engine = LLM(**engine_settings(spec))
        self._banned = list(vision_tokens(self._processor))

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """``sampling.n`` answers for each, in the order of the requests.

        Raises:
            ValueError: vLLM takes one of them not, such as one too long; none is answered then.
        """
        from vllm.exceptions import VLLMClientError

        settings = iter([sampling_params(request, sampling, self._banned) for request in requests])
        prompts = (vllm_prompt(self._processor, request.messages, request.images) for request in requests)
        results: list[Any] = []
        try:
            for portion in portions(prompts, MOST_PIXELS):
                results += self._engine.generate(portion, [next(settings) for _ in portion], use_tqdm=False)
        except VLLMClientError as error:  # no ValueError of its own
            raise ValueError(str(error)) from error
        return [answers_of(result) for result in results]


def portions(prompts: Iterable[dict[str, Any]], most: int) -> Iterator[list[dict[str, Any]]]:
    """The prompts in their order, in lists of one, or whose images have no more than ``most`` pixels together."""
    held, pixels = [], 0
    for prompt in prompts:
        images = prompt.get("multi_modal_data", {}).get("image", [])
        size = sum(image.width * image.height for image in images)
        if held and pixels + size > most:
            yield held
            held, pixels = [], 0
        held.append(prompt)
        pixels += size
    if held:
        yield held
