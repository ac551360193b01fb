"""A request as a model of transformers' takes it: one text, and decoded images."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from omniq_verl.tasks import chat_turns

VISION_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
"""Tokens behind which a model looks for an image: it must not write them, for there is none."""


def question_text(processor: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """Messages, as in a row's ``prompt``, by the chat template of the model's processor.

    Raises:
        ValueError: the question shows an image to a language model, which has a tokenizer alone.
    """
    turns: Sequence[Any] = chat_turns(messages)
    if not sees(processor):
        if any(part["type"] != "text" for turn in turns for part in turn["content"]):
            raise ValueError("the question shows an image, and the model is a language model, which sees none")
        turns = list(messages)  # its template knows no parts
    return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def sees(processor: Any) -> bool:
    """Is it the processor of a model with eyes, and not the tokenizer of a language model?"""
    return hasattr(processor, "image_processor")


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer within a processor, or which it is."""
    return processor.tokenizer if sees(processor) else processor


def decode_images(processor: Any, images: Sequence[bytes]) -> list[Image.Image]:
    """Image files as verl's rollouts hand them to the processor: decoded, and resized by the same function.

    Raises:
        ValueError: an image cannot be decoded, or has a shape that the processor rejects.
    """
    if not images:
        return []
    from qwen_vl_utils import fetch_image

    size = getattr(processor.image_processor, "patch_size", 14)  # as verl's agent loop
    try:
        return [fetch_image({"image": Image.open(io.BytesIO(data))}, image_patch_size=size) for data in images]
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of every kind on broken data
        raise ValueError(f"an image does not decode ({error})") from error


def vision_tokens(processor: Any) -> dict[str, int]:
    """Those of ``VISION_TOKENS`` the tokenizer has, with their numbers."""
    known = tokenizer_of(processor).get_vocab()
    return {token: known[token] for token in VISION_TOKENS if token in known}


def banned_tokens(processor: Any) -> dict[str, int]:
    """Tokens that an answer must not contain, with their numbers: special tokens, except those that end an answer."""
    tokenizer = tokenizer_of(processor)
    known = tokenizer.get_vocab()
    special = {token: known[token] for token in tokenizer.all_special_tokens if token in known}
    ends = {tokenizer.eos_token, tokenizer.pad_token}
    return {token: number for token, number in (special | vision_tokens(processor)).items() if token not in ends}
