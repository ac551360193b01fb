"""Sizes of Qwen2.5-VL; the estimates of ``omniq reproduce --dry-run`` use the same."""

from omniq_verl.pipeline.qwen_sizes import QWEN_3B, QWEN_7B, TENSORS_3B, TENSORS_7B, VISION, tensors

__all__ = ["QWEN_3B", "QWEN_7B", "TENSORS_3B", "TENSORS_7B", "VISION", "tensors"]
