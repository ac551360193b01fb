"""Rows of many layouts as verl's workers get them, and what a plain model says about each row alone."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
from transformers import Qwen2_5_VLForConditionalGeneration
from verl.utils import hf_processor
from verl.utils import tensordict_utils as tu

SQUARE = (80, 80)
CASES: dict[str, list[dict[str, Any]]] = {
    "mixed lengths": [{"images": [SQUARE], "answer": 3 + 5 * number} for number in range(6)],
    "rows of equal length": [{"images": [SQUARE], "answer": 7, "words": 1} for _ in range(4)],
    "one sequence": [{"images": [SQUARE], "answer": 7}] * 2,
    "images of different sizes": [
        {"images": [size], "answer": 5} for size in ((60, 90), (112, 56), (33, 47), (140, 28))
    ],
    "several images": [
        {"images": [SQUARE] * 2, "answer": 4},
        {"images": [(60, 90), (33, 47), SQUARE], "answer": 9},
        {"images": [SQUARE], "answer": 2},
        {"images": [(112, 56), SQUARE], "answer": 6},
    ],
    "no image": [{"images": [], "answer": 3 + 4 * number} for number in range(4)],
    "some without image": [
        {"images": [SQUARE], "answer": 6},
        {"images": [], "answer": 9},
        {"images": [], "answer": 1},
        {"images": [(60, 90)], "answer": 3},
    ],
    "temperature": [{"images": [SQUARE], "answer": 5, "temperature": 0.7 + 0.2 * number} for number in range(4)],
}
"""By name: rows with the sizes of their images (height, width), tokens of their answers, and their temperature."""


GROUPS: dict[str, list[tuple[dict[str, Any], list[int]]]] = {
    "groups": [({"images": [SQUARE]}, [3, 9, 1, 40]), ({"images": [(60, 90)]}, [5, 2, 33, 8])],
    "groups of many kinds": [
        ({"images": [SQUARE]}, [4]),
        ({"images": [(60, 90), (33, 47)]}, [7, 3]),
        ({"images": []}, [2, 5, 6]),
        ({"images": [SQUARE], "temperature": 0.7}, [1, 2]),
    ],
    "groups of equal length": [
        ({"images": [SQUARE], "words": 2}, [6] * 4),
        ({"images": [SQUARE], "words": 2}, [6] * 4),
    ],
    "a group of sixteen": [({"images": [SQUARE]}, [1 + number % 7 for number in range(16)])],
    "groups without images": [({"images": []}, [3, 4]), ({"images": []}, [6, 2])],
}
"""By name: prompts, and the tokens of each of their answers. The rows of different prompts alternate in the batch."""


def build_rows(model: Path, name: str) -> list[dict[str, Any]]:
    processor = hf_processor(str(model))
    random = np.random.default_rng(len(name))
    if name not in GROUPS:
        return [{**_row(processor, random, **row), "uid": f"row {i}"} for i, row in enumerate(CASES[name])]
    rows = []
    for number, (prompt, answers) in enumerate(GROUPS[name]):
        first = _row(processor, random, answer=answers[0], **prompt)
        rows += [{**_answered(processor, random, first, answer), "uid": f"group {number}"} for answer in answers]
    return [rows[i] for i in random.permutation(len(rows))]


def _answered(processor: Any, random: np.random.Generator, row: dict[str, Any], answer: int) -> dict[str, Any]:
    """The prompt of a row, with another answer."""
    return _with_answer(processor, random, row["prompts"], answer, row["multi_modal_inputs"], row["temperature"])


def _row(
    processor: Any,
    random: np.random.Generator,
    images: list[tuple[int, int]],
    answer: int,
    temperature: float = 1.0,
    words: int | None = None,
) -> dict[str, Any]:
    repeats = int(random.integers(4)) if words is None else words
    text_part = {"type": "text", "text": "Rate it." + " Well." * repeats}
    turns = [{"role": "user", "content": [*[{"type": "image"}] * len(images), text_part]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    pixels = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in images]
    inputs = processor(text=[text], images=pixels or None, return_tensors="pt")
    vision = {key: inputs[key] for key in ("pixel_values", "image_grid_thw") if key in inputs}
    return _with_answer(processor, random, inputs["input_ids"][0], answer, vision, torch.tensor(temperature))


def _with_answer(
    processor: Any,
    random: np.random.Generator,
    prompt: torch.Tensor,
    answer: int,
    vision: dict[str, torch.Tensor],
    temperature: torch.Tensor,
) -> dict[str, Any]:
    ids = torch.cat([prompt, torch.tensor(random.integers(100, 200, answer))])
    # A token's logits predict the next one, so that the answer's weights begin at the last token of the prompt.
    weights = torch.zeros(len(ids))
    weights[len(prompt) - 1 : -1] = torch.tensor(random.standard_normal(answer), dtype=torch.float32)
    return {
        "prompts": prompt,
        "responses": ids[len(prompt) :],
        "input_ids": ids,
        "position_ids": _positions(processor, ids, vision.get("image_grid_thw")),
        "loss_mask": torch.ones(answer, dtype=torch.long),
        "weights": weights,
        "multi_modal_inputs": vision,
        "temperature": temperature,
    }


def _positions(processor: Any, ids: torch.Tensor, grid: torch.Tensor | None) -> torch.Tensor:
    text = torch.arange(len(ids))[None]
    if grid is None:
        return text.expand(4, -1).contiguous()
    kinds = (ids == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
    vision, _ = processor.get_rope_index(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        image_grid_thw=grid,
        mm_token_type_ids=kinds[None],
    )
    return torch.cat([text, vision[:, 0]])


def as_batch(rows: list[dict[str, Any]], micro: int, tokens: int, shared: bool = False) -> TensorDict:
    """A batch cut into micro-batches of so many rows (0: all at once), or of at most so many tokens."""
    fields: dict[str, Any] = {"temperature": torch.stack([row["temperature"] for row in rows])}
    for name in rows[0].keys() - {"temperature"}:
        values = [row[name] for row in rows]
        fields[name] = AsyncSimpleStorageManager._pack_field_values(values)  # as a worker gets them
    batch = TensorDict(fields, batch_size=[len(rows)])
    settings = {"micro_batch_size_per_gpu": micro or len(rows), "use_dynamic_bsz": tokens > 0}
    tu.assign_non_tensor(batch, max_token_len_per_gpu=tokens, calculate_entropy=True, global_token_num=None, **settings)
    if shared:
        tu.assign_non_tensor(batch, omniq_shared_prompt=True)
    return batch


def written_out(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[torch.Tensor], list[torch.Tensor], np.ndarray]:
    """Log-probabilities and entropies of each row alone, by a plain model; and the gradient of their weighted sum."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    log_probs, entropies = [], []
    for row in rows:
        ids = row["input_ids"]
        logits = model(input_ids=ids[None], position_ids=row["position_ids"][:, None], **row["multi_modal_inputs"])
        logs = torch.log_softmax(logits.logits[0].float() / row["temperature"], dim=-1)
        found = logs[:-1].gather(1, ids[1:, None])[:, 0]
        entropy = -(logs.exp() * logs).sum(-1)
        (row["weights"][:-1] @ found + 0.1 * row["weights"] @ entropy).backward()
        log_probs.append(found.detach())
        entropies.append(entropy.detach())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return log_probs, entropies, torch.cat([gradient.flatten() for gradient in gradients]).numpy()
