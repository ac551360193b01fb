"""Will the run fit? Estimates of memory and disk against what is free."""

import os
from pathlib import Path

from omegaconf import DictConfig

from omniq_verl.doctor.free_space import FreeSpace
from omniq_verl.doctor.model_folder import ModelFolder
from omniq_verl.doctor.problem import Problem

GIB = 2**30
# Measured peaks of the quickstart (tiny model, 1 GiB of KV cache): 7.4 GiB with one worker, 10.6 with two.
_BASE_GIB = 4.2  # Ray, TransferQueue, trainer, reward and agent loops
_WORKER_GIB = 2.2  # one training process and its vLLM, without weights and KV cache
_TRAINING_BYTES = 16 + 4  # per parameter, in fp32: weights, gradients, Adam's two moments; reference
_ROLLOUT_BYTES = 4
_CHECKPOINT_BYTES = 16 + 4  # as in training; verl writes weights, optimizer and Hugging Face weights


def check_space(config: DictConfig, model: ModelFolder, free: FreeSpace) -> list[Problem]:
    """Problems with memory and disk.

    Memory is only estimated on the CPU platform, where it is the machine's; vLLM checks a GPU's by itself.
    """
    problems = [check_disk(config, model.parameters, free.disk)]
    if config.trainer.device == "cpu":
        problems += [
            check_memory(config, model.parameters, free.memory),
            check_shared_memory(config, free.shared_memory),
            check_bucket(config, model.largest_tensor),
        ]
    return [problem for problem in problems if problem]


def needed_memory(workers: int, parameters: int, kv_cache_gib: float) -> float:
    """Bytes of memory a run on the CPU platform needs at its peak, roughly.

    Args:
        workers: training processes; FSDP shards actor and reference over them, each vLLM has all weights.
        parameters: of the model.
        kv_cache_gib: per worker.
    """
    fixed = (_BASE_GIB + workers * (_WORKER_GIB + kv_cache_gib)) * GIB
    return fixed + parameters * (_TRAINING_BYTES + workers * _ROLLOUT_BYTES)


def check_memory(config: DictConfig, parameters: int, free: float) -> Problem | None:
    """Memory for all processes of a run on the CPU platform; ``free`` in bytes."""
    workers = config.trainer.n_gpus_per_node
    kv_cache_gib = float(os.environ.get("VLLM_CPU_KVCACHE_SPACE", 1))
    needed = needed_memory(workers, parameters, kv_cache_gib)
    if needed <= free:
        return None
    parts = f"{workers} worker{'s' * (workers > 1)}, {parameters:,} parameters, {kv_cache_gib:g} GiB of KV cache each"
    return Problem(
        "memory",
        f"the run needs about {needed / GIB:.1f} GiB ({parts}), {free / GIB:.1f} GiB are free",
        "end other programs, or lower trainer.n_gpus_per_node, the environment variable VLLM_CPU_KVCACHE_SPACE (GiB)"
        " or the size of the model",
    )


def check_shared_memory(config: DictConfig, free: float) -> Problem | None:
    """Shared memory through which each worker hands its weights to vLLM; ``free`` in bytes."""
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    needed = bucket * 2**20 * config.trainer.n_gpus_per_node
    if needed <= free:
        return None
    return Problem(
        "/dev/shm",
        f"handing weights to vLLM needs {needed / GIB:.2f} GiB of shared memory, {free / GIB:.2f} GiB are free",
        "enlarge /dev/shm (docker run --shm-size), or lower"
        " actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
    )


def check_bucket(config: DictConfig, largest_tensor: int) -> Problem | None:
    """Without device IPC a tensor must fit into one bucket (verl's bucketed_weight_transfer.py:140)."""
    key = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
    megabytes = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    needed = -(-largest_tensor * 4 // 2**20)
    if needed <= megabytes:
        return None
    return Problem(f"{key}={megabytes}", f"the model's largest tensor has {needed} MiB", f"set {key}={needed}")


def check_folder(path: str) -> list[Problem]:
    """A run's folder can be made."""
    files = [parent for parent in (Path(path), *Path(path).parents) if parent.exists() and not parent.is_dir()]
    where = f"trainer.default_local_dir={path}"
    return [Problem(where, f"{file} is a file, no folder", "name another folder") for file in files]


def check_disk(config: DictConfig, parameters: int, free: float) -> Problem | None:
    """Disk space for the checkpoints that exist at once: those kept, and the one being written."""
    if config.trainer.save_freq <= 0:
        return None
    kept = config.trainer.max_actor_ckpt_to_keep or 1  # null keeps all of them; two are a lower bound then
    needed = (kept + 1) * parameters * _CHECKPOINT_BYTES
    if needed <= free:
        return None
    return Problem(
        f"trainer.default_local_dir={config.trainer.default_local_dir}",
        f"{kept + 1} checkpoints need about {needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free on that disk",
        "free some, name a folder on another disk, or lower trainer.max_actor_ckpt_to_keep",
    )
