"""Models whose files do not hold their weights are rejected by everything that opens one, and whole ones are not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from doctor_builders import pixels, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from weight_builders import WEIGHTS, Tensors, made, new_names, old_names, one_dropped, replaced, rewritten, sharded

from omniq_verl.doctor.model_checks import inspect_model
from omniq_verl.evaluation.heatmap import draw_heatmap
from omniq_verl.generation.model_folder import check_model_folder
from omniq_verl.generation.weights import BadWeights, check_loaded, check_weights
from omniq_verl.lfs import BadFile
from omniq_verl.rali.encoder import open_model
from omniq_verl.scoring.scorer import Scorer

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064d}\nsize 3754001152\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("weights") / "model")


def first_shard_only(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def shard_emptied(folder: Path) -> None:
    sharded(folder)
    save_file({"nothing": torch.zeros(1)}, folder / "model-00002-of-00002.safetensors")


def shards_left_over(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "kept")
    sharded(folder)
    (folder / "kept").rename(folder / WEIGHTS)


def adapter_alone(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    replaced(folder, "adapter_config.json", json.dumps({"base_model_name_or_path": "org/base"}))


def narrowed(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if name.endswith("k_proj.weight"))
    return {**tensors, name: tensors[name][:-1].clone()}


def cut(folder: Path) -> None:
    replaced(folder, WEIGHTS, (folder / WEIGHTS).read_bytes()[:5000])


BROKEN = {
    "no vision tower": (rewritten(lambda all_: {k: v for k, v in all_.items() if "visual" not in k}), "model.visual."),
    "one tensor missing": (
        rewritten(one_dropped),
        "1 tensor is missing from its files (model.visual.blocks.0.attn.qkv",
    ),
    "adapter's prefix": (
        rewritten(lambda all_: {f"base_model.model.{k}": v for k, v in all_.items()}),
        "merge_and_unload",
    ),
    "another shape": (rewritten(narrowed), "1 tensor is of another shape than in config.json"),
    "shard 1 of 2": (first_shard_only, "model-00002-of-00002.safetensors is missing"),
    "a shard of another model": (shard_emptied, "missing from its files"),
    "shards left over": (shards_left_over, "choose between them differently"),
    "an adapter alone": (adapter_alone, "it holds a LoRA adapter"),
    "a Git LFS pointer": (lambda folder: replaced(folder, WEIGHTS, POINTER), "it is a Git LFS pointer"),
    "config.json is a pointer": (lambda folder: replaced(folder, "config.json", POINTER), "it is a Git LFS pointer"),
    "tokenizer.json is a pointer": (
        lambda folder: replaced(folder, "tokenizer.json", POINTER),
        "it is a Git LFS pointer",
    ),
    "cut": (cut, "the weights cannot be read"),
    "empty": (lambda folder: replaced(folder, WEIGHTS, b""), "the weights cannot be read"),
    "an index that is not JSON": (
        lambda f: (sharded(f), replaced(f, f"{WEIGHTS}.index.json", "{"))[0],
        "cannot be read",
    ),
    "an index of numbers": (
        lambda f: (sharded(f), replaced(f, f"{WEIGHTS}.index.json", '{"weight_map": {"a": 5}}'))[0],
        "which is not a name of weights",
    ),
    "config.json is not JSON": (lambda folder: replaced(folder, "config.json", "{"), "config.json cannot be read"),
}


def heatmap(folder: Path) -> None:
    from PIL import Image

    Image.fromarray(pixels(48, 48)).save(folder / "a.png")
    draw_heatmap([folder], folder / "a.png", folder / "out")


def build(folder: Path) -> None:
    import verl.workers.engine.fsdp.transformer_impl  # noqa: F401  (loads ours, through the plug-in)

    from omniq_verl.trainer.packed_engine_verl import PackedFSDPEngine

    engine = object.__new__(PackedFSDPEngine)
    engine.model_config = SimpleNamespace(local_path=str(folder), trust_remote_code=False)
    engine._build_module()


def doctor(folder: Path) -> None:
    for problem in inspect_model(str(folder)).problems:
        raise ValueError(str(problem))


OPENERS = {
    "hf": lambda folder: Scorer(folder, engine="hf"),
    "vllm": lambda folder: Scorer(folder),
    "heat map": heatmap,
    "rali": lambda folder: open_model(str(folder)),
    "training": build,
    "doctor": doctor,
}


def copied(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder, copy_function=os.link)
    return folder


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("fault", BROKEN)
def test_everything_that_opens_a_model_rejects_one_that_is_not_whole(model, tmp_path, fault, opener):
    change, said = BROKEN[fault]
    folder = copied(model, tmp_path / "broken")
    change(folder)
    if opener == "training" and fault in ("tokenizer.json is a pointer", "config.json is a pointer"):
        pytest.skip("verl opens them before its engine")
    with pytest.raises(ValueError) as caught:
        OPENERS[opener](folder)
    text = str(caught.value)
    assert said in text and str(folder) in text and ("Fix: " in text or opener == "doctor"), text
    assert "\n" not in text


# Models that are fine

KINDS = [
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "qwen2",
    "qwen2_5_vl, tied",
    "qwen3_vl, tied",
    "qwen2, tied",
    "clip",
    "siglip",
]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_models_pass_in_one_file_in_shards_and_as_pickles(tmp_path, kind):
    made(kind).save_pretrained(tmp_path)
    check_weights(tmp_path)
    torch.save(load_file(tmp_path / WEIGHTS), tmp_path / "pytorch_model.bin")
    sharded(tmp_path, parts=3)
    check_weights(tmp_path)
    for path in (*tmp_path.glob("*.safetensors"), tmp_path / f"{WEIGHTS}.index.json"):
        path.unlink()
    check_weights(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_tensor_that_is_taken_out_is_missed(tmp_path, kind):
    made(kind).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for name in list(tensors)[:: max(1, len(tensors) // 12)]:
        save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / WEIGHTS)
        with pytest.raises(BadWeights, match=r"(1 tensor is|2 tensors are) missing from its files"):
            check_weights(tmp_path)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen2_vl"])
def test_names_of_every_release_pass(tmp_path, kind):
    made(kind).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    old = old_names(tensors)
    assert {"model.norm.weight", "visual.patch_embed.proj.weight", "lm_head.weight"} <= old.keys()
    for names in (old, new_names(old)):
        save_file(names, tmp_path / WEIGHTS)
        check_weights(tmp_path)


def test_tensors_that_transformers_ignores_pass(tmp_path):
    made("clip").save_pretrained(tmp_path)
    ids = {f"{part}_model.embeddings.position_ids": torch.arange(16)[None] for part in ("text", "vision")}
    rewritten(lambda all_: {**all_, **ids, "something.else": torch.zeros(2)})(tmp_path)
    check_weights(tmp_path)


def test_more_layers_than_config_json_has_are_named(tmp_path):
    made("qwen2").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "layer_types": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadWeights, match=r"config.json has no layer for \(model.layers.1."):
        check_weights(tmp_path)


def quantised(tensors: Tensors, kind: str) -> Tensors:
    found: Tensors = {}
    for name, value in tensors.items():
        base = name.removesuffix("weight")
        if not name.endswith("proj.weight") or value.dim() != 2:
            found[name] = value
        elif kind == "fp8":
            found |= {name: value.to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1)}
        elif kind == "awq":
            found |= {f"{base}qweight": torch.ones(2, 2, dtype=torch.int32), f"{base}scales": torch.ones(1)}
        else:
            found |= {name: torch.ones(8, 1, dtype=torch.uint8), f"{name}.absmax": torch.ones(1)}
    return found


@pytest.mark.parametrize("method", ["fp8", "awq", "bitsandbytes"])
def test_quantised_models_pass_unless_other_weights_are_missing(tmp_path, method):
    made("qwen2_5_vl").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method}}))
    rewritten(lambda all_: quantised(all_, method))(tmp_path)
    check_weights(tmp_path)
    rewritten(one_dropped)(tmp_path)
    with pytest.raises(BadWeights, match=r"visual.blocks.0.attn.qkv.weight\)"):
        check_weights(tmp_path)


CHANGES = st.sampled_from(["drop", "rename", "reshape", "add", "old name"])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), CHANGES), max_size=4))
def test_the_headers_tell_what_loading_would(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("any")
    made("qwen2_5_vl").save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    for number, change in changes:
        name = sorted(tensors)[number % len(tensors)]
        value = tensors.pop(name)
        match change:
            case "rename":
                tensors[f"other.{name}"] = value
            case "reshape":
                tensors[name] = torch.zeros(*value.shape, 1)
            case "add":
                tensors |= {name: value, f"{name}.more": torch.zeros(1)}
            case "old name":
                tensors |= old_names({name: value})
    save_file(tensors, folder / WEIGHTS)
    _, info = AutoModelForImageTextToText.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True
    )
    for check in (lambda: check_weights(folder), lambda: check_loaded(folder, info)):
        if info["missing_keys"] or info["mismatched_keys"]:
            with pytest.raises(BadWeights):
                check()
        else:
            check()


def test_a_model_of_7b_takes_seconds(tmp_path):
    import time

    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
    config = Qwen2_5_VLConfig(
        text_config={**text, "num_hidden_layers": 28, "vocab_size": 152064},
        vision_config={"depth": 32, "hidden_size": 1280, "out_hidden_size": 3584, "intermediate_size": 3420},
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        tensors = Qwen2_5_VLForConditionalGeneration(config).state_dict()
    header, end = {}, 0
    for name, value in old_names(tensors).items():
        begin, end = end, end + 2 * value.numel()
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [begin, end]}
    text_of_header = json.dumps(header).encode()
    config.save_pretrained(tmp_path)
    with open(tmp_path / WEIGHTS, "wb") as file:  # 16 GB of nothing, which take no space
        file.write(len(text_of_header).to_bytes(8, "little") + text_of_header)
        file.truncate(8 + len(text_of_header) + end)
    start = time.monotonic()
    check_weights(tmp_path)
    assert time.monotonic() - start < 10


def test_the_home_folder_is_found(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    copied(model, tmp_path / "model")
    check_model_folder("~/model")
    assert Scorer("~/model", engine="hf").engine
    with pytest.raises(ValueError, match=r"~/none: there is no such folder|none: there is no such folder"):
        Scorer("~/none", engine="hf")


def in_cache(model: Path, hub: Path) -> None:
    """Lay a model out as Hugging Face's cache does."""
    repository = hub / "models--org--name"
    shutil.copytree(model, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["TransformersModel(EngineSpec('org/name', 'hf'))", "check_cached('org/name')"])
@pytest.mark.parametrize("whole", [True, False])
def test_models_of_a_hub_are_checked_once_they_are_there(model, tmp_path, way, whole):
    folder = copied(model, tmp_path / "model")
    if not whole:
        rewritten(one_dropped)(folder)
    in_cache(folder, tmp_path / "hub")
    code = (
        "from omniq_verl.generation.spec import EngineSpec\n"
        "from omniq_verl.generation.transformers_model import TransformersModel\n"
        f"from omniq_verl.generation.weights import check_cached\n{way}\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert (result.returncode == 0) == whole, result.stderr
    assert whole or "1 tensor is missing from its files (model.visual.blocks.0.attn.qkv.weight)" in result.stderr


def test_a_pointer_is_told_from_a_file_by_its_beginning(tmp_path):
    from omniq_verl.lfs import check_no_pointer, is_pointer

    (tmp_path / "pointer").write_text(POINTER)
    (tmp_path / "long").write_text(POINTER + " " * 2000)
    (tmp_path / "other").write_text("version 2")
    assert [is_pointer(tmp_path / name) for name in ("pointer", "long", "other", "none")] == [True, False, False, False]
    with pytest.raises(BadFile, match="git lfs pull"):
        check_no_pointer(tmp_path / "pointer")
