"""The papers' experiments at real size: Qwen2.5-VL on one machine with four 80 GB GPUs."""
