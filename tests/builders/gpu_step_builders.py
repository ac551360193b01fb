"""What the tests of ``benchmarks/gpu_step.py`` share; importing it makes the benchmark's modules importable."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

REPO = Path(__file__).resolve().parents[2]
GRID = (5, 6)
"""Image tokens per column and row: neither is a multiple of a window's four."""


def benchmark_module(name: str) -> ModuleType:
    """A module of ``benchmarks``, whose folder is on the path only while its scripts run."""
    folder = str(REPO / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def shape_of(config, folder):
    """The ``ModelShape`` of a transformers configuration."""
    config.save_pretrained(folder)
    return benchmark_module("gpu_flops").ModelShape.read(folder)


def small_tokenizer():
    from omniq_verl.tiny.tokenizer import train_tokenizer

    texts = ["What is the quality of this photograph?"]
    return benchmark_module("real_size").fill_vocabulary(train_tokenizer(texts, 300), 16_384)


def tiny_configuration():
    real_size = benchmark_module("real_size")
    return real_size.build_config(small_tokenizer(), real_size.SIZES["tiny"])
