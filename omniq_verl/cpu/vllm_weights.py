"""Keep vLLM's weights replaceable on the CPU (entry point ``vllm.general_plugins``).

After loading, vLLM's CPU back end packs each Linear weight for oneDNN and deletes the original
(``vllm/model_executor/layers/linear.py:215``); the next weight update of reinforcement learning then
fails with "'Parameter' object has no attribute 'weight_loader'". vLLM's own opt-out, meant for one kind
of layer, is a class attribute; it is set here for all of them. It costs the packing's speed.
"""

import os


def keep_weights_replaceable() -> None:
    """Called by vLLM in each of its processes; does nothing unless verl runs on the CPU platform."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    from vllm.model_executor.layers.linear import LinearBase

    LinearBase.skip_weight_relayout = True  # pyright: ignore[reportAttributeAccessIssue]  read by getattr
