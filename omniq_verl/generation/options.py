"""Command-line options shared by all commands that use a model."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.logs import set_up_logs

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec

LIMIT = Annotated[
    int | None, typer.Option(min=1, help="Use only the first N rows of each file; recorded in the report.")
]
WORKERS = Annotated[int, typer.Option(min=1, help="Number of engines, run in parallel on Ray.")]
KEPT_AT_ONCE = Annotated[
    int, typer.Option(min=1, help="Rows saved together; a kill loses at most this many per worker.")
]
TASK = Annotated[
    str,
    typer.Option(
        help="technical, aesthetic, alignment, degradation; q_insight_score, q_insight_degradation: Q-Insight's"
        " prompts; or your own package.module:object"
    ),
]
SCALE = Annotated[str | None, typer.Option(help="Score scale the model was trained on: 1-5 (the default) or 0-5.")]
MAX_TOKENS = Annotated[int, typer.Option(help="Maximum tokens of an answer.")]
MODE_HELP = "reason: the model reasons and answers; direct: the expected value of its score, without reasoning"
FAMILY = Annotated[
    str | None,
    typer.Option(help="Use a released model's own question and parser: the name of its family, or auto."),
]
SERVED_MODE = Annotated[
    str | None, typer.Option(help=f"{MODE_HELP}; both; default: the family's own. A request can choose another.")
]
SAMPLES = Annotated[int, typer.Option(help="Answers per image: one is greedy, more are sampled.")]
OUT = Annotated[
    Path, typer.Option(file_okay=False, help="The run's folder; repeating the command resumes an interrupted run.")
]
RESAMPLES = Annotated[int, typer.Option(min=1, help="Number of resamples for the bootstrap intervals.")]
SEED = Annotated[int, typer.Option(help="Seed of sampled answers.")]
LENGTH = Annotated[
    int | None, typer.Option(help="Maximum tokens of question, image and answer; default: 8192 or the model's own.")
]
DTYPE = Annotated[str, typer.Option(help="Data type of the weights: auto, bfloat16, float32, ...")]
MEMORY = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1.0,
        help="Share of the memory of a GPU (or of a CPU machine) for vLLM; default: 0.85 of a GPU, on a CPU what"
        " the model needs, within the free memory.",
    ),
]
SHORT_SIDE = Annotated[
    int | None, typer.Option(min=28, help="Shrink larger images to this length of the shorter side, in pixels.")
]
MAX_PIXELS = Annotated[int | None, typer.Option(min=784, help="Shrink larger images to this many pixels.")]
DEVICES = Annotated[int, typer.Option(min=1, help="GPUs over which one model is split.")]
PICKLE = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run any code.")]
VERBOSE = Annotated[bool, typer.Option("--verbose", help="Show the logs of vLLM, transformers and torch.")]
TRUST = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")]


def engine_spec(
    model: Annotated[
        str,
        typer.Option(help="Hugging Face folder or name, a training run's folder, or the model's name at an endpoint."),
    ],
    engine: Annotated[str, typer.Option(help="vllm, hf (transformers), openai, or package.module:function.")] = "vllm",
    base_url: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible endpoint; key in OPENAI_API_KEY.")
    ] = None,
    max_model_len: LENGTH = None,
    dtype: DTYPE = "auto",
    memory: MEMORY = None,
    devices: DEVICES = 1,
    short_side: SHORT_SIDE = None,
    max_pixels: MAX_PIXELS = None,
    allow_pickle: PICKLE = False,
    trust_remote_code: TRUST = False,
    verbose: VERBOSE = False,
) -> "EngineSpec":
    """The engine selected by these options."""
    from omniq_verl.generation.spec import EngineSpec

    set_up_logs(verbose)
    reject_idle(dict.fromkeys(_IDLE.get(engine, ()), f"with --engine {engine}"))
    spec = EngineSpec(
        model,
        engine,
        base_url,
        max_model_len,
        dtype,
        memory,
        devices,
        short_side=short_side,
        max_pixels=max_pixels,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    print_checkpoint(model, spec)
    return spec


def print_checkpoint(given: str | None, spec: "EngineSpec") -> None:
    """Print which checkpoint of a training run is used, and why."""
    from omniq_verl.generation.run_folder import find_checkpoint

    if given and os.path.expanduser(given) != spec.model and (found := find_checkpoint(os.path.expanduser(given))):
        typer.echo(f"model: {found.folder} ({found.why} of {given})", err=True)


_IDLE = {
    "vllm": ("base_url",),
    "hf": ("base_url", "memory", "devices"),
    "openai": (
        *("max_model_len", "dtype", "memory", "devices", "short_side", "max_pixels"),
        *("allow_pickle", "trust_remote_code"),
    ),
}
"""Options without effect, by engine; one of the user's own is given all of them."""
OF_ENGINES = (
    *("engine", "base_url", "max_model_len", "dtype", "memory", "devices", "short_side", "max_pixels"),
    *("allow_pickle", "trust_remote_code"),
)
"""What has an effect only where there is a model to ask."""


def reject_idle_sampling(samples: int, temperature: float, takes_temperature: bool = True) -> None:
    """Reject options that have no effect on a single greedy answer.

    Args:
        samples: answers for each question.
        temperature: temperature of the answers.
        takes_temperature: whether a single answer is sampled if a temperature is given.
    """
    greedy = "with one greedy answer (--samples 1)" if samples == 1 and temperature == 0 else None
    reject_idle({"seed": greedy, "temperature": None if takes_temperature else greedy})


def options_of(make: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that replaces the first parameter of a command by the options of ``make``, and passes its result."""
    shared = inspect.signature(make).parameters

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        first, *own = inspect.signature(command).parameters.values()

        @functools.wraps(command)
        def with_options(**values: Any) -> Any:
            with cli_errors():
                made = make(**{name: values.pop(name) for name in shared})
            return command(**{first.name: made}, **values)

        every = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *shared.values())]
        with_options.__signature__ = inspect.Signature(every)  # pyright: ignore[reportAttributeAccessIssue]  no stub
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        return with_options

    return decorate


asks_a_model = options_of(engine_spec)
"""Decorates a command whose first parameter is an ``EngineSpec``."""
