"""Check the buffer through which verl sends weights to vLLM after each step.

verl 0.9.1 (``workers/rollout/vllm_rollout/bucketed_weight_transfer.py``) copies tensor after tensor into a bucket of
``update_weights_bucket_megabytes``. It sends them in the actor's data type, fp32 by default, and lets vLLM convert
them. Where the bucket is, and what happens to a larger tensor, depends on the platform (``is_ipc_supported`` in
``verl/plugin/platform``):

- CUDA: the bucket is GPU memory, shared by CUDA IPC. verl assumes that this always works. A tensor that is larger than
  the bucket is sent separately.
- CPU: each training process creates its bucket in ``/dev/shm``. An assertion ends the run at a larger tensor.
- Others (NPU): one or the other, depending on driver and firmware. They are checked like the CPU.
"""

import os
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.gpu_memory import weight_bytes
from omniq_verl.doctor.problem import Problem

GIB = 2**30
BUCKET = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"


def uses_cuda_ipc(config: DictConfig, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether verl certainly sends weights by CUDA IPC."""
    platform = environment.get("VERL_PLATFORM", "").strip().lower()
    return config.trainer.device == "cuda" and platform in ("", "cuda", "nvidia")


def largest_megabytes(config: DictConfig, largest_tensor: int) -> int:
    """Return the size of the largest tensor that is sent in MiB, rounded up; 0 if only LoRA adapters are sent.

    Args:
        config: the run's configuration.
        largest_tensor: number of parameters of the model's largest tensor.
    """
    model = config.actor_rollout_ref.model
    merged = OmegaConf.select(model, "lora.merge")
    if OmegaConf.select(model, "lora_rank") and not merged:
        return 0
    each = 2 if merged else weight_bytes(config)  # merged weights are sent in bf16 (fsdp/transformer_impl.py:964)
    return -(-largest_tensor * each // 2**20)


def check_bucket(config: DictConfig, largest_tensor: int) -> Problem | None:
    """Report a bucket too small for the largest tensor, if verl would stop at it."""
    megabytes, needed = OmegaConf.select(config, BUCKET), largest_megabytes(config, largest_tensor)
    if needed <= megabytes or uses_cuda_ipc(config):
        return None
    what = f"the model's largest tensor has {needed} MiB, and verl stops at a tensor that does not fit into the bucket"
    return Problem(f"{BUCKET}={megabytes}", what, f"set {BUCKET}={needed}")


def note_bucket(config: DictConfig, largest_tensor: int) -> list[str]:
    """Report a bucket too small for the largest tensor, if that does not stop the run."""
    megabytes, needed = OmegaConf.select(config, BUCKET), largest_megabytes(config, largest_tensor)
    if needed <= megabytes or not uses_cuda_ipc(config):
        return []
    return [
        f"{BUCKET}={megabytes} is less than the {needed} MiB of the model's largest tensor. CUDA IPC sends that tensor"
        f" separately, but without IPC the run would stop. {BUCKET}={needed} works everywhere"
    ]


def check_shared_memory(config: DictConfig, free: float) -> Problem | None:
    """Report too little shared memory for the buckets, unless they are on the GPU; ``free`` in bytes."""
    needed = OmegaConf.select(config, BUCKET) * 2**20 * config.trainer.n_gpus_per_node
    if needed <= free or uses_cuda_ipc(config):
        return None
    return Problem(
        "/dev/shm",
        f"sending weights to vLLM needs {needed / GIB:.2f} GiB of shared memory, {free / GIB:.2f} GiB are free",
        f"enlarge /dev/shm (docker run --shm-size), or lower {BUCKET}",
    )
