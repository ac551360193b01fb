"""Count the tokens of a prompt without preparing its pixels.

verl renders the chat template and lets the processor replace each image placeholder by as many tokens as the image
needs. Wordings and image sizes repeat, so text is counted once per wording and images once per size. This makes it
cheap enough to check every row of a data set.
"""

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import RLock
from typing import Any

from omegaconf import DictConfig

from omniq_verl.doctor.problem import Problem
from omniq_verl.tasks import chat_turns, messages_fault

Messages = tuple[tuple[str, str], ...]
"""(role, content) of each turn."""
ImageSize = tuple[int, int]
"""Height and width in pixels."""

_REMEMBERED = 10_000  # cached wordings and sizes; limits the memory if every row is different


@dataclass(frozen=True)
class Length:
    """Number of tokens of a prompt, and how many of them stand for its images."""

    total: int
    images: int


class PromptLength:
    """Counts the tokens that verl and the model's processor will produce for prompts. Safe to use from several threads.

    Args:
        processor: the model's processor, with a chat template.
        template_kwargs: ``data.apply_chat_template_kwargs`` of the configuration.
        processor_kwargs: ``data.mm_processor_kwargs`` of the configuration.
    """

    def __init__(
        self,
        processor: Any,
        template_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
    ):
        self._processor = processor
        self._lock = RLock()  # Hugging Face's tokenizers fail if two threads change their padding at once
        self._template_kwargs = template_kwargs or {}
        self._processor_kwargs = processor_kwargs or {}
        self._text_tokens = lru_cache(_REMEMBERED)(self._count_text)
        self._text_fault = lru_cache(_REMEMBERED)(self._check_text)
        self._image_tokens = lru_cache(_REMEMBERED)(self._count_image)
        self._processed_tokens = lru_cache(_REMEMBERED)(self._run_processor)
        images = processor.image_processor
        self._has_formula = hasattr(images, "get_number_of_image_patches") and hasattr(images, "merge_size")

    def count(self, messages: Messages, sizes: tuple[ImageSize, ...]) -> Length:
        """Count the tokens of a prompt whose placeholders stand for images of these sizes, in this order.

        Raises:
            ValueError: the processor rejects an image of this size.
        """
        with self._lock:
            return self._count(messages, sizes)

    def text_fault(self, messages: Messages) -> str | None:
        """Say why a prompt's texts must not reach the model's tokenizer (``tasks.outside_text``); None if they may."""
        with self._lock:
            return self._text_fault(messages)

    def _check_text(self, messages: Messages) -> str | None:
        return messages_fault(({"role": role, "content": content} for role, content in messages), None, self._processor)

    @cached_property
    def fingerprint(self) -> str | None:
        """Return everything a count depends on as text; None if unknown, e.g. for a tokenizer written in Python."""
        processor = self._processor
        backend = getattr(processor.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        with self._lock:
            parts = {
                "tokenizer": backend.to_str(),
                "classes": [_class_name(part) for part in (processor, processor.tokenizer, processor.image_processor)],
                "images": processor.image_processor.to_dict(),
                "template": processor.chat_template,
                "template_kwargs": self._template_kwargs,
                "processor_kwargs": self._processor_kwargs,
                "versions": [version(name) for name in ("transformers", "tokenizers", "qwen-vl-utils")],
            }
        return json.dumps(parts, sort_keys=True, default=repr)

    def _count(self, messages: Messages, sizes: tuple[ImageSize, ...]) -> Length:
        text = self._text_tokens(messages)
        if self._has_formula and not self._processor_kwargs:
            images = sum(self._image_tokens(size) for size in sizes)
            return Length(text - len(sizes) + images, images)
        total = self._processed_tokens(messages, sizes)
        return Length(total, total - text + len(sizes))

    def _render(self, messages: Messages) -> str:
        turns = chat_turns({"role": role, "content": content} for role, content in messages)
        settings = {"add_generation_prompt": True, **self._template_kwargs}
        return self._processor.apply_chat_template(turns, tokenize=False, **settings)

    def _count_text(self, messages: Messages) -> int:
        return len(self._processor.tokenizer(self._render(messages))["input_ids"])

    def _count_image(self, size: ImageSize) -> int:
        images = self._processor.image_processor
        return images.get_number_of_image_patches(*self._resized(size), {}) // images.merge_size**2

    def _resized(self, size: ImageSize) -> ImageSize:
        # verl passes every image through qwen_vl_utils before the processor, and rounding twice differs from rounding
        # once.
        from qwen_vl_utils.vision_process import SPATIAL_MERGE_SIZE, smart_resize

        patch = getattr(self._processor.image_processor, "patch_size", 14)  # as in verl's agent loop
        return smart_resize(*size, factor=patch * SPATIAL_MERGE_SIZE)

    def _run_processor(self, messages: Messages, sizes: tuple[ImageSize, ...]) -> int:
        from PIL import Image

        blank = [Image.new("RGB", (width, height)) for height, width in map(self._resized, sizes)] or None
        output = self._processor(text=[self._render(messages)], images=blank, **self._processor_kwargs)
        return len(output["input_ids"][0])


def _class_name(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def load_processor(model: DictConfig) -> Any:
    """Load the processor that verl will use for ``actor_rollout_ref.model``, with its chat template.

    Raises:
        ValueError: the model cannot see images, or its tokenizer's files are missing.
        Exception: whatever Hugging Face raises for files it cannot load.
    """
    from transformers import AutoProcessor, PreTrainedTokenizerBase

    _check_sees(model)
    path = model.tokenizer_path or model.path
    processor = AutoProcessor.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    if isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError("it has a tokenizer but no image processor")
    if not processor.tokenizer("a word")["input_ids"]:  # what transformers returns for a folder without tokenizer.json
        raise ValueError("its tokenizer knows no words; tokenizer.json is missing")
    processor.chat_template = model.custom_chat_template or processor.chat_template or processor.tokenizer.chat_template
    return processor


def _check_sees(model: DictConfig) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not hasattr(config, "auto_map"):
        raise ValueError(f"it is a {config.model_type}, which takes no images")


def processor_problem(key: str, path: str, error: Exception) -> Problem:
    """Return the problem for an error that ``load_processor`` raised for the model at ``path``."""
    what, fix = "its processor", "give a model that reads images, with its tokenizer and preprocessor files"
    if not Path(path).expanduser().exists():
        what = "there is no such folder here, and the processor of a model with that name on the hub"
    return Problem(f"{key}={path}", f"{what} cannot be loaded ({error})", fix)
