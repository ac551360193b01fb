"""Options that the commands of ``omniq findings`` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniq_verl.generation import options

if TYPE_CHECKING:
    from omniq_verl.findings.setup import Setup

MODELS = Annotated[
    list[str],
    typer.Option("--model", help="Hugging Face folder or name, or a training run's folder; repeatable."),
]
DATA = Annotated[list[Path], typer.Option(help="Prepared parquet file; repeatable.")]


def setup_of(
    model: MODELS,
    data: DATA,
    out: options.OUT,
    engine: Annotated[str, typer.Option(help="Engine: vllm, hf (transformers), or openai.")] = "vllm",
    base_url: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible endpoint.")] = None,
    limit: options.LIMIT = None,
    max_tokens: options.MAX_TOKENS = 1024,
    max_model_len: options.LENGTH = None,
    dtype: options.DTYPE = "auto",
    memory: options.MEMORY = None,
    devices: options.DEVICES = 1,
    workers: options.WORKERS = 1,
    batch: options.KEPT_AT_ONCE = 256,
    resamples: options.RESAMPLES = 1000,
    seed: options.SEED = 0,
    verbose: options.VERBOSE = False,
) -> "Setup":
    """Build the ``Setup`` from the options."""
    from omniq_verl.findings.setup import Setup

    specs = tuple(
        options.engine_spec(one, engine, base_url, max_model_len, dtype, memory, devices, verbose=verbose)
        for one in model
    )
    return Setup(specs, tuple(data), out, limit, max_tokens, workers, batch, resamples, seed)


with_setup = options.options_of(setup_of)
"""Turns a function whose first parameter is a ``Setup`` into a command with these options."""
