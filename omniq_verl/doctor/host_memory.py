"""Estimate the host memory of one node of a run on GPUs, from sizes and settings alone.

With verl 0.9.1, for P parameters sharded over S GPUs, of which n are in the node (bytes):

=========  ============================================================================================================
processes  2 GiB for Ray and the trainer, 0.4 GiB for each agent and reward worker, 0.25 GiB for each storage unit of
           TransferQueue (private memory after their imports, measured on a CPU), and for each GPU 6 GiB for the
           training process and vLLM with CUDA (not measured).
actor      n x 4 P / S with ``param_offload`` and twice that with ``optimizer_offload``, in pinned memory:
           ``offload_fsdp2_model_to_cpu`` and ``offload_fsdp_optimizer`` copy with ``non_blocking=True``, for which
           torch allocates pinned blocks. The size of each tensor is rounded up to a power of two
           (``CachingHostAllocator.h`` of torch 2.11), and blocks stay reserved while the tensors are on the GPU.
reference  n x 4 P / S, likewise: FSDP's ``CPUOffloadPolicy``, whatever ``ref.fsdp_config.param_offload`` says.
vLLM       Nothing for weights at sleep level 2, which verl takes for full weights (``_resolve_sleep_level``). 2 P for
           each replica at level 1, which it takes on NPU. 4 GiB of processed images for each replica
           (``mm_processor_cache_gb``; verl switches it off before vLLM 0.22).
pixels     2 x batch x patches x values of a patch x 4: each group's pixels are once in TransferQueue
           (``trainer/group_pixels_verl.py``), and the training processes read another copy. Times answers where each
           row carries its pixels, as verl's own agent loops have it (``agent_loop_tq.py``, ``multi_modal_inputs``).
loading    4 P in one process of the node, or in each one if the embeddings are tied
           (``get_init_weight_context_manager``), beside the reference; the actor is not offloaded yet.
=========  ============================================================================================================
"""

import math
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.gpu_memory import GIB, shard_count, unsupported, weight_bytes
from omniq_verl.doctor.model_shape import Shape
from omniq_verl.doctor.problem import Problem
from omniq_verl.trainer.group_pixels import GROUP_MANAGER, why_rows_carry_pixels

_TRAINER_GIB = 2.0
_WORKER_GIB = 0.4
_STORAGE_UNIT_GIB = 0.25
_GPU_GIB = 6.0
_PIXEL_COPIES = 2
_IMAGE_CACHE_GIB = 4.0


def pinned_bytes(size: int) -> int:
    """Bytes that torch takes for ``size`` bytes of pinned memory: the next power of two."""
    return 1 << (size - 1).bit_length() if size else 0


def host_parts(
    config: DictConfig, shape: Shape, tensors: Sequence[int], image_tokens: float | None = None
) -> dict[str, int]:
    """Estimate the bytes of host memory one node needs during a step, by what takes them.

    Args:
        config: configuration of a run on GPUs with FSDP, without LoRA.
        shape: sizes of the model.
        tensors: number of parameters of each of its tensors.
        image_tokens: mean number of image tokens of a prompt; pixels are left out without it.
    """
    actor, gpus = config.actor_rollout_ref.actor, config.trainer.n_gpus_per_node
    engine, each, shards = actor.fsdp_config, weight_bytes(config), shard_count(config)
    shard = gpus * sum(pinned_bytes(size * each // shards) for size in tensors)
    copies = engine.param_offload + 2 * engine.optimizer_offload
    if engine.offload_policy and actor.strategy == "fsdp2":
        copies = 4  # weights, gradients, moments
    needs_reference = actor.use_kl_loss or config.algorithm.use_kl_in_reward
    parts = {
        "processes": _process_bytes(config),
        "actor": copies * shard,
        "reference": shard if needs_reference else 0,
        "vLLM": _vllm_bytes(config, shape),
    }
    if image_tokens is not None:
        parts["pixels"] = _pixel_bytes(config, shape, image_tokens)
    return parts


def loading_bytes(config: DictConfig, shape: Shape, parts: dict[str, int]) -> int:
    """Estimate the bytes a node needs while the actor's weights are loaded."""
    processes = config.trainer.n_gpus_per_node if shape.tied else 1
    return parts["processes"] + parts["reference"] + processes * weight_bytes(config) * shape.parameters


def _process_bytes(config: DictConfig) -> int:
    workers = config.actor_rollout_ref.rollout.agent.num_workers + config.reward.num_workers
    units = OmegaConf.select(config, "transfer_queue.backend.SimpleStorage.num_data_storage_units") or 0
    gpus = config.trainer.n_gpus_per_node
    return int((_TRAINER_GIB + workers * _WORKER_GIB + units * _STORAGE_UNIT_GIB + gpus * _GPU_GIB) * GIB)


def _vllm_bytes(config: DictConfig, shape: Shape) -> int:
    rollout = config.actor_rollout_ref.rollout
    replicas = max(1, config.trainer.n_gpus_per_node // rollout.tensor_model_parallel_size)
    weights = 2 * shape.parameters if config.trainer.device == "npu" else 0
    if shape.vision is None:
        return replicas * weights
    cache = OmegaConf.select(rollout, "engine_kwargs.vllm.mm_processor_cache_gb")
    return int(replicas * (weights + (_IMAGE_CACHE_GIB if cache is None else cache) * GIB))


def _pixel_bytes(config: DictConfig, shape: Shape, image_tokens: float) -> int:
    rollout = config.actor_rollout_ref.rollout
    ours = OmegaConf.select(rollout, "agent.agent_loop_manager_class") == GROUP_MANAGER
    once = ours and why_rows_carry_pixels(config) is None
    stored = config.data.train_batch_size * (1 if once else rollout.n)
    values = image_tokens * shape.patches_per_token * shape.patch_values
    return int(_PIXEL_COPIES * stored * values * 4) // config.trainer.nnodes


def check_host_memory(
    config: DictConfig,
    shape: Shape | None,
    tensors: Sequence[int],
    free: float,
) -> Problem | None:
    """Report if this machine cannot hold what is offloaded; ``free`` in bytes. Only for a machine of the run.

    Memory beyond that is only estimated; ``describe_host_memory`` reports it and does not stop the run.
    """
    if shape is None or not tensors or unsupported(config):
        return None
    least = least_bytes(config, shape)
    if least <= free:
        return None
    return Problem(
        "memory",
        f"weights, optimiser state and reference alone need {least / GIB:.1f} GiB of each node's memory,"
        f" {free / GIB:.1f} GiB are free",
        "end other programs, or keep more on the GPU: set"
        " actor_rollout_ref.actor.fsdp_config.optimizer_offload=False",
    )


def least_bytes(config: DictConfig, shape: Shape) -> int:
    """Bytes that offloaded weights, Adam's moments and the reference take on a node, without any rounding."""
    engine = config.actor_rollout_ref.actor.fsdp_config
    references = config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    copies = engine.param_offload + 2 * engine.optimizer_offload + bool(references)
    return copies * config.trainer.n_gpus_per_node * weight_bytes(config) * shape.parameters // shard_count(config)


def describe_host_memory(
    config: DictConfig,
    shape: Shape | None,
    tensors: Sequence[int],
    image_tokens: float | None = None,
    free: float = math.inf,
) -> str:
    """Describe the estimate in one line, and whether it is more than ``free`` bytes."""
    if shape is None or not tensors:
        return "memory per node: not estimated: no config.json of a local folder states the model's sizes"
    if reason := unsupported(config):
        return f"memory per node: not estimated: {reason}"
    parts = host_parts(config, shape, tensors, image_tokens)
    loading = loading_bytes(config, shape, parts)
    warning = f"; only {free / GIB:.1f} GiB are free" if max(sum(parts.values()), loading) > free else ""
    return f"memory per node, estimated: a step {_listed(parts)}; loading the model {loading / GIB:.1f} GiB{warning}"


def _listed(parts: dict[str, int]) -> str:
    named = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    return f"{sum(parts.values()) / GIB:.1f} GiB ({named})"
