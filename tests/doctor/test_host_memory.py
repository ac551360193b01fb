"""The estimate of a node's memory for runs on GPUs, and the sizes of weight transfer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_builders import composed
from model_sizes import QWEN_3B, QWEN_7B, TENSORS_3B, TENSORS_7B

from omniq_verl.doctor.free_space import FreeSpace, gpu_memory_sizes, usable_gpus
from omniq_verl.doctor.host_memory import (
    GIB,
    check_host_memory,
    describe_host_memory,
    host_parts,
    loading_bytes,
    pinned_bytes,
)
from omniq_verl.doctor.model_checks import ModelFolder
from omniq_verl.doctor.space import check_space, describe_space
from omniq_verl.doctor.weight_transfer import (
    BUCKET,
    check_bucket,
    check_shared_memory,
    largest_megabytes,
    note_bucket,
    uses_cuda_ipc,
)

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
INFINITE = float("inf")


@pytest.fixture(autouse=True)
def no_platform(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)


def stage2(*overrides: str):
    return composed("omniquality_r/stage2", *overrides)


# Host memory


@pytest.mark.parametrize(("size", "taken"), [(0, 0), (1, 1), (2, 2), (3, 4), (2**30, 2**30), (2**30 + 1, 2**31)])
def test_pinned_memory_is_taken_in_powers_of_two(size, taken):
    assert pinned_bytes(size) == taken


def test_by_hand():
    config = stage2("data.train_batch_size=8")
    # Two tensors of 1000 and 3000 parameters over four GPUs: 1000 and 3000 bytes, 1024 and 4096 pinned.
    parts = host_parts(config, QWEN_7B, [1000, 3000], image_tokens=1000)
    assert parts == {
        "processes": int((2 + 16 * 0.4 + 8 * 0.25 + 4 * 6) * GIB),
        "actor": 4 * 3 * (1024 + 4096),
        "reference": 4 * (1024 + 4096),
        "vLLM": 4 * 4 * GIB,
        "pixels": 2 * 8 * 4000 * 1176 * 4,
    }


@pytest.mark.parametrize(
    ("override", "part", "value"),
    [
        (f"{ACTOR}.fsdp_config.param_offload=false", "actor", 4 * 2 * 1024),
        (f"{ACTOR}.fsdp_config.optimizer_offload=false", "actor", 4 * 1024),
        (f"{ACTOR}.fsdp_config.offload_policy=true", "actor", 4 * 4 * 1024),
        (f"{ACTOR}.use_kl_loss=false", "reference", 0),
        (f"+{ROLLOUT}.engine_kwargs.vllm.mm_processor_cache_gb=0", "vLLM", 0),
        (f"{ROLLOUT}.tensor_model_parallel_size=2", "vLLM", 2 * 4 * GIB),
        ("data.train_batch_size=128", "pixels", 2 * 128 * 4000 * 1176 * 4),
        ("trainer.nnodes=2", "pixels", 64 * 4000 * 1176 * 4),
        (f"{ROLLOUT}.agent.agent_loop_manager_class=null", "pixels", 2 * 64 * 16 * 4000 * 1176 * 4),
        ("+reward.reward_model.enable=true", "pixels", 2 * 64 * 16 * 4000 * 1176 * 4),
    ],
)
def test_settings_that_move_memory_are_seen(override, part, value):
    config = stage2(f"{ACTOR}.fsdp_config.fsdp_size=4", override)
    assert host_parts(config, QWEN_7B, [1000], image_tokens=1000)[part] == value


def test_pixels_are_left_out_where_no_image_was_counted():
    assert "pixels" not in host_parts(stage2(), QWEN_7B, TENSORS_7B)


def test_tied_embeddings_make_each_process_load_the_model():
    config = stage2()
    for shape, tensors, processes in ((QWEN_7B, TENSORS_7B, 1), (QWEN_3B, TENSORS_3B, 4)):
        parts = host_parts(config, shape, tensors)
        assert loading_bytes(config, shape, parts) == (
            parts["processes"] + parts["reference"] + processes * 4 * shape.parameters
        )


def test_memory_that_cannot_hold_what_is_offloaded_stops_a_run():
    config = stage2()
    needed = 4 * 4 * QWEN_7B.parameters  # weights, two moments and the reference, 4 bytes each
    assert check_host_memory(config, QWEN_7B, TENSORS_7B, needed) is None
    text = str(check_host_memory(config, QWEN_7B, TENSORS_7B, needed - 1))
    assert f"alone need {needed / GIB:.1f} GiB" in text and "optimizer_offload=False" in text


def test_what_is_kept_on_the_gpu_needs_no_host_memory():
    off = [f"{ACTOR}.fsdp_config.{name}=false" for name in ("param_offload", "optimizer_offload")]
    assert check_host_memory(stage2(*off), QWEN_3B, TENSORS_3B, 4 * QWEN_3B.parameters) is None
    assert check_host_memory(stage2(*off), QWEN_3B, TENSORS_3B, 4 * QWEN_3B.parameters - 1) is not None


def test_an_estimate_above_what_is_free_is_a_note_and_stops_no_run():
    config = stage2()
    text = describe_host_memory(config, QWEN_7B, TENSORS_7B, 1000, 280 * GIB)
    assert "a step 286.4 GiB (processes 34.4, actor 175.3, reference 58.4" in text and "pixels 2.2" in text
    assert text.endswith("; only 280.0 GiB are free")
    assert "are free" not in describe_host_memory(config, QWEN_7B, TENSORS_7B, 1000, 400 * GIB)


@pytest.mark.parametrize("gpus", [(), (80 * GIB,) * 3])
def test_a_machine_without_the_gpus_of_a_node_is_not_judged(gpus):
    free = FreeSpace(memory=0, shared_memory=0, disk=INFINITE, gpus=gpus)
    assert check_space(stage2(), ModelFolder(tensors=tuple(TENSORS_7B)), free, 1000) == []


def test_a_machine_with_the_gpus_is_judged(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"num_attention_heads": 28, "hidden_size": 3584, "num_hidden_layers": 28, "vocab_size": 152064,'
        ' "intermediate_size": 18944}'
    )
    free = FreeSpace(memory=90 * GIB, shared_memory=0, disk=INFINITE, gpus=(80 * GIB,) * 4)
    config, model = stage2(f"actor_rollout_ref.model.path={tmp_path}"), ModelFolder(tensors=tuple(TENSORS_7B))
    (problem,) = check_space(config, model, free)
    assert problem.where == "memory" and "90.0 GiB are free" in problem.what
    gpu, host, *_ = describe_space(config, model, free, 1000, 1100)
    assert gpu.startswith("memory per GPU") and "generation 51.0" in gpu  # 0.6 x 80, and 3 of context
    assert host.startswith("memory per node, estimated: a step ")


def test_cpu_runs_and_unknown_models_have_no_estimate():
    assert describe_space(composed("quickstart/grpo"), ModelFolder(), FreeSpace(0, 0, 0)) == []
    assert "not estimated" in describe_host_memory(stage2(), None, ())
    assert check_host_memory(stage2(), None, (), 0) is None


H200, H100 = 143_771 * 2**20, 81_559 * 2**20


def nvidia_smi(folder: Path) -> Path:
    """A driver that names two GPUs."""
    fake = folder / "nvidia-smi"
    fake.write_text("#!/bin/sh\nprintf 'GPU-5a1f, 143771\\nGPU-77c0, 81559\\n'\n")
    fake.chmod(0o755)
    return fake


@pytest.mark.parametrize(
    ("named", "ids", "sizes"),
    [
        (None, ("0", "1"), (H200, H100)),
        ("1", ("1",), (H100,)),
        (" 1, 0", ("1", "0"), (H100, H200)),
        ("GPU-77c0,GPU-5a", ("GPU-77c0", "GPU-5a"), (H100, H200)),
        ("1,-1,0", ("1",), (H100,)),
        ("", (), ()),
        ("MIG-1", ("MIG-1",), ()),
    ],
)
def test_gpus_are_those_that_may_be_used(tmp_path, monkeypatch, named, ids, sizes):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    fake = str(nvidia_smi(tmp_path))
    assert (usable_gpus(fake), gpu_memory_sizes(fake)) == (ids, sizes)


def test_gpus_are_those_the_driver_names(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake = nvidia_smi(tmp_path)
    assert gpu_memory_sizes(str(fake)) == (H200, H100)
    fake.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert gpu_memory_sizes(str(fake)) == ()
    assert gpu_memory_sizes(str(tmp_path / "none")) == ()


# Weight transfer


@pytest.mark.parametrize(
    ("overrides", "megabytes"),
    [
        ([], 2079),  # fp32
        ([f"{ACTOR}.fsdp_config.model_dtype=bf16"], 1040),
        (["actor_rollout_ref.model.lora_rank=8"], 0),
        (["actor_rollout_ref.model.lora_rank=8", "+actor_rollout_ref.model.lora.merge=true"], 1040),
    ],
)
def test_the_largest_tensor_of_qwen_7b_is_its_embedding(overrides, megabytes):
    assert max(TENSORS_7B) == 152_064 * 3584
    assert largest_megabytes(stage2(*overrides), max(TENSORS_7B)) == megabytes


@pytest.mark.parametrize(
    ("device", "platform", "certain"),
    [("cuda", "", True), ("cuda", "nvidia", True), ("cuda", "metax", False), ("npu", "", False), ("cpu", "cpu", False)],
)
def test_ipc_is_certain_on_cuda_alone(device, platform, certain):
    assert uses_cuda_ipc(stage2(f"trainer.device={device}"), {"VERL_PLATFORM": platform}) is certain


@pytest.mark.parametrize("device", ["cpu", "npu"])
def test_a_bucket_smaller_than_the_largest_tensor_stops_a_run_without_ipc(device):
    config = stage2(f"trainer.device={device}", f"{BUCKET}=2048")
    problem = check_bucket(config, max(TENSORS_7B))
    assert problem.where == f"{BUCKET}=2048" and problem.fix == f"set {BUCKET}=2079"
    assert check_bucket(stage2(f"trainer.device={device}", f"{BUCKET}=2079"), max(TENSORS_7B)) is None
    assert note_bucket(config, max(TENSORS_7B)) == []


def test_such_a_bucket_is_noted_where_ipc_sends_the_tensor_by_itself():
    config = stage2(f"{BUCKET}=2048")
    assert check_bucket(config, max(TENSORS_7B)) is None
    (note,) = note_bucket(config, max(TENSORS_7B))
    assert f"{BUCKET}=2048 is less than the 2079 MiB" in note and f"{BUCKET}=2079 works everywhere" in note
    assert note_bucket(stage2(f"{BUCKET}=2079"), max(TENSORS_7B)) == []


def test_the_shipped_bucket_holds_the_largest_tensor_of_both_sizes_without_ipc():
    for tensors in (TENSORS_3B, TENSORS_7B):
        assert check_bucket(stage2("trainer.device=npu"), max(tensors)) is None


SEND = """
import asyncio, sys, torch
import verl
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

class Receiver:
    def send_pyobj(self, message): self.last = message
    def recv(self): return b""

class Sender(BucketedWeightSender):  # no vLLM at the other end of the socket
    def _init_socket(self): self.socket = Receiver()
    def _init_buffer(self): self.buffer = torch.empty(self.bucket_size, dtype=torch.uint8)
    def _cleanup(self): pass

sender = Sender("inproc://none", bucket_size_mb=1, use_shm=True)
for numbers in map(int, sys.argv[1:]):
    try:
        asyncio.run(sender.async_send_weights(iter([("embedding", torch.zeros(numbers))])))
        print("sent", list(sender.socket.last["bucket_meta"]))
    except AssertionError as error:
        print(error)
"""


@pytest.mark.slow
def test_verl_stops_at_the_tensor_that_the_check_names():
    config = stage2("trainer.device=npu", f"{BUCKET}=1")
    fits, too_large = 2**18, 2**18 + 1  # 1 MiB in fp32, and 4 bytes more
    assert check_bucket(config, fits) is None and check_bucket(config, too_large) is not None
    command = [sys.executable, "-c", SEND, str(fits), str(too_large)]
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    sent, rejected = result.stdout.splitlines()[-2:]
    assert sent == "sent ['embedding']" and "too large to fit in the bucket" in rejected, result.stderr


def test_shared_memory_is_needed_where_ipc_is_not_certain():
    needed = 4 * 2**20 * stage2().actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    assert check_shared_memory(stage2(), 0) is None
    assert check_shared_memory(stage2("trainer.device=npu"), needed) is None
    assert "/dev/shm" in str(check_shared_memory(stage2("trainer.device=npu"), needed - 1))
