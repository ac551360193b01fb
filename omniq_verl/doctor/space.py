"""Check whether a run fits into memory and disk by comparing estimates with free space."""

import math
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.free_space import FreeSpace
from omniq_verl.doctor.gpu_memory import GIB, describe_memory
from omniq_verl.doctor.host_memory import check_host_memory, describe_host_memory
from omniq_verl.doctor.model_checks import ModelFolder
from omniq_verl.doctor.model_shape import Shape, read_shape
from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.weight_transfer import check_bucket, check_shared_memory, note_bucket
from omniq_verl.trainer.best_checkpoint import OFF

__all__ = ["GIB", "check_folder", "check_space", "describe_space", "needed_memory"]

# Measured peaks of the quickstart (tiny model, 1 GiB of KV cache): 7.4 GiB with one worker, 10.6 with two.
_BASE_GIB = 4.2  # Ray, TransferQueue, trainer, reward and agent loops
_WORKER_GIB = 2.2  # one training process and its vLLM, without weights and KV cache
_TRAINING_BYTES = 16 + 4  # per parameter, in fp32: weights, gradients, Adam's two moments; reference
_ROLLOUT_BYTES = 4
_CHECKPOINT_BYTES = 16 + 4  # as in training; verl writes weights, optimizer and Hugging Face weights


def check_space(
    config: DictConfig, model: ModelFolder, free: FreeSpace, image_tokens: float | None = None
) -> list[Problem]:
    """Find problems with memory and disk.

    The memory of a run on GPUs is checked only on a machine that has the GPUs of one of its nodes.

    Args:
        config: the run's configuration.
        model: its model.
        free: free space of this machine.
        image_tokens: mean number of image tokens of a training row; None: do not count pixels.
    """
    problems = [
        check_disk(config, model.parameters, free.disk),
        check_bucket(config, model.largest_tensor),
        check_shared_memory(config, free.shared_memory),
    ]
    if config.trainer.device == "cpu":
        problems.append(check_memory(config, model.parameters, free.memory))
    elif len(free.gpus) >= config.trainer.n_gpus_per_node:
        shape = _shape(config, model)
        problems.append(check_host_memory(config, shape, model.tensors, free.memory))
    return [problem for problem in problems if problem]


def describe_space(
    config: DictConfig,
    model: ModelFolder,
    free: FreeSpace,
    image_tokens: float | None = None,
    longest_prompt: int = 0,
) -> list[str]:
    """Describe the memory of each GPU and node and the weight transfer that a run on GPUs will need.

    Args:
        config: the run's configuration.
        model: its model.
        free: free space of this machine.
        image_tokens: mean number of image tokens of a training row.
        longest_prompt: tokens of the longest prompt.
    """
    if config.trainer.device == "cpu":
        return []
    shape = _shape(config, model)
    share = min(1.0, image_tokens / longest_prompt) if image_tokens and longest_prompt else 1.0
    here = free.memory if len(free.gpus) >= config.trainer.n_gpus_per_node else math.inf  # else it runs elsewhere
    return [
        describe_memory(config, shape, share, min(free.gpus, default=None)),
        describe_host_memory(config, shape, model.tensors, image_tokens, here),
        *note_bucket(config, model.largest_tensor),
    ]


def _shape(config: DictConfig, model: ModelFolder) -> Shape | None:
    return read_shape(Path(config.actor_rollout_ref.model.path).expanduser(), model.parameters)


def needed_memory(workers: int, parameters: int, kv_cache_gib: float) -> float:
    """Estimate the bytes of memory a run on the CPU platform needs at its peak.

    Args:
        workers: training processes; FSDP shards actor and reference over them, each vLLM has all weights.
        parameters: number of the model's parameters.
        kv_cache_gib: KV cache of each worker.
    """
    fixed = (_BASE_GIB + workers * (_WORKER_GIB + kv_cache_gib)) * GIB
    return fixed + parameters * (_TRAINING_BYTES + workers * _ROLLOUT_BYTES)


def check_memory(config: DictConfig, parameters: int, free: float) -> Problem | None:
    """Report too little memory for all processes of a run on the CPU platform; ``free`` in bytes."""
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


def check_folder(path: str) -> list[Problem]:
    """Report if a part of the run's path is a file instead of a folder."""
    files = [parent for parent in (Path(path), *Path(path).parents) if parent.exists() and not parent.is_dir()]
    where = f"trainer.default_local_dir={path}"
    return [Problem(where, f"{file} is a file, not a folder", "name another folder") for file in files]


def check_disk(config: DictConfig, parameters: int, free: float) -> Problem | None:
    """Report too little disk space for the checkpoints that exist at once: the retained ones and the next one."""
    if config.trainer.save_freq <= 0:
        return None
    kept = config.trainer.max_actor_ckpt_to_keep or 1  # null keeps all of them, for which two are a lower bound
    needed = (kept + 1) * parameters * _CHECKPOINT_BYTES
    # The best checkpoint's weights are kept next to them after verl has deleted that checkpoint.
    keeps_best = OmegaConf.select(config, "trainer.v1.keep_best", default=OFF) != OFF and config.trainer.test_freq > 0
    needed += parameters * _ROLLOUT_BYTES * keeps_best
    if needed <= free:
        return None
    best = " and the best one's weights" if keeps_best else ""
    return Problem(
        f"trainer.default_local_dir={config.trainer.default_local_dir}",
        f"{kept + 1} checkpoints{best} need about {needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free on that disk",
        "free some, name a folder on another disk, or lower trainer.max_actor_ckpt_to_keep",
    )
