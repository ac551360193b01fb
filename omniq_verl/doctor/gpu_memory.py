"""Estimate the memory of each GPU in every phase of a training step, from sizes and settings alone.

The formulas follow what the FSDP engine of verl 0.9.1 (``workers/engine/fsdp/transformer_impl.py``) keeps on a GPU. P
is the number of parameters, S the number of GPUs they are sharded over, L and H the layers and the width of the
language model, V its vocabulary, T the tokens and N the image patches of a micro-batch. All sizes are in bytes.

================  =====================================================================================================
weights           4 P / S: fp32 shards (``fsdp_config.model_dtype``). With ``param_offload`` they are on the GPU only
                  while the actor is in use (``EngineEvalModeCtx``, ``EngineTrainModeCtx``).
gradients         4 P / S: FSDP2 reduces them in fp32 after every micro-batch. With
                  ``use_no_sync_for_gradient_accumulation: true`` each GPU keeps 4 P more.
Adam              8 P / S: two fp32 moments. With ``optimizer_offload`` they come back before the passes of the update
                  (``BaseEngineCtx.__enter__``), so from the second step on they are there during the passes, too.
temporary         4 P / S: torch's foreach AdamW takes the square root of all second moments at once
                  (``exp_avg_sq_sqrt`` in ``torch/optim/adam.py``). Nothing with ``fused: true`` or ``foreach: false``.
gathered          2 V H + 4 P / L: embedding or output layer, and two layers, in bf16.
activations       2 T H L + 8 T H for the language model, 2 N H' L' + N (12 H' + 6 X) for the vision tower (H', L', X
                  values in a patch): the input of each checkpointed layer; last norms, merger, pixels.
                  Without gradient checkpointing "one layer" (see below) for every layer.
one layer         T (20 H + 4 K + 8 M) or N (32 H' + 8 M'), K being the width of the keys and M that of the MLP: what a
                  layer saves for its backward pass (see ``_layer``). It and the logits are not there at the same time;
                  the larger one counts.
logits            2 T V: bf16 logits. The gradient overwrites them if the model has ``attn_implementation:
                  omniq_varlen`` (``losses/token_log_probs.py``, which adds 0.5 GiB for its pieces in fp32). Otherwise
                  the update takes 4 T V (log-softmax or logits, and gradient), and entropies add 16 V times
                  ``entropy_from_logits_chunk_size``, or 12 T V if they are not computed in chunks.
reference         Its engine is forward-only, for which verl forces FSDP's ``CPUOffloadPolicy``: its weights stay on the
                  host whatever ``ref.fsdp_config.param_offload`` says.
weight sync       2 P / tensor parallelism for vLLM's bf16 weights, one bucket, and the largest tensor in fp32, twice if
                  it has to be gathered. FSDP2 sends tensor by tensor, so offloaded shards stay on the host.
generation        ``gpu_memory_utilization`` x memory of the GPU. vLLM counts weights, activations, KV cache and its
                  CUDA context into it; sleep level 2 frees weights and KV cache afterwards.
context           3 GiB in every phase (measured, see below): CUDA contexts of two processes, libraries' workspaces,
                  what a sleeping vLLM keeps. Its CUDA graphs stay, too: 1 GiB (not measured), unless it runs eagerly.
================  =====================================================================================================

Estimated and measured on one H200: Qwen2.5-VL of 3B sizes, 8 prompts x 16 answers of at most 512 tokens, 1,000 image
tokens, both offloads, 16,384 tokens in a micro-batch, chunked entropies, verl's own log-probabilities, eager vLLM, the
first step, in which the moments are created by the optimiser's step:

=====================  ====================  =================
phase                  estimated, GiB        measured, GiB
=====================  ====================  =================
generation             87.2                  86.5
old log-probabilities  22.9                  22
reference              8.6                   8
passes of the update   47.7 (75.7 - Adam)    45
optimiser's step       72.9                  73.6
=====================  ====================  =================
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.model_shape import Shape, VisionShape, read_shape
from omniq_verl.doctor.packing import PACKED, sequence_parallel_size

__all__ = [
    "GIB",
    "PHASES",
    "Shape",
    "VisionShape",
    "describe_memory",
    "estimate_parts",
    "estimate_phases",
    "read_shape",
]

GIB = 2**30
PHASES = ("generation", "old_log_prob", "reference", "update_passes", "optimizer_step", "weight_sync")
"""Phases in the order of a step."""
_CONTEXT = 3 * GIB
_CUDA_GRAPHS = 1 * GIB
_PIECE = 4 * 2**26
"""Bytes of one fp32 piece of the logits in ``losses/token_log_probs.py``; four exist at a time."""
_LABELS = {
    "generation": "generation",
    "old_log_prob": "old log-probabilities",
    "reference": "reference",
    "update_passes": "passes of the update",
    "optimizer_step": "optimiser's step",
    "weight_sync": "weights to vLLM",
}

Parts = dict[str, int]
"""Bytes by what occupies them."""


@dataclass(frozen=True)
class _State:
    """Bytes of the sharded training state on one GPU."""

    weights: int
    adam: int
    gradients: int
    weights_stay: bool
    """Whether weights are on the GPU in all phases because they are not offloaded."""
    adam_stays: bool

    def resident(self) -> Parts:
        return {"weights": self.weights * self.weights_stay, "Adam": self.adam * self.adam_stays}

    def actor(self) -> Parts:
        return {**self.resident(), "weights": self.weights}


def unsupported(config: DictConfig) -> str | None:
    """Why a configuration has no estimate; None if it has one."""
    strategy = config.actor_rollout_ref.actor.strategy
    if strategy not in ("fsdp", "fsdp2"):
        return f"the strategy is {strategy}, not FSDP"
    if OmegaConf.select(config, "actor_rollout_ref.model.lora_rank"):
        return "it trains a LoRA adapter"
    return None


def shard_count(config: DictConfig) -> int:
    """Number of GPUs over which the actor is sharded."""
    size = config.actor_rollout_ref.actor.fsdp_config.fsdp_size
    return size if size > 0 else config.trainer.nnodes * config.trainer.n_gpus_per_node


def estimate_phases(
    config: DictConfig, shape: Shape, image_share: float = 1.0, gpu_bytes: int | None = None
) -> dict[str, int]:
    """Estimate the peak memory of one GPU in each phase of a step, in bytes.

    Args:
        config: configuration of a run with FSDP, without LoRA (see ``unsupported``).
        shape: sizes of the model.
        image_share: share of the image tokens among the tokens of a micro-batch, 0 to 1. The default is an upper bound.
        gpu_bytes: memory of the GPU; ``generation`` is left out without it.

    Returns:
        One entry for each of ``PHASES`` that the run has (``reference`` only with a KL term), in this order. The sizes
        hold from the second step on; in the first one Adam's moments do not exist before ``optimizer_step``.
    """
    parts = estimate_parts(config, shape, image_share, gpu_bytes)
    return {phase: sum(sizes.values()) for phase, sizes in parts.items()}


def estimate_parts(
    config: DictConfig, shape: Shape, image_share: float = 1.0, gpu_bytes: int | None = None
) -> dict[str, Parts]:
    """Like ``estimate_phases``, with the parts of each phase."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    state = _state(config, shape)
    context = _CONTEXT + (0 if rollout.enforce_eager else _CUDA_GRAPHS)
    gathered = {"gathered": 2 * shape.vocabulary * shape.hidden + 4 * shape.parameters // shape.layers}

    def inference(settings: Any, entropy: bool) -> Parts:
        return gathered | _inference(config, shape, _inference_tokens(config, settings), entropy, image_share)

    phases: dict[str, Parts] = {}
    if gpu_bytes is not None:
        phases["generation"] = state.resident() | {"vLLM": int(rollout.gpu_memory_utilization * gpu_bytes)}
    phases["old_log_prob"] = state.actor() | inference(rollout, entropy=True)
    if actor.use_kl_loss or config.algorithm.use_kl_in_reward:
        phases["reference"] = state.resident() | inference(config.actor_rollout_ref.ref, entropy=False)
    tokens = _training_tokens(config)
    phases["update_passes"] = {
        **state.actor(),
        "Adam": state.adam,
        "gradients": state.gradients,
        **gathered,
        **_training(config, shape, tokens, image_share),
    }
    phases["optimizer_step"] = {
        "weights": state.weights,
        "Adam": state.adam,
        "gradients": state.gradients,
        "temporary": state.adam // 2 * _is_foreach_adam(config),
    }
    phases["weight_sync"] = state.resident() | _weight_update(config, shape)
    return {phase: {**parts, "context": _context(phase, context)} for phase, parts in phases.items()}


def _context(phase: str, context: int) -> int:
    return _CONTEXT if phase == "generation" else context  # vLLM's budget includes its CUDA graphs


def _state(config: DictConfig, shape: Shape) -> _State:
    engine = config.actor_rollout_ref.actor.fsdp_config
    shard = shape.parameters * weight_bytes(config) // shard_count(config)
    if engine.offload_policy and config.actor_rollout_ref.actor.strategy == "fsdp2":
        return _State(0, 0, 0, True, True)  # FSDP2 keeps and updates all of it on the host
    unreduced = shape.parameters * 4 if engine.use_no_sync_for_gradient_accumulation else 0
    return _State(shard, 2 * shard, shard + unreduced, not engine.param_offload, not engine.optimizer_offload)


def weight_bytes(config: DictConfig) -> int:
    """Bytes of one weight of the actor, and of the copy that is sent to vLLM (``fsdp_config.model_dtype``)."""
    name = str(OmegaConf.select(config, "actor_rollout_ref.actor.fsdp_config.model_dtype") or "fp32").lower()
    return 2 if name in ("bf16", "bfloat16", "fp16", "float16", "half", "16") else 4


def _is_foreach_adam(config: DictConfig) -> bool:
    optim = config.actor_rollout_ref.actor.optim
    given = OmegaConf.select(optim, "override_optimizer_config") or {}
    adam = optim.optimizer_impl == "torch.optim" and optim.optimizer in ("AdamW", "Adam")
    return adam and not given.get("fused") and given.get("foreach", True) is not False


def _training_tokens(config: DictConfig) -> int:
    actor = config.actor_rollout_ref.actor
    if actor.use_dynamic_bsz:
        tokens = actor.ppo_max_token_len_per_gpu
    else:
        tokens = (actor.ppo_micro_batch_size_per_gpu or 1) * _sequence(config) // sequence_parallel_size(config)
    return tokens


def _inference_tokens(config: DictConfig, settings: DictConfig) -> int:
    if settings.log_prob_use_dynamic_bsz:
        return settings.log_prob_max_token_len_per_gpu
    return (settings.log_prob_micro_batch_size_per_gpu or 1) * _sequence(config) // sequence_parallel_size(config)


def _sequence(config: DictConfig) -> int:
    return config.data.max_prompt_length + config.data.max_response_length


def _layer(shape: Shape) -> int:
    """Bytes a layer of the language model saves per token for its backward pass, in bf16 with norms in fp32.

    Each of the two norms saves its input in fp32 and its values before and after its weight: 8 H. Attention saves
    queries and output: 4 H, keys and values: 4 K. The MLP saves gate, up, the activated gate and the product: 8 M.
    """
    return 20 * shape.hidden + 4 * shape.key_value + 8 * shape.intermediate


def _vision_layer(vision: VisionShape) -> int:
    """Bytes a layer of the vision tower saves per patch.

    As in ``_layer``, but attention keeps queries, keys and values before and after their rotation, its output twice,
    and a rotation in fp32: 16 H instead of 4 H + 4 K.
    """
    return 32 * vision.hidden + 8 * vision.intermediate


def _training(config: DictConfig, shape: Shape, tokens: int, image_share: float) -> Parts:
    checkpointed = config.actor_rollout_ref.model.enable_gradient_checkpointing
    layer = _layer(shape) * tokens
    saved = tokens * shape.hidden * (2 * shape.layers + 8) if checkpointed else layer * shape.layers
    vision = shape.vision
    if vision:
        patches = int(tokens * image_share) * vision.patches_per_token
        inner = _vision_layer(vision)
        each = 2 * vision.hidden if checkpointed else inner
        saved += patches * (each * vision.layers + 12 * vision.hidden + 6 * vision.patch_values)
        layer = max(layer, inner * patches)
    logits = _logits(config, shape, tokens, gradients=True, entropy=_update_needs_entropy(config))
    return {"activations": saved, "logits or a layer": max(logits, layer)}


def _inference(config: DictConfig, shape: Shape, tokens: int, entropy: bool, image_share: float) -> Parts:
    # Without gradients a layer holds its input, its norm in fp32, gate, up and product.
    layer = tokens * (8 * shape.hidden + 6 * shape.intermediate)
    if vision := shape.vision:
        patches = int(tokens * image_share) * vision.patches_per_token
        layer = max(layer, patches * (8 * vision.hidden + 6 * vision.intermediate + 6 * vision.patch_values))
    return {"logits or a layer": max(_logits(config, shape, tokens, gradients=False, entropy=entropy), layer)}


def _update_needs_entropy(config: DictConfig) -> bool:
    actor = config.actor_rollout_ref.actor
    return bool(actor.calculate_entropy or actor.entropy_coeff)


def _logits(config: DictConfig, shape: Shape, tokens: int, gradients: bool, entropy: bool) -> int:
    model, engine = config.actor_rollout_ref.model, config.actor_rollout_ref.actor.fsdp_config
    once = 2 * tokens * shape.vocabulary
    if model.use_fused_kernels:
        return 0  # verl computes them in small pieces
    if OmegaConf.select(model, "override_config.attn_implementation") == PACKED:
        return once + 4 * min(_PIECE, 2 * once)
    size = once * (2 if gradients else 1)
    if not entropy:
        return size
    chunked = engine.entropy_from_logits_with_chunking and not gradients  # autograd would keep all chunks
    if chunked or engine.entropy_checkpointing:
        return size + 16 * min(tokens, engine.entropy_from_logits_chunk_size) * shape.vocabulary
    return size + 6 * once


def _weight_update(config: DictConfig, shape: Shape) -> Parts:
    rollout = config.actor_rollout_ref.rollout
    largest = shape.vocabulary * shape.hidden * weight_bytes(config)
    return {
        "vLLM": 2 * shape.parameters // rollout.tensor_model_parallel_size,
        "bucket": rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20,
        "largest tensor": largest * (2 if shard_count(config) > 1 else 1),
    }


def describe_memory(
    config: DictConfig, shape: Shape | None, image_share: float = 1.0, gpu_bytes: int | None = None
) -> str:
    """Describe the estimate in one line, phase by phase, with the parts of the largest one.

    Args:
        config: the run's configuration.
        shape: sizes of the model; None if unknown.
        image_share: see ``estimate_phases``.
        gpu_bytes: memory of a GPU of this machine; None if it has none.
    """
    if shape is None or not shape.parameters:
        return "memory per GPU: not estimated: no config.json of a local folder states the model's sizes"
    if reason := unsupported(config):
        return f"memory per GPU: not estimated: {reason}"
    phases = estimate_parts(config, shape, image_share, gpu_bytes)
    totals = {phase: sum(parts.values()) for phase, parts in phases.items()}
    training = {phase: size for phase, size in totals.items() if phase != "generation"}
    largest = max(training, key=lambda phase: training[phase])
    listed = ", ".join(f"{_LABELS[phase]} {size / GIB:.1f}" for phase, size in totals.items())
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in phases[largest].items() if size)
    text = (
        f"memory per GPU, estimated in GiB: {listed}; the peak of training is the {_LABELS[largest]}: {parts}"
        f" ({shard_count(config)} shards, {_training_tokens(config)} tokens at once)"
    )
    if gpu_bytes is None:
        share = config.actor_rollout_ref.rollout.gpu_memory_utilization
        return f"{text}; generation takes {share:.0%} of the GPU"
    if max(totals.values()) > gpu_bytes:
        text += f". A GPU of this machine has {gpu_bytes / GIB:.1f}: expect it to run out of memory"
    return text
