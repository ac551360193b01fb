"""How much memory of each GPU a run will need: an estimate from sizes alone, to choose by. Compared with none yet.

Training (FSDP2, weights and Adam in fp32, computation in bf16, checkpointed layers), for P parameters of L layers of
width H with a vocabulary V, sharded S ways, T tokens in a micro-batch:

- state: 16 P / S bytes: weights, gradients and Adam's two moments, 4 bytes each. Offloaded ones come back for the step.
- gathered: 4 P / L + 4 V H bytes: a layer and the next one, embedding and head, in bf16.
- reference: 4 P / S bytes, unless it is offloaded.
- activations: 2 T H L + 34 T H bytes: the input of each layer, and all of the one that is computed anew (34 H bytes a
  token: Korthikanti et al. 2022, eq. 2, without the attention scores, which flash attention does not keep).
- logits: 6 T V bytes: logits and their gradient in bf16, and one more of them in passing.

Answering takes what ``gpu_memory_utilization`` gives vLLM; it sleeps while the policy trains.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

GIB = 2**30
_CONTEXT = 2 * GIB
"""CUDA's context, NCCL's buffers and what a sleeping vLLM keeps."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int


def read_shape(folder: Path, parameters: int) -> Shape | None:
    """From a model's ``config.json``; None where it does not say."""
    try:
        config = json.loads((folder / "config.json").read_text())
        text = {**config, **config.get("text_config", {})}
        return Shape(parameters, text["num_hidden_layers"], text["hidden_size"], text["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def training_bytes(shape: Shape, shards: int, tokens: int, reference: bool = False) -> dict[str, int]:
    """Of one GPU at the peak of a step, by what takes them.

    Args:
        shape: of the model.
        shards: GPUs over which it is sharded.
        tokens: of a micro-batch on one GPU.
        reference: does the reference model stay on it?
    """
    return {
        "state": 16 * shape.parameters // shards,
        "gathered": 4 * shape.parameters // shape.layers + 4 * shape.vocabulary * shape.hidden,
        "reference": 4 * shape.parameters // shards * reference,
        "activations": 2 * tokens * shape.hidden * shape.layers + 34 * tokens * shape.hidden,
        "logits": 6 * tokens * shape.vocabulary,
        "context": _CONTEXT,
    }


def _tokens(config: DictConfig) -> int:
    actor, data = config.actor_rollout_ref.actor, config.data
    if actor.use_dynamic_bsz:
        tokens = actor.ppo_max_token_len_per_gpu
    else:
        tokens = (actor.ppo_micro_batch_size_per_gpu or 1) * (data.max_prompt_length + data.max_response_length)
    return tokens // actor.fsdp_config.ulysses_sequence_parallel_size


def say_memory(config: DictConfig, shape: Shape | None) -> str:
    """One line for the user."""
    if shape is None or not shape.parameters:
        return "memory per GPU: not estimated: no config.json of a local folder tells the model's sizes"
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    shards = actor.fsdp_config.fsdp_size if actor.fsdp_config.fsdp_size > 0 else gpus
    tokens = _tokens(config)
    reference = actor.use_kl_loss and not config.actor_rollout_ref.ref.fsdp_config.param_offload
    parts = training_bytes(shape, shards, tokens, reference)
    named = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    return (
        f"memory per GPU, estimated: training {sum(parts.values()) / GIB:.0f} GiB ({named}; {shards} shards,"
        f" {tokens} tokens at once); answering {rollout.gpu_memory_utilization:.0%} of it"
    )
