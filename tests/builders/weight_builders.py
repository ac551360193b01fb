"""Small whole models of several kinds, and changes of what their files hold."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipConfig,
    SiglipModel,
)

WEIGHTS = "model.safetensors"
Tensors = dict[str, torch.Tensor]


def rewritten(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    """A change of what a folder's only file of weights holds."""

    def apply(folder: Path) -> None:
        tensors = change(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).unlink()  # it may be a link to the original
        save_file(tensors, folder / WEIGHTS)

    return apply


def replaced(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def sharded(folder: Path, parts: int = 2) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    files = {name: f"model-{number % parts + 1:05}-of-{parts:05}.safetensors" for number, name in enumerate(names)}
    for file in sorted(set(files.values())):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    replaced(folder, f"{WEIGHTS}.index.json", json.dumps({"weight_map": files}))


def one_dropped(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if not name.endswith("blocks.0.attn.qkv.weight")}


SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
TEXT = {**SMALL, "num_hidden_layers": 2, "vocab_size": 32, "max_position_embeddings": 64}
VISION = {"depth": 2, "num_heads": 2, "hidden_size": 16, "intermediate_size": 16, "out_hidden_size": 16}


@cache
def made(kind: str) -> torch.nn.Module:
    tied = kind.endswith("tied")
    match kind.removesuffix(", tied"):
        case "qwen2_5_vl":
            config = Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION, tie_word_embeddings=tied)
            return Qwen2_5_VLForConditionalGeneration(config)
        case "qwen2_vl":
            vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
            config = Qwen2VLConfig(text_config=TEXT, vision_config=vision, tie_word_embeddings=tied)
            return Qwen2VLForConditionalGeneration(config)
        case "qwen3_vl":
            vision = {**VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
            text = {**TEXT, "head_dim": 8}
            config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
            return Qwen3VLForConditionalGeneration(config)
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**TEXT, tie_word_embeddings=tied))
        case "clip" | "siglip" as name:
            sizes = {**SMALL, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14, "projection_dim": 16}
            sizes.pop("num_key_value_heads")
            text = {**sizes, "vocab_size": 32, "max_position_embeddings": 16}
            classes = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}[name]
            return classes[1](classes[0](text_config=text, vision_config=sizes))
    raise ValueError(kind)


def old_names(tensors: Tensors) -> Tensors:
    """As the first releases of Qwen2-VL and Qwen2.5-VL name their tensors."""
    short = (("model.language_model.", "model."), ("model.visual.", "visual."))
    return {next((n + k[len(o) :] for o, n in short if k.startswith(o)), k): v for k, v in tensors.items()}


def new_names(tensors: Tensors) -> Tensors:
    """As transformers 5 names the modules."""
    long = (("visual.", "model.visual."), ("model.", "model.language_model."))
    return {next((n + k[len(o) :] for o, n in long if k.startswith(o)), k): v for k, v in tensors.items()}
