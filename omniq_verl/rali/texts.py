"""The texts of image-text pairs, encoded once by the frozen text encoder."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from omniq_verl.generation.model_folder import expanded
from omniq_verl.tasks import check_text


class Texts:
    """All texts of all images, encoded.

    Args:
        model: whose text encoder it is.
        name: where its tokenizer lies.
        by_image: texts of each image, at least one.
        device: where to encode.

    Raises:
        ForbiddenText: one holds control tokens of the tokenizer, at which a text encoder would stop.
    """

    def __init__(self, model: PreTrainedModel, name: str, by_image: Sequence[Sequence[str]], device: torch.device):
        flat = [text for texts in by_image for text in texts]
        self.number = np.array([len(texts) for texts in by_image])
        self.first = np.cumsum(self.number) - self.number
        distinct = {text: number for number, text in enumerate(dict.fromkeys(flat))}
        self.which = np.array([distinct[text] for text in flat])
        """Of each text its number among those that differ."""
        tokenizer = AutoTokenizer.from_pretrained(expanded(name))
        for text in distinct:
            check_text(text, f"the text {text[:60]!r}", tokenizer)
        self.most_tokens = model.config.text_config.max_position_embeddings
        self.cut, self.features = encode_texts(model, tokenizer, list(distinct), self.most_tokens, device)

    def draw(self, images_B: np.ndarray, random_B: np.ndarray) -> torch.Tensor:
        """Of one text of each image its number among those that differ ``[B]``.

        Args:
            images_B: numbers of the images.
            random_B: from [0, 1).
        """
        chosen = self.first[images_B] + (random_B * self.number[images_B]).astype(int)
        return torch.from_numpy(self.which[chosen])


def encode_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    most_tokens: int,
    device: torch.device,
    batch: int = 256,
) -> tuple[int, torch.Tensor]:
    """How many texts were cut, and the texts' embeddings ``[T, D]``, float32, of length 1, on the device."""
    # SigLIP saw every text padded to its full length, and has no mask.
    padding = "max_length" if model.config.model_type == "siglip" else True
    cut, found = 0, []
    model.text_model.to(device)
    with torch.no_grad():
        for first in range(0, len(texts), batch):
            some = list(texts[first : first + batch])
            cut += sum(len(ids) > most_tokens for ids in tokenizer(some).input_ids)
            tokens = tokenizer(some, padding=padding, truncation=True, max_length=most_tokens, return_tensors="pt")
            mask = {} if padding == "max_length" else {"attention_mask": tokens.attention_mask.to(device)}
            pooled = model.text_model(input_ids=tokens.input_ids.to(device), **mask).pooler_output
            if hasattr(model, "text_projection"):
                pooled = model.text_projection.to(device)(pooled)
            found.append(functional.normalize(pooled.float(), dim=1))
    model.to("cpu")
    return cut, torch.cat(found)
