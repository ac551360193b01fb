"""Run vLLM in this process on a Hugging Face folder."""

import io
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from omniq_verl.data.image_size import UNBOUNDED, ImageSize
from omniq_verl.generation.chat_inputs import banned_tokens, decode_images, question_text, sees, tokenizer_of
from omniq_verl.generation.expectation import Vocabulary, Walk
from omniq_verl.generation.feeding import Feeder, Spent
from omniq_verl.generation.request import Answer, Answered, Job, Request, Sampling, only, rejection
from omniq_verl.generation.streaming import cores
from omniq_verl.generation.vllm_adapter import OfflineEngine, render, sampling_params
from omniq_verl.generation.vllm_direct import Expected, WalkingEngine
from omniq_verl.tasks import IMAGE_PLACEHOLDER

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec

MOST_THREADS = 32
"""Largest number of threads that prepare images. Our choice."""


def vllm_prompt(
    processor: Any, messages: Sequence[Mapping[str, str]], images: Sequence[bytes], size: ImageSize = UNBOUNDED
) -> dict[str, Any]:
    """A question as vLLM takes it, with the text and the images that verl's rollouts would send.

    Args:
        processor: the model's processor.
        messages: messages as in a row's ``prompt``.
        images: image files, one for each placeholder.
        size: bounds that larger images are shrunk to.

    Raises:
        ValueError: an image cannot be decoded, the processor rejects its shape, or the text contains control tokens.
    """
    return _prompt(question_text(processor, messages, len(images)), decode_images(processor, images, size))


def load_image_processor(engine: Any, processor: Any) -> None:
    """Make vLLM load its image processor, in this thread, by rendering a blank image.

    Otherwise each of the threads that prepare the first requests would load its own: with the vocabulary of
    Qwen2.5-VL, 17 threads took 150 s.
    """
    if not sees(processor):
        return
    blank = io.BytesIO()
    Image.new("RGB", (64, 64)).save(blank, "PNG")
    with suppress(ValueError):  # the first request would report it, too
        render(engine, vllm_prompt(processor, [{"role": "user", "content": IMAGE_PLACEHOLDER}], [blank.getvalue()]))


def _prompt(text: str, images: list[Image.Image]) -> dict[str, Any]:
    return {"prompt": text, "multi_modal_data": {"image": images}} if images else {"prompt": text}


class OfflineModel:
    """A vLLM engine for one model folder, in this process.

    Threads decode images and run the image processor while the engine generates; see ``Feeder``.
    """

    reads_scores = True

    def __init__(self, spec: "EngineSpec"):
        from transformers import AutoProcessor

        self._processor = AutoProcessor.from_pretrained(spec.model, trust_remote_code=spec.trust_remote_code)
        self._banned = list(banned_tokens(self._processor).values())
        self._size = spec.image_size
        self._vocabulary = Vocabulary.of(tokenizer_of(self._processor))
        self._engine = WalkingEngine(OfflineEngine(spec))
        load_image_processor(self._engine, self._processor)
        self._feeder = Feeder(self._engine, min(MOST_THREADS, cores() + 1))

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """``sampling.n`` answers to each request, in the order of the requests.

        Raises:
            ValueError: a request is rejected, for example because it is too long; then none is answered.
            RuntimeError: the engine has failed.
        """
        found: list[list[Answer]] = []
        with closing(self._stream([partial(only, request) for request in requests], sampling)) as outcomes:
            for (answers,) in outcomes:
                if isinstance(answers, ValueError):
                    raise answers
                found.append(answers)
        return found

    def stream(self, jobs: Iterable[Job], sampling: Sampling) -> Iterator[Answered]:
        """The outcome of each job, in order; see ``StreamingEngine``.

        Raises:
            RuntimeError: the engine has failed.
        """
        for outcome in self._stream(jobs, sampling):
            if isinstance(outcome, ValueError):
                yield outcome
            else:
                yield [rejection(one, sampling) if isinstance(one, ValueError) else one for one in outcome]

    def _stream(self, jobs: Iterable[Job], sampling: Sampling) -> Generator[Any, None, None]:
        return self._feeder.stream(jobs, partial(self._prepare, sampling))

    def close(self) -> None:
        """Give back the engine's memory. It answers nothing afterwards."""
        self._engine.close()

    @property
    def spent(self) -> Spent:
        """How the time has been spent so far."""
        return self._feeder.spent

    def _prepare(self, sampling: Sampling, requests: Sequence[Request]) -> tuple[list[Any], int]:
        decoded: dict[tuple[bytes, ...], list[Image.Image]] = {}
        prepared = [self._prepare_one(sampling, request, decoded) for request in requests]
        return prepared, sum(image.width * image.height for images in decoded.values() for image in images)

    def _prepare_one(
        self, sampling: Sampling, request: Request, decoded: dict[tuple[bytes, ...], list[Image.Image]]
    ) -> Any:
        try:
            text = question_text(self._processor, request.messages, len(request.images))
            text += "" if request.texts is None else request.texts.start
            if request.images not in decoded:
                decoded[request.images] = decode_images(self._processor, request.images, self._size)
            prompt = render(self._engine, _prompt(text, decoded[request.images]))
            if request.texts is not None:
                return Expected(prompt, Walk(self._vocabulary.spelling(request.texts)), request.texts)
            return prompt, sampling_params(request, sampling, self._banned)
        except ValueError as error:
            return error
