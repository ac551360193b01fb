"""The prompts that scoring sends to a model, token by token."""

from collections.abc import Mapping, Sequence
from typing import Any

from omniq_verl.generation.chat_inputs import decode_images, question_text, sees


def scoring_prompts(
    model: str, rows: Sequence[Mapping[str, Any]], prompt_key: str = "prompt", image_key: str = "images"
) -> list[tuple[int, ...]]:
    """Token ids of rows' questions, as ``Scorer`` would send them to a model folder.

    Args:
        model: folder or hub name.
        rows: rows as in the parquet file, with images as bytes or as file names.
        prompt_key: column of the prompt.
        image_key: column of the images.
    """
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model)
    return [_token_ids(processor, row[prompt_key], [_bytes(one) for one in row.get(image_key) or []]) for row in rows]


def _token_ids(processor: Any, messages: Sequence[Mapping[str, str]], images: Sequence[bytes]) -> tuple[int, ...]:
    text = question_text(processor, messages)
    shown = {"images": decode_images(processor, images)} if images and sees(processor) else {}
    ids = processor(text=[text], **shown)["input_ids"][0]
    return tuple(ids.tolist() if hasattr(ids, "tolist") else ids)


def _bytes(image: Mapping[str, Any]) -> bytes:
    if image.get("bytes"):
        return image["bytes"]
    with open(str(image["image"]).removeprefix("file://"), "rb") as file:
        return file.read()
