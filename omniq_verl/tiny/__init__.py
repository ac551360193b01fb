"""A Qwen2.5-VL small enough for two CPU cores, with random weights.

Real architecture, real processor, real special tokens: it goes wherever a Qwen2.5-VL goes. It exists so
that everything in this project can be run and tested without a GPU and without a download.
"""
