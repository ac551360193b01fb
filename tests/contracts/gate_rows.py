"""Rows as verl's workers get them, and what equation 1 says of them, written out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from transformers import Qwen2_5_VLForConditionalGeneration
from verl.utils import hf_processor
from verl.utils import tensordict_utils as tu

CLIP, KL = 0.2, 0.04


def plain_rows(model: Path, count: int) -> list[dict[str, Any]]:
    """Rows with an image, responses of different lengths and made-up log-probabilities near the model's."""
    processor = hf_processor(str(model))
    random = np.random.default_rng(0)
    return [one_row(processor, random, length=3 + 2 * number) for number in range(count)]


def one_row(processor: Any, random: np.random.Generator, length: int) -> dict[str, Any]:
    # Prompts of one length would come as a dense tensor, which verl's rows never are.
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rate it." + " Well." * (length % 3)}]}
    ]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    image = random.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    inputs = processor(text=[text], images=[image], return_tensors="pt")
    prompt, response = inputs["input_ids"][0], torch.tensor(random.integers(100, 200, length))
    ids = torch.cat([prompt, response])
    grid = inputs["image_grid_thw"]
    kinds = (ids == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
    vision, _ = processor.get_rope_index(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        image_grid_thw=grid,
        mm_token_type_ids=kinds[None],
    )

    def near(middle: float, spread: float) -> torch.Tensor:
        return torch.tensor(middle + spread * random.standard_normal(length), dtype=torch.float32)

    usual = -float(np.log(len(processor.tokenizer)))
    return {
        "prompts": prompt,
        "responses": response,
        "input_ids": ids,
        "position_ids": torch.cat([torch.arange(len(ids))[None], vision[:, 0]]),
        "response_mask": torch.ones_like(response),
        "loss_mask": torch.ones_like(response),
        "old_log_probs": near(usual, 0.1),
        "ref_log_prob": near(usual, 0.1),
        "advantages": torch.full((length,), float(random.standard_normal())),
        "entropy": near(2.0, 1.0),
        "multi_modal_inputs": {"pixel_values": inputs["pixel_values"], "image_grid_thw": grid},
    }


def masked_copy(row: dict[str, Any]) -> dict[str, Any]:
    """As a batch is padded: nothing of it counts, though its entropies are the highest."""
    none = torch.zeros_like(row["response_mask"])
    return {**row, "response_mask": none, "loss_mask": none, "entropy": row["entropy"] + 100}


def as_batch(rows: list[dict[str, Any]]) -> TensorDict:
    batch = tu.list_of_dict_to_tensordict(rows)
    tu.assign_non_tensor(batch, temperature=1.0, calculate_entropy=False, global_batch_size=len(rows))
    return batch


def log_probs_and_entropy(model: Any, row: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    output = model(
        input_ids=row["input_ids"][None], position_ids=row["position_ids"][:, None], **row["multi_modal_inputs"]
    )
    logits = output.logits[0, len(row["prompts"]) - 1 : -1].float()
    every = torch.log_softmax(logits, dim=-1)
    return every.gather(1, row["responses"][:, None])[:, 0], -(every.exp() * every).sum(-1)


def own_entropy(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the entropies the model itself has."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return [{**row, "entropy": log_probs_and_entropy(model, row)[1]} for row in rows]


def reference_gradient(folder: Path, rows: list[dict[str, Any]], gate: dict[str, Any]) -> np.ndarray:
    """Equation 1 with the KL term, one row after another, without verl."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    rho, scope = gate.get("gate_rho") or 1.0, gate.get("gate_scope", "batch")
    passing = [row["entropy"] >= threshold(row, rows, rho, scope) for row in rows]
    tokens = sum(len(row["responses"]) for row in rows)
    gated = sum(int(kept.sum()) for kept in passing)
    for row, kept in zip(rows, passing, strict=True):
        log_prob, _ = log_probs_and_entropy(model, row)
        ratio = (log_prob - row["old_log_probs"]).exp()
        advantage = row["advantages"]
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
        difference = row["ref_log_prob"] - log_prob
        kl = difference.exp() - difference - 1
        policy = (surrogate * kept).sum() / (gated if gate.get("gate_denominator") == "gated" else tokens)
        (KL * kl.sum() / tokens - policy).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).numpy()


def threshold(row: dict[str, Any], rows: list[dict[str, Any]], rho: float, scope: str) -> torch.Tensor:
    values = row["entropy"] if scope == "sequence" else torch.cat([other["entropy"] for other in rows])
    count = int(np.ceil(round(rho * len(values), 6)))
    return values.sort(descending=True).values[count - 1]
