"""verl's FSDP engine with our packed attention and log-probabilities, which need neither flash-attn nor a compiler.

The engine rejects a model whose files lack weights, and accepts batches whose rows are all equally long
(``omniq_verl.trainer.position_ids``). Everything else applies only if a recipe sets
``model.override_config.attn_implementation: omniq_varlen`` and ``model.use_remove_padding: true``; otherwise it is
verl's own engine. Three things differ:

- Attention is transformers' own code with ``omniq_verl.attention`` as its kernel. verl would replace the attention of
  Qwen2.5-VL with code for sequence parallelism (``models/transformers/monkey_patch.py:407``), which needs flash-attn,
  repeats keys and values for each query head, and waits for the GPU several times per layer. Sequence parallelism is
  therefore not supported.
- Log-probabilities and entropies are computed in fp32, chunk by chunk. Without flash-attn's cross-entropy verl loops
  over single tokens (``utils/torch_functional.py:197``).
- A micro-batch without an image gets a blank one after its rows, so that all ranks pass through the vision tower.
  verl's own way (``models/transformers/qwen2_vl.py:393``) fails with transformers 5.
"""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDict
from torch import nn
from verl.utils import tensordict_utils as tu
from verl.workers.engine.base import EngineRegistry

if TYPE_CHECKING:  # verl's decorator hides the methods of FSDPEngineWithLMHead from type checkers; this is its base
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine as VerlEngine
else:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead as VerlEngine

from omniq_verl.attention.transformers_attention import NAME, activate, loadable_config, register
from omniq_verl.generation.weights import check_cached, check_weights
from omniq_verl.losses.token_log_probs import token_log_probs
from omniq_verl.trainer.group_pixels_verl import with_pixels
from omniq_verl.trainer.position_ids import make_tokens_jagged
from omniq_verl.trainer.shared_prompt import SHARED, check_same
from omniq_verl.trainer.shared_prompt_verl import (
    answers_of,
    groups_stay_together,
    layout_of,
    put_back,
    share_prompts,
    shares_prompts,
    without_repeated_images,
)

_OTHER_OUTPUTS = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only")
"""Requests for outputs that verl computes itself."""


class PackedFSDPEngine(VerlEngine):
    """verl's engine; packed where the model is configured for ``omniq_varlen``."""

    @property
    def _packed(self) -> bool:
        return self.model_config.hf_config._attn_implementation == NAME

    def _build_module(self) -> nn.Module:
        # transformers would fill missing weights with random numbers, and training would start from those.
        model, trust = self.model_config.local_path, self.model_config.trust_remote_code
        assert model is not None  # verl has set it
        check_weights(model, trust)
        module = self._build_packed_module() if self._packed else super()._build_module()
        check_cached(model, trust)  # a hub model is in the cache by now
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
        # verl's forward functions do not support logits_to_keep (models/transformers/qwen2_vl.py:482).
        head: nn.Module = module.get_output_embeddings()  # pyright: ignore[reportAssignmentType]  a language model has one
        head.register_forward_pre_hook(self._keep_predicting)
        return module

    _predicting: torch.Tensor | None = None
    """Tokens whose logits are needed; None for all."""

    tokens = (0, 0)
    """Tokens in forward passes since somebody set this to zeros: computed, and in whole rows with their prompts."""

    def _keep_predicting(self, _head: nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        return None if self._predicting is None else (hidden[0][:, self._predicting], *hidden[1:])

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save like verl, which builds an empty model from this one's configuration."""
        with loadable_config(self.module) if self._packed else nullcontext():
            super().save_checkpoint(*args, **kwargs)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Prepare inputs like verl, and add the boundaries of the sequences."""
        layout = layout_of(micro_batch) if self._shares(micro_batch) else None
        shown = micro_batch if layout is None else without_repeated_images(micro_batch, layout)
        inputs, output_args = super().prepare_model_inputs(shown)  # pyright: ignore[reportAttributeAccessIssue]  LMHead
        if layout is not None and output_args["pad_size"]:
            raise ValueError("shared prompts do not support padding. Fix: engine.pad_to_length=null, or turn them off")
        output_args["layout"] = layout
        nested: Any = micro_batch["input_ids"]
        whole = len(nested.values())
        computed = whole if layout is None else len(layout.tokens)
        self.tokens = (self.tokens[0] + computed, self.tokens[1] + whole)
        self._predicting = None if layout is None else layout.predicting
        if layout is not None:
            share_prompts(inputs, layout)
        elif self._packed:
            boundaries = [micro_batch["input_ids"].offsets()]  # pyright: ignore[reportAttributeAccessIssue]  nested
            if output_args["pad_size"]:
                boundaries.append(boundaries[0][-1:] + output_args["pad_size"])
            inputs["cu_seq_lens_q"] = torch.cat(boundaries).to(torch.int32)
        if self._packed:
            config = getattr(self.module, "config", None)
            if hasattr(config, "vision_config") and "pixel_values" not in inputs:
                _append_blank_image(inputs, config)
        return inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Turn logits into log-probabilities, and entropies if requested: jagged, in the layout of ``input_ids``."""
        if not self._packed or any(tu.get_non_tensor_data(micro_batch, key, False) for key in _OTHER_OUTPUTS):
            upstream = super().prepare_model_outputs  # pyright: ignore[reportAttributeAccessIssue]  LMHead
            return upstream(output, output_args, micro_batch, logits_processor_func)
        ids: Any = micro_batch["input_ids"]  # nested, which has methods that torch declares nowhere
        offsets, layout = ids.offsets(), output_args["layout"]
        tokens = len(ids.values())  # padding and the blank image come after them
        predicting = slice(tokens) if layout is None else layout.positions
        logits = output.logits.squeeze(0)
        wants_entropy = bool(tu.get_non_tensor_data(micro_batch, "calculate_entropy", False))
        found = token_log_probs(
            logits[:tokens] if layout is None and len(logits) > tokens else logits,
            output_args["input_ids_rmpad_rolled"][predicting],
            None if output_args.get("temperature_is_one") else output_args["temperature_rmpad"][predicting],
            entropy=wants_entropy,
            overwrite=True,
        )
        pairs = zip(("log_probs", "entropy"), found, strict=True)
        named = {name: values for name, values in pairs if values is not None}
        if layout is not None:
            return {name: put_back(values, layout, offsets) for name, values in named.items()}
        return {name: torch.nested.nested_tensor_from_jagged(values, offsets) for name, values in named.items()}

    def train_batch(self, data: TensorDict, *args: Any, **kwargs: Any) -> Any:
        make_tokens_jagged(data)
        return super().train_batch(data, *args, **kwargs)

    def infer_batch(self, data: TensorDict, *args: Any, **kwargs: Any) -> Any:
        make_tokens_jagged(data)
        return super().infer_batch(data, *args, **kwargs)

    def forward_backward_batch(self, data: TensorDict, *args: Any, **kwargs: Any) -> list[TensorDict]:
        """As verl's, with micro-batches that keep the rows of a shared prompt together, and with the groups' pixels."""
        data = with_pixels(data)
        with groups_stay_together() if self._shares(data) else nullcontext():
            return super().forward_backward_batch(data, *args, **kwargs)

    def forward_step(self, micro_batch: TensorDict, *args: Any, **kwargs: Any) -> Any:
        """Like verl's; the first micro-batch with shared prompts is also computed without sharing, and compared."""
        if self._shares(micro_batch) and not self._compared:
            self._compared = True
            self._compare(tu.index_select_tensor_dict(micro_batch, list(range(min(2, len(micro_batch))))))
        return super().forward_step(micro_batch, *args, **kwargs)

    _compared = False

    def _shares(self, data: TensorDict) -> bool:
        wanted = self._packed and shares_prompts(data)
        return wanted and not any(tu.get_non_tensor_data(data, key, False) for key in _OTHER_OUTPUTS)

    def _compare(self, rows: TensorDict) -> None:
        found = []
        for shared in (True, False):
            one = rows.copy()
            tu.assign_non_tensor(one, **{SHARED: shared}, calculate_entropy=False, compute_loss=False)
            with torch.no_grad():
                _, meta = super().forward_step(one, loss_function=None, forward_only=True)
            found.append(answers_of(meta["model_output"]["log_probs"], rows))
        with_shared, alone = found
        check_same(with_shared, alone, self._autocast_dtype)


# verl registers its engine for CUDA of any vendor, but prefers one for the vendor itself (engine/base.py:413).
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
    """Reject a model whose attention verl has replaced for another engine of this process."""
    replaced = {type(layer).__name__ for layer in module.modules() if type(layer).forward.__name__ in _REPLACED}
    if replaced:
        raise RuntimeError(
            f"verl has replaced the forward function of {', '.join(sorted(replaced))} in this process, for an engine"
            f" without attn_implementation={NAME}. Set it for both actor and reference"
        )


_REPLACED = ("qwen2_vl_attn_forward", "glm4v_attn_forward")


def _append_blank_image(inputs: dict[str, Any], config: Any) -> None:
    """Append an image of zeros, of the smallest size, as a separate sequence. Its logits are not used."""
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
    if "shared_keys" in inputs:
        ends, tokens = inputs["shared_keys"]
        own = tokens.new_full((1,), ids.shape[1])
        inputs["shared_keys"] = (torch.cat([ends, ends[-1:] + 1]), torch.cat([tokens, own]))
