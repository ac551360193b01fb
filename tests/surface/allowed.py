"""Names that one of the two sets need not have, and keywords that a function need not take, each with the reason."""

_RELAYOUT = "vllm.model_executor.layers.linear.LinearBase.skip_weight_relayout"
_RELAYOUT_REASON = "set by us on the CPU platform; vLLM 0.30 declares it nowhere and reads it with a default"

ALLOWED: dict[str, dict[str, str]] = {
    "cpu": {_RELAYOUT: _RELAYOUT_REASON},
    "gpu": {
        _RELAYOUT: _RELAYOUT_REASON,
        "torch.nn.attention.varlen.varlen_attn(enable_gqa)": "passed only where the signature has it",
        "torch._omniq_torchvision_schemas": "set by us, and only beside a torch without CUDA",
    },
}
