"""Options that all commands share which ask a model."""

from typing import Annotated

import typer

MODEL = Annotated[str, typer.Option(help="Hugging Face folder or name; at an endpoint, the name it knows.")]
ENGINE = Annotated[str, typer.Option(help="vllm, hf (transformers), openai, or package.module:function.")]
BASE_URL = Annotated[str | None, typer.Option(help="Of an OpenAI-compatible endpoint; key in OPENAI_API_KEY.")]
MAX_TOKENS = Annotated[int, typer.Option(help="Longest answer.")]
MAX_MODEL_LEN = Annotated[int, typer.Option(help="Tokens of question, image and answer together.")]
DTYPE = Annotated[str, typer.Option(help="Of the weights: auto, bfloat16, float32, ...")]
MEMORY = Annotated[float, typer.Option(help="Share of a device's memory for vLLM (on a CPU: of the machine's).")]
DEVICES = Annotated[int, typer.Option(help="GPUs over which one model is split.")]
PICKLE = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run any code.")]
TRUST = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")]
SAMPLES = Annotated[int, typer.Option(help="Answers an image: one is greedy, more are sampled.")]
SEED = Annotated[int, typer.Option(help="Of sampled answers.")]
