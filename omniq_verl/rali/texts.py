"""The texts of image-text pairs, encoded once by the frozen text encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from omniq_verl.generation.model_folder import expanded
from omniq_verl.rali.encoder import TwoTowers
from omniq_verl.tasks import check_text


class Texts:
    """All texts of all images, encoded.

    Args:
        model: its text encoder is used.
        name: Hugging Face folder or name with the tokenizer.
        by_image: texts of each image, at least one per image.
        device: where to encode.

    Raises:
        ForbiddenText: a text contains control tokens of the tokenizer, at which a text encoder would stop.
    """

    def __init__(self, model: TwoTowers, name: str, by_image: Sequence[Sequence[str]], device: torch.device):
        flat = [text for texts in by_image for text in texts]
        self.number = np.array([len(texts) for texts in by_image])
        self.first = np.cumsum(self.number) - self.number
        distinct = {text: number for number, text in enumerate(dict.fromkeys(flat))}
        self.which = np.array([distinct[text] for text in flat])
        """Index of each text among the distinct texts."""
        tokenizer = AutoTokenizer.from_pretrained(expanded(name))
        for text in distinct:
            check_text(text, f"the text {text[:60]!r}", tokenizer)
        text: Any = model.config.text_config  # declared as a dictionary too, which it is only in the file
        self.most_tokens = text.max_position_embeddings
        self.cut, self.features = encode_texts(model, tokenizer, list(distinct), self.most_tokens, device)

    def draw(self, images_B: np.ndarray, random_B: np.ndarray) -> torch.Tensor:
        """Choose one text per image; returns their indices among the distinct texts ``[B]``.

        Args:
            images_B: indices of the images.
            random_B: numbers in [0, 1).
        """
        chosen = self.first[images_B] + (random_B * self.number[images_B]).astype(int)
        return torch.from_numpy(self.which[chosen])


def encode_texts(
    model: TwoTowers,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    most_tokens: int,
    device: torch.device,
    batch: int = 256,
) -> tuple[int, torch.Tensor]:
    """Number of truncated texts, and the embeddings ``[T, D]``, float32, of unit length, on the device."""
    # SigLIP was trained with every text padded to the full length, and without a mask.
    padding = "max_length" if model.config.model_type == "siglip" else True
    cut, found = 0, []
    model.text_model.to(device)  # pyright: ignore[reportArgumentType]  its decorator hides the parameters
    with torch.no_grad():
        for first in range(0, len(texts), batch):
            some = list(texts[first : first + batch])
            cut += sum(len(ids) > most_tokens for ids in tokenizer(some).input_ids)
            tokens = tokenizer(some, padding=padding, truncation=True, max_length=most_tokens, return_tensors="pt")
            mask = {} if padding == "max_length" else {"attention_mask": tokens.attention_mask.to(device)}
            pooled = model.text_model(input_ids=tokens.input_ids.to(device), **mask).pooler_output
            if isinstance(model, CLIPModel):
                pooled = model.text_projection.to(device)(pooled)
            found.append(functional.normalize(pooled.float(), dim=1))
    model.to("cpu")  # pyright: ignore[reportArgumentType]  its decorator hides the parameters
    return cut, torch.cat(found)
