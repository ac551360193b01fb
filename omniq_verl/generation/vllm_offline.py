"""vLLM in this process over a Hugging Face folder."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from omniq_verl.generation.request import ERROR, Answer, Request, Sampling
from omniq_verl.tasks import chat_turns


def vllm_prompt(processor: Any, messages: Sequence[Mapping[str, str]], images: Sequence[bytes]) -> dict[str, Any]:
    """A question as vLLM takes it, with the text and the images verl's rollouts would send.

    Args:
        processor: of the model.
        messages: as in a row's ``prompt``.
        images: image files, one for each placeholder.

    Raises:
        ValueError: an image does not decode, or is of a shape the processor refuses.
    """
    text = processor.apply_chat_template(chat_turns(messages), tokenize=False, add_generation_prompt=True)
    if not images:
        return {"prompt": text}
    try:
        pictures = [_image(data, processor.image_processor.patch_size) for data in images]
    except OSError as error:  # as Pillow's are
        raise ValueError(f"an image does not decode ({error})") from error
    return {"prompt": text, "multi_modal_data": {"image": pictures}}


def _image(data: bytes, patch_size: int) -> Image.Image:
    from qwen_vl_utils import fetch_image

    # verl's rollouts resize with this function before the processor does.
    return fetch_image({"image": Image.open(io.BytesIO(data))}, image_patch_size=patch_size)


class OfflineModel:
    """A vLLM engine over one model folder.

    Args:
        model: Hugging Face folder.
        max_model_len: tokens of prompt and answer together.
        dtype: of the weights; float32 where answers have to be comparable with training on the CPU.
        memory: share of the device's memory vLLM may take (on the CPU: of the machine's); 0.5 as verl's rollouts.
        devices: GPUs over which the model is split.
    """

    def __init__(
        self, model: Path, max_model_len: int = 4096, dtype: str = "auto", memory: float = 0.5, devices: int = 1
    ):
        # vLLM's engine as a process of its own would outlive this one if it is killed, and keep its memory.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from transformers import AutoProcessor
        from vllm import LLM
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        self._processor = AutoProcessor.from_pretrained(model)
        self._engine = LLM(
            model=str(model),
            max_model_len=max_model_len,
            dtype=dtype,
            gpu_memory_utilization=memory,
            tensor_parallel_size=devices,
            enforce_eager=on_cpu,
            # A seeded request must not be split on the CPU: see recipes/hardware/cpu.yaml.
            enable_chunked_prefill=not on_cpu,
            limit_mm_per_prompt={"image": 1},
        )
        self._placeholders = self._vision_placeholders()

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """``sampling.n`` answers for each, in the order of the requests.

        Raises:
            ValueError: vLLM takes one of them not, such as one too long; none is answered then.
        """
        from vllm.exceptions import VLLMClientError

        prompts = [vllm_prompt(self._processor, request.messages, request.images) for request in requests]
        try:
            results = self._engine.generate(prompts, [self._settings(request, sampling) for request in requests])
        except VLLMClientError as error:  # no ValueError of its own
            raise ValueError(str(error)) from error
        return [
            [Answer(output.text, output.finish_reason or ERROR, len(output.token_ids)) for output in result.outputs]
            for result in results
        ]

    def _settings(self, request: Request, sampling: Sampling) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            # vLLM gives the n answers of a request the seeds from here on.
            seed=request.seed if sampling.temperature > 0 else None,
            # A model must not write vision placeholders: there is no image behind them.
            bad_words=self._placeholders,
        )

    def _vision_placeholders(self) -> list[str]:
        known = self._processor.tokenizer.get_vocab()
        tokens = (f"<|{name}|>" for name in ("image_pad", "video_pad", "vision_start", "vision_end"))
        return [token for token in tokens if token in known]
