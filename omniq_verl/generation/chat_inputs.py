"""Convert a request to the input of a transformers model: one text, and decoded images."""

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from PIL import Image

from omniq_verl.data.image_size import UNBOUNDED, ImageSize
from omniq_verl.tasks import IMAGE_PLACEHOLDER, chat_turns
from omniq_verl.tasks.outside_text import FIX, ForbiddenText, control_tokens, messages_fault

VISION_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
"""Tokens after which a model expects an image. Answers must not contain them, because they have no images."""


def question_text(processor: Any, messages: Sequence[Mapping[str, str]], images: int | None = None) -> str:
    """Render messages, as in a row's ``prompt``, with the chat template of the model's processor.

    Args:
        processor: the model's processor; for a language model its tokenizer.
        messages: the turns; each ``<image>`` stands for an image.
        images: number of images; None skips the comparison.

    Raises:
        ForbiddenText: the messages contain control tokens of the model, also after its tokenizer's normalisation, or
            the number of images is wrong.
        ValueError: the question shows an image to a language model, which has only a tokenizer.
    """
    if fault := messages_fault(messages, images, processor):
        raise ForbiddenText(f"{fault}. Fix: {FIX}")
    text = _rendered(processor, messages)
    expected = _template_tokens(processor, messages)
    if (found := control_tokens(processor).sequence(text)) != expected:
        # Two harmless texts can form a control token together, or one text after the tokenizer's own normalisation.
        more = [token for token in found if found.count(token) != expected.count(token)] or found
        raise ForbiddenText(f"the model's tokenizer reads {more[0]} in the question. Fix: {FIX}")
    return text


def _rendered(processor: Any, messages: Sequence[Mapping[str, str]]) -> str:
    turns: Sequence[Any] = chat_turns(messages)
    if not sees(processor):
        if any(part["type"] != "text" for turn in turns for part in turn["content"]):
            raise ValueError("the question shows an image, but the model is a language model, which cannot see it")
        turns = list(messages)  # its template does not know content parts
    return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def _template_tokens(processor: Any, messages: Sequence[Mapping[str, str]]) -> list[str]:
    """The control tokens that the chat template itself puts around messages of this form."""
    form = tuple((turn["role"], tuple(part["type"] for part in turn["content"])) for turn in chat_turns(messages))
    return _tokens_of_form(processor, str(processor.chat_template), form)


@lru_cache(maxsize=256)
def _tokens_of_form(processor: Any, _template: Any, form: tuple[tuple[str, tuple[str, ...]], ...]) -> list[str]:
    plain = [
        {"role": role, "content": "".join("x" if part == "text" else IMAGE_PLACEHOLDER for part in parts)}
        for role, parts in form
    ]
    return control_tokens(processor).sequence(_rendered(processor, plain))


def sees(processor: Any) -> bool:
    """Whether it is the processor of a model that takes images, rather than a language model's tokenizer."""
    return hasattr(processor, "image_processor")


def tokenizer_of(processor: Any) -> Any:
    """A processor's tokenizer, or the tokenizer itself."""
    return processor.tokenizer if sees(processor) else processor


def decode_images(processor: Any, images: Sequence[bytes], size: ImageSize = UNBOUNDED) -> list[Image.Image]:
    """Image files as verl's rollouts hand them to the processor: decoded, and resized by the same function.

    Args:
        processor: of the model.
        images: files.
        size: bounds that larger images are shrunk to first.

    Raises:
        ValueError: an image cannot be decoded, or has a shape that the processor rejects.
    """
    if not images:
        return []
    from qwen_vl_utils import fetch_image

    patch = getattr(processor.image_processor, "patch_size", 14)  # as verl's agent loop
    try:
        opened = (size.fit(Image.open(io.BytesIO(data))) for data in images)
        return [fetch_image({"image": image}, image_patch_size=patch) for image in opened]
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of every kind on broken data
        raise ValueError(f"an image does not decode ({error})") from error


def vision_tokens(processor: Any) -> dict[str, int]:
    """The ``VISION_TOKENS`` that the tokenizer has, with their ids."""
    known = tokenizer_of(processor).get_vocab()
    return {token: known[token] for token in VISION_TOKENS if token in known}


def banned_tokens(processor: Any) -> dict[str, int]:
    """Tokens that an answer must not contain, with their ids: special tokens, except those that end an answer."""
    tokenizer = tokenizer_of(processor)
    known = tokenizer.get_vocab()
    special = {token: known[token] for token in tokenizer.all_special_tokens if token in known}
    ends = {tokenizer.eos_token, tokenizer.pad_token}
    return {token: number for token, number in (special | vision_tokens(processor)).items() if token not in ends}
