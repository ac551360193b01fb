"""The estimate of a GPU's memory: against what torch saves, against what was measured, and its settings one by one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from doctor_builders import composed, tiny_model
from model_sizes import QWEN_3B, QWEN_7B, VISION
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from omniq_verl.doctor import gpu_memory
from omniq_verl.doctor.gpu_memory import GIB, PHASES, describe_memory, estimate_parts, estimate_phases, read_shape
from omniq_verl.doctor.model_shape import Shape, VisionShape
from omniq_verl.losses import token_log_probs

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
ONE_GPU = ["trainer.n_gpus_per_node=1", f"{ROLLOUT}.enforce_eager=true", f"{ROLLOUT}.gpu_memory_utilization=0.6"]
OLD_LOG_PROBS = [
    "actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    f"{ACTOR}.fsdp_config.entropy_from_logits_with_chunking=true",
    f"{ACTOR}.fsdp_config.entropy_from_logits_chunk_size=128",
]
SMALL = Shape(0, 4, 256, 4096, 1024, 256, VisionShape(4, 128, 320, 1176, 4), tied=True)


def stage2(*overrides: str):
    return composed("omniquality_r/stage2", *overrides)


# Against torch


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    """A model of the sizes of SMALL, in bf16 as FSDP gathers it."""
    text = {"vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 4, "intermediate_size": 1024, "tie_word_embeddings": True}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    vision = {"depth": 4, "hidden_size": 128, "num_heads": 2, "intermediate_size": 320, "out_hidden_size": 256}
    vision |= {"patch_size": 14, "fullatt_block_indexes": [1, 3]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=5, tie_word_embeddings=True)
    config._attn_implementation = "sdpa"
    return Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16).train()


def saved_bytes(model: torch.nn.Module, forward) -> int:
    """Bytes that a forward pass saves for its backward pass, each storage once and no parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = tensor  # kept, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def test_a_layer_saves_what_the_formula_says(model):
    tokens = 512
    language = model.model.language_model
    states = torch.randn(1, tokens, 256, dtype=torch.bfloat16, requires_grad=True)
    rotation = language.rotary_emb(states, torch.arange(tokens).expand(3, 1, tokens))
    found = saved_bytes(
        model, lambda: language.layers[0](states, position_embeddings=rotation, attention_mask=None, position_ids=None)
    )
    assert found == pytest.approx(tokens * gpu_memory._layer(SMALL), rel=0.03)


def test_a_layer_of_the_vision_tower_saves_what_the_formula_says(model):
    patches = 512
    states = torch.randn(patches, 128, dtype=torch.bfloat16, requires_grad=True)
    rotation = (torch.randn(patches, 64),) * 2
    ends = torch.tensor([0, patches], dtype=torch.int32)
    block = model.model.visual.blocks[1]
    found = saved_bytes(model, lambda: block(states, cu_seqlens=ends, position_embeddings=rotation))
    assert found == pytest.approx(patches * gpu_memory._vision_layer(SMALL.vision), rel=0.03)


@pytest.mark.parametrize("image_share", [0.0625, 0.25])
def test_a_checkpointed_model_saves_what_the_formula_says(model, image_share):
    tokens, images = 1024, int(1024 * image_share)
    ids = torch.randint(10, 4096, (1, tokens))
    ids[0, :images] = 5
    pixels, grid = torch.randn(images * 4, 1176), torch.tensor([[1, 4, images]])
    positions = torch.arange(tokens).expand(3, 1, tokens)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found = saved_bytes(
        model,
        lambda: model(input_ids=ids, pixel_values=pixels, image_grid_thw=grid, position_ids=positions, use_cache=False),
    )
    model.gradient_checkpointing_disable()
    estimate = gpu_memory._training(stage2(), SMALL, tokens, image_share)["activations"]
    # The micro-batch holds the pixels in fp32, too; nobody saves those.
    assert found == pytest.approx(estimate - 4 * pixels.numel(), rel=0.03)


# Against one H200, read once a second (10 images of 1,000 tokens with 600 other tokens each in a micro-batch)

MEASURED = {"generation": 86.5, "old_log_prob": 22, "reference": 8, "optimizer_step": 73.6}


@pytest.mark.parametrize("phase", MEASURED)
def test_the_estimate_is_within_a_tenth_of_what_was_measured(phase):
    found = estimate_phases(stage2(*ONE_GPU, *OLD_LOG_PROBS), QWEN_3B, 1000 / 1600, 143_771 * 2**20)
    assert found[phase] / GIB == pytest.approx(MEASURED[phase], rel=0.1)


def test_the_passes_are_within_a_tenth_of_what_was_measured_in_the_first_step():
    parts = estimate_parts(stage2(*ONE_GPU, *OLD_LOG_PROBS), QWEN_3B, 1000 / 1600)["update_passes"]
    del parts["Adam"]  # made by the first optimiser's step
    assert sum(parts.values()) / GIB == pytest.approx(45, rel=0.1)


# By hand: P = 1000, L = 10, H = 4, V = 20, M = 12, K = 2, two GPUs, 3 tokens in a micro-batch

TINY = Shape(1000, 10, 4, 20, 12, 2)
TINY_RUN = ["trainer.n_gpus_per_node=2", f"{ACTOR}.ppo_max_token_len_per_gpu=3", f"{ROLLOUT}.enforce_eager=true"]
TINY_RUN += [f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=1", *OLD_LOG_PROBS]


def test_by_hand():
    context = 3 * GIB
    config = stage2(*TINY_RUN)
    gathered = 2 * 20 * 4 + 4 * 1000 // 10
    layer = 3 * (8 * 4 + 6 * 12)
    assert estimate_parts(config, TINY, gpu_bytes=10_000) == {
        "generation": {"weights": 0, "Adam": 0, "vLLM": 6000, "context": context},
        "old_log_prob": {
            "weights": 2000,
            "Adam": 0,
            "gathered": gathered,
            "logits or a layer": 2 * 3 * 20 + 16 * 3 * 20,
            "context": context,
        },
        "reference": {
            "weights": 0,
            "Adam": 0,
            "gathered": gathered,
            "logits or a layer": max(2 * 3 * 20, layer),
            "context": context,
        },
        "update_passes": {
            "weights": 2000,
            "Adam": 4000,
            "gradients": 2000,
            "gathered": gathered,
            "activations": 3 * 4 * (2 * 10 + 8),
            "logits or a layer": max(4 * 3 * 20, 3 * (20 * 4 + 4 * 2 + 8 * 12)),
            "context": context,
        },
        "optimizer_step": {"weights": 2000, "Adam": 4000, "gradients": 2000, "temporary": 2000, "context": context},
        "weight_sync": {
            "weights": 0,
            "Adam": 0,
            "vLLM": 2000,
            "bucket": 2**20,
            "largest tensor": 2 * 4 * 20 * 4,
            "context": context,
        },
    }


def test_phases_are_the_sums_of_their_parts_in_the_order_of_a_step():
    config = stage2()
    parts, phases = (function(config, QWEN_7B, 0.5, 80 * GIB) for function in (estimate_parts, estimate_phases))
    assert tuple(phases) == PHASES
    assert phases == {phase: sum(sizes.values()) for phase, sizes in parts.items()}


@pytest.mark.parametrize(
    ("override", "phase", "part", "factor"),
    [
        # What is not offloaded is there in all phases.
        (f"{ACTOR}.fsdp_config.param_offload=false", "reference", "weights", 4 / 4),
        (f"{ACTOR}.fsdp_config.param_offload=false", "weight_sync", "weights", 4 / 4),
        (f"{ACTOR}.fsdp_config.optimizer_offload=false", "old_log_prob", "Adam", 8 / 4),
        (f"{ACTOR}.fsdp_config.use_no_sync_for_gradient_accumulation=true", "update_passes", "gradients", 4 / 4 + 4),
        (f"{ACTOR}.fsdp_config.offload_policy=true", "update_passes", "Adam", 0),
        (f"{ACTOR}.fsdp_config.fsdp_size=2", "update_passes", "weights", 4 / 2),
        (f"{ACTOR}.fsdp_config.model_dtype=bf16", "update_passes", "weights", 2 / 4),
        (f"+{ACTOR}.optim.override_optimizer_config={{fused: true}}", "optimizer_step", "temporary", 0),
        (f"+{ACTOR}.optim.override_optimizer_config={{foreach: false}}", "optimizer_step", "temporary", 0),
        (f"{ROLLOUT}.tensor_model_parallel_size=4", "weight_sync", "vLLM", 2 / 4),
    ],
)
def test_settings_that_move_memory_are_seen(override, phase, part, factor):
    found = estimate_parts(stage2(override), QWEN_7B)[phase][part]
    assert found == pytest.approx(factor * QWEN_7B.parameters, abs=4)


@pytest.mark.parametrize(
    ("overrides", "tokens"),
    [
        ([], 16384),
        ([f"{ACTOR}.use_dynamic_bsz=false"], 3072),
        ([f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=4"], 4 * 3072),
    ],
)
def test_the_logits_are_those_of_a_micro_batch(overrides, tokens):
    config = stage2(*overrides, "actor_rollout_ref.model.override_config.attn_implementation=sdpa")
    found = estimate_parts(config, QWEN_7B, 0.0)["update_passes"]["logits or a layer"]
    assert found == 4 * tokens * QWEN_7B.vocabulary


def test_our_log_probabilities_save_the_gradient_of_the_logits():
    packed = stage2("actor_rollout_ref.model.override_config.attn_implementation=omniq_varlen")
    found = estimate_parts(packed, QWEN_7B, 0.0)["update_passes"]["logits or a layer"]
    assert found == 2 * 16384 * QWEN_7B.vocabulary + 4 * 4 * token_log_probs._CHUNK


def test_a_run_without_kl_term_has_no_reference():
    assert "reference" not in estimate_phases(stage2(f"{ACTOR}.use_kl_loss=false"), QWEN_7B)


def test_more_images_take_more_memory_and_a_text_model_has_none():
    config = stage2()
    few, many = (estimate_phases(config, QWEN_7B, share)["update_passes"] for share in (0.25, 0.75))
    text = estimate_phases(config, replace(QWEN_7B, vision=None))["update_passes"]
    assert text < few < many


def test_more_gpus_take_less_each_and_more_tokens_more():
    one, eight = (estimate_phases(stage2(f"trainer.n_gpus_per_node={gpus}"), QWEN_7B) for gpus in (1, 8))
    assert all(eight[phase] < one[phase] for phase in ("old_log_prob", "update_passes", "optimizer_step"))
    twice = estimate_phases(stage2(f"{ACTOR}.ppo_max_token_len_per_gpu=32768"), QWEN_7B)
    assert twice["update_passes"] > estimate_phases(stage2(), QWEN_7B)["update_passes"]


def test_the_papers_machine_holds_the_papers_model():
    assert max(estimate_phases(stage2(), QWEN_7B).values()) < 80 * GIB


# What the user reads


def test_the_text_names_each_phase_and_the_parts_of_the_largest():
    text = describe_memory(stage2(), QWEN_7B)
    for words in ("old log-probabilities", "reference", "passes of the update", "optimiser's step", "weights to vLLM"):
        assert f"{words} " in text
    assert "the peak of training is the passes of the update: weights 7.7, Adam 15.4, gradients 7.7" in text
    assert "4 shards, 16384 tokens at once" in text and text.endswith("generation takes 60% of the GPU")


def test_the_text_warns_where_this_machines_gpus_are_too_small():
    assert "run out of memory" not in describe_memory(stage2(), QWEN_7B, gpu_bytes=80 * GIB)
    assert "has 40.0: expect it to run out of memory" in describe_memory(stage2(), QWEN_7B, gpu_bytes=40 * GIB)


def test_shards_are_those_of_a_node_where_nodes_hold_copies():
    config = composed("omniquality_r/stage2_multi_node")
    assert "weights 3.9" in describe_memory(config, QWEN_7B) and "8 shards" in describe_memory(config, QWEN_7B)


@pytest.mark.parametrize("shape", [None, replace(QWEN_7B, parameters=0)])
def test_a_model_that_is_not_at_hand_is_not_estimated(shape):
    assert "not estimated" in describe_memory(stage2(), shape)


@pytest.mark.parametrize(
    ("override", "reason"),
    [("actor_rollout_ref.model.lora_rank=8", "LoRA"), (f"{ACTOR}.strategy=megatron", "megatron")],
)
def test_what_the_formulas_do_not_cover_is_not_estimated(override, reason):
    text = describe_memory(stage2(override), QWEN_7B)
    assert "not estimated" in text and reason in text


def test_sizes_are_read_from_the_models_folder(tmp_path):
    shape = read_shape(tiny_model(tmp_path / "model"), 5)
    assert (shape.parameters, shape.layers, shape.hidden, shape.patch_values) == (5, 2, 128, 3 * 2 * 8 * 8)
    assert shape.patches_per_token == 4


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"text_config": {"hidden_size": 0}}', '{"text_config": 3}'])
def test_a_config_without_sizes_gives_none(tmp_path: Path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert read_shape(tmp_path, 5) is None


def test_the_vision_tower_of_qwen2_vl_is_read_too(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"num_attention_heads": 12, "num_key_value_heads": 2, "hidden_size": 1536, "num_hidden_layers": 28,'
        '"vocab_size": 151936, "intermediate_size": 8960, "tie_word_embeddings": true, "vision_config":'
        '{"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "mlp_ratio": 4, "in_chans": 3, "patch_size": 14,'
        '"spatial_merge_size": 2, "temporal_patch_size": 2}}'
    )
    expected = Shape(5, 28, 1536, 151936, 8960, 256, replace(VISION, intermediate=5120), tied=True)
    assert read_shape(tmp_path, 5) == expected
