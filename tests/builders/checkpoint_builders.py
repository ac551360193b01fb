"""Checkpoints as verl writes and deletes them, with weights that tell the step."""

import shutil
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM
from weight_builders import SMALL, TEXT


@cache
def small_model() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(Qwen2Config(**{**TEXT, **SMALL}, tie_word_embeddings=False))


def save(run: Path, step: int) -> None:
    """A checkpoint as verl writes it, over one that is there; its weights are the number of the step."""
    folder = run / f"global_step_{step}" / "actor" / "huggingface"
    folder.mkdir(parents=True, exist_ok=True)
    model = small_model()
    model.config.save_pretrained(folder)
    # In place, as safetensors writes: a hard link to the file would change, too.
    tensors = {name: torch.full_like(tensor, step) for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    (folder.parent / "optim_world_size_1_rank_0.pt").write_bytes(b"optimizer")


def delete(run: Path, step: int) -> None:
    """As verl's checkpoint manager does (remove_previous_save_local_path)."""
    shutil.rmtree(run / f"global_step_{step}" / "actor", ignore_errors=True)


def step_of(folder: Path) -> float:
    (value,) = {float(tensor.flatten()[0]) for tensor in load_file(folder / "model.safetensors").values()}
    return value
