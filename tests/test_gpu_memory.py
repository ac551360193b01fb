"""The estimate of a GPU's memory, by hand and at its edges."""

import pytest
from doctor_builders import composed, tiny_model

from omniq_verl.doctor.gpu_memory import GIB, Shape, read_shape, say_memory, training_bytes

QWEN_7B = Shape(parameters=8_292_166_656, layers=28, hidden=3584, vocabulary=152_064)


def test_by_hand():
    # P = 1000, L = 10, H = 4, V = 20; two shards, 3 tokens.
    found = training_bytes(Shape(1000, 10, 4, 20), 2, 3)
    assert training_bytes(Shape(1000, 10, 4, 20), 2, 3, reference=True)["reference"] == 2000  # 4 * 1000 / 2
    assert found == {
        "state": 8000,  # 16 * 1000 / 2
        "gathered": 400 + 320,  # 4 * 1000 / 10 + 4 * 20 * 4
        "reference": 0,
        "activations": 240 + 408,  # 2 * 3 * 4 * 10 + 34 * 3 * 4
        "logits": 360,  # 6 * 3 * 20
        "context": 2 * GIB,
    }


def test_the_papers_machine_holds_the_papers_model():
    config = composed("omniquality_r/stage2")
    parts = training_bytes(QWEN_7B, 4, config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu)
    assert 40 * GIB < sum(parts.values()) < 72 * GIB
    said = say_memory(config, QWEN_7B)
    assert "training 55 GiB (state 30.9, gathered 3.1, reference 0.0, activations 4.9, logits 13.9" in said
    assert said.endswith("answering 60% of it")


def test_shards_are_those_of_a_node_where_nodes_hold_copies():
    config = composed("omniquality_r/stage2_multi_node")
    assert "state 15.4" in say_memory(config, QWEN_7B) and "8 shards" in say_memory(config, QWEN_7B)


@pytest.mark.parametrize("more", [1, 2, 8])
def test_more_gpus_take_less_each_and_more_tokens_more(more):
    one, several = (sum(training_bytes(QWEN_7B, shards, 8192).values()) for shards in (1, more))
    assert several <= one
    assert sum(training_bytes(QWEN_7B, 4, 8192 * more).values()) >= sum(training_bytes(QWEN_7B, 4, 8192).values())


def test_sizes_are_read_from_the_models_folder(tmp_path):
    shape = read_shape(tiny_model(tmp_path / "model"), 5)
    assert (shape.parameters, shape.layers, shape.hidden) == (5, 2, 128)
    assert read_shape(tmp_path / "none", 5) is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("actor_rollout_ref.ref.fsdp_config.param_offload=false", "reference 7.7"),
        ("actor_rollout_ref.actor.use_dynamic_bsz=false", "3072 tokens at once"),
        ("actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=4", "4096 tokens at once"),
    ],
)
def test_settings_that_move_memory_are_seen(override, said):
    assert said in say_memory(composed("omniquality_r/stage2", override), QWEN_7B)


def test_a_model_that_is_not_at_hand_is_not_estimated():
    config = composed("omniquality_r/stage2")
    assert "not estimated" in say_memory(config, None)
    assert "not estimated" in say_memory(config, Shape(0, 1, 1, 1))
