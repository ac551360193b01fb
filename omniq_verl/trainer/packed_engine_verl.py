"""verl's FSDP engine with our packed attention and log-probabilities, which need neither flash-attn nor a compiler.

The engine rejects a model whose files lack weights. The rest acts where a recipe asks for it,
``model.override_config.attn_implementation: omniq_varlen`` with ``model.use_remove_padding: true``, and it is verl's
own engine everywhere else. Three things differ:

- Attention is transformers' own code with ``omniq_verl.attention`` as its kernel. verl would replace the attention of
  Qwen2.5-VL by code for sequence parallelism (``models/transformers/monkey_patch.py:407``), which needs flash-attn,
  repeats keys and values for each query head, and waits for the GPU several times a layer. So there is no sequence
  parallelism here.
- Log-probabilities and entropies are computed in fp32, chunk by chunk. Without flash-attn's cross-entropy verl loops
  over single tokens (``utils/torch_functional.py:197``).
- A micro-batch without an image carries a blank one behind its rows, so that all ranks pass through the vision tower.
  verl's own way (``models/transformers/qwen2_vl.py:393``) fails with transformers 5.
"""

from contextlib import nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from torch import nn
from verl.utils import tensordict_utils as tu
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from omniq_verl.attention.transformers_attention import NAME, activate, loadable_config, register
from omniq_verl.generation.weights import check_cached, check_weights
from omniq_verl.losses.token_log_probs import token_log_probs

_OTHER_OUTPUTS = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only")
"""Requests for outputs that verl computes itself."""


class PackedFSDPEngine(FSDPEngineWithLMHead):
    """verl's engine; packed where the model is configured for ``omniq_varlen``."""

    @property
    def _packed(self) -> bool:
        return self.model_config.hf_config._attn_implementation == NAME

    def _build_module(self) -> nn.Module:
        # transformers would fill what is missing with random numbers, and training would begin from those.
        model, trust = self.model_config.local_path, self.model_config.trust_remote_code
        check_weights(model, trust)
        module = self._build_packed_module() if self._packed else super()._build_module()
        check_cached(model, trust)  # a model of a hub lies in the cache by now
        return module

    def _build_packed_module(self) -> nn.Module:
        _check_settings(self.use_remove_padding, self.use_ulysses_sp)
        register()
        self.use_remove_padding = False  # read by super() to decide whether it replaces the attention
        try:
            module = super()._build_module()
        finally:
            self.use_remove_padding = True
        _check_attention(module)
        activate(module)
        return module

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save as verl does, which builds an empty model from this one's configuration."""
        with loadable_config(self.module) if self._packed else nullcontext():
            super().save_checkpoint(*args, **kwargs)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Prepare inputs as verl does, and add where each sequence begins and ends."""
        inputs, output_args = super().prepare_model_inputs(micro_batch)
        if self._packed:
            boundaries = [micro_batch["input_ids"].offsets()]
            if output_args["pad_size"]:
                boundaries.append(boundaries[0][-1:] + output_args["pad_size"])
            inputs["cu_seq_lens_q"] = torch.cat(boundaries).to(torch.int32)
            config = getattr(self.module, "config", None)
            if hasattr(config, "vision_config") and "pixel_values" not in inputs:
                _append_blank_image(inputs, config)
        return inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Turn logits into log-probabilities, and entropies where asked for: jagged, in the layout of ``input_ids``."""
        if not self._packed or any(tu.get_non_tensor_data(micro_batch, key, False) for key in _OTHER_OUTPUTS):
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        offsets = micro_batch["input_ids"].offsets()
        tokens = len(micro_batch["input_ids"].values())  # behind them lie padding and the blank image
        logits = output.logits.squeeze(0)
        wants_entropy = bool(tu.get_non_tensor_data(micro_batch, "calculate_entropy", False))
        log_probs, entropy = token_log_probs(
            logits if len(logits) == tokens else logits[:tokens],
            output_args["input_ids_rmpad_rolled"][:tokens],
            None if output_args.get("temperature_is_one") else output_args["temperature_rmpad"][:tokens],
            entropy=wants_entropy,
            overwrite=True,
        )
        outputs = {"log_probs": torch.nested.nested_tensor_from_jagged(log_probs, offsets)}
        if entropy is not None:
            outputs["entropy"] = torch.nested.nested_tensor_from_jagged(entropy, offsets)
        return outputs


# verl registers its engine for CUDA of any vendor, and looks for one of the vendor's own first (engine/base.py:413).
EngineRegistry.register("language_model", ["fsdp", "fsdp2"], ["cuda"], "nvidia")(PackedFSDPEngine)


def _check_settings(use_remove_padding: bool, sequence_parallel: bool) -> None:
    if not use_remove_padding:
        raise ValueError(f"attn_implementation={NAME} is for packed sequences. Set use_remove_padding=true")
    if sequence_parallel:
        raise ValueError(
            f"attn_implementation={NAME} has no sequence parallelism. Set ulysses_sequence_parallel_size=1, or install"
            " flash-attn and set attn_implementation=flash_attention_2"
        )


def _check_attention(module: nn.Module) -> None:
    """Refuse a model whose attention verl has replaced for another engine of this process."""
    replaced = {type(layer).__name__ for layer in module.modules() if type(layer).forward.__name__ in _REPLACED}
    if replaced:
        raise RuntimeError(
            f"verl has replaced the forward function of {', '.join(sorted(replaced))} in this process, for an engine"
            f" without attn_implementation={NAME}. Set it for actor and reference alike"
        )


_REPLACED = ("qwen2_vl_attn_forward", "glm4v_attn_forward")


def _append_blank_image(inputs: dict[str, Any], config: Any) -> None:
    """Append one image of zeros, of the smallest size, as a sequence of its own. Nothing reads its logits."""
    vision, ids = config.vision_config, inputs["input_ids"]
    merge = vision.spatial_merge_size
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    inputs["pixel_values"] = torch.zeros(merge**2, width, device=ids.device)
    inputs["image_grid_thw"] = torch.tensor([[1, merge, merge]], device=ids.device)
    inputs["input_ids"] = torch.cat([ids, ids.new_full((1, 1), config.image_token_id)], dim=1)
    positions = inputs["position_ids"]
    inputs["position_ids"] = torch.cat([positions, positions.new_zeros(*positions.shape[:-1], 1)], dim=-1)
    boundaries = inputs["cu_seq_lens_q"]
    inputs["cu_seq_lens_q"] = torch.cat([boundaries, boundaries[-1:] + 1])
