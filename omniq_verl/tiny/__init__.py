"""A Qwen2.5-VL small enough for two CPU cores, with random weights.

It has the real architecture, processor and special tokens, and can be used wherever a Qwen2.5-VL can. With it,
everything in this project can be run and tested without a GPU and without a download.
"""
