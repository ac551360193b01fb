"""``omniq demo``: a page to try a model in a browser."""

import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.logs import set_up_logs

if TYPE_CHECKING:
    from rich.console import Console

    from omniq_verl.serving.settings import ServerSettings

    _Serve = Callable[[ServerSettings, int, Console, Callable[[], None]], None]

HOST = "127.0.0.1"
_SECONDS = 600.0
"""Time limit of a question: transformers on a CPU takes minutes for a long answer."""


def demo(
    model: Annotated[str, typer.Option(help="Hugging Face folder or name, or a training run's folder.")],
    engine: Annotated[str, typer.Option(help="hf (transformers) or vllm.")] = "hf",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    max_model_len: options.LENGTH = None,
    max_tokens: options.MAX_TOKENS = 1024,
    scale: options.SCALE = None,
    mode: options.SERVED_MODE = None,
    family: options.FAMILY = None,
    dtype: options.DTYPE = "auto",
    memory: options.MEMORY = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    allow_pickle: options.PICKLE = False,
    trust_remote_code: options.TRUST = False,
    verbose: options.VERBOSE = False,
) -> None:
    """Try a model in a browser: drop one or two images on a page, and see scores, reasoning and the comparison.

    Example: omniq demo --model runs/stage2; the page is at http://127.0.0.1:8000/demo

    Only this machine is answered. The same page is part of `omniq serve`.
    """
    from omniq_verl.families.find import as_family
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.serving.limits import Limits
    from omniq_verl.serving.settings import IMAGES, ServerSettings
    from omniq_verl.tasks import scale_of

    set_up_logs(verbose)
    reject_idle({"memory": None if engine == "vllm" else f"with --engine {engine}"})
    with cli_errors() as console:
        if engine not in ("hf", "vllm"):
            raise ValueError(f"unknown engine {engine!r}. Fix: use hf or vllm")
        trust: dict[str, Any] = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
        size = {"max_model_len": max_model_len, "dtype": dtype, "memory": memory}
        spec = EngineSpec(model, engine, images=IMAGES, **size, **trust)
        limits = Limits(seconds=_SECONDS)
        found = None
        if family is not None:
            spec, found = as_family(spec, None if family == "auto" else family)
        own = {"max_tokens": max_tokens, "scale": scale_of(scale), "family": found, "mode": mode}
        settings = ServerSettings(spec, limits=limits, local=True, **own)
        settings.check_modes()
        spec.check()
        options.print_checkpoint(model, spec)
        serve = _served_by(engine)

        def started() -> None:
            url = f"http://{HOST}:{port}/demo"
            console.print(f"ready: {url}", soft_wrap=True, markup=False)
            if open_page:
                webbrowser.open(url)

        serve(settings, port, console, started)


def _served_by(engine: str) -> "_Serve":
    """Return the function that serves a model: transformers runs in this process, vLLM as in ``omniq serve``.

    Raises:
        ValueError: a package that the server needs is not installed.
    """
    try:
        return _serve_by_ray() if engine == "vllm" else _serve_here()
    except ImportError as error:
        raise ValueError(f"{error}. Fix: pip install 'omniq-verl[serve]'") from error


def _serve_by_ray() -> "_Serve":
    from omniq_verl.serving.haproxy import prefer_haproxy

    prefer_haproxy()  # before Ray Serve is imported
    from omniq_verl.serving.run import serve_forever

    return lambda settings, port, console, started: serve_forever(settings, HOST, port, console, started=started)


def _serve_here() -> "_Serve":
    from omniq_verl.serving.in_process import in_process_app, run_app
    from omniq_verl.serving.ports import check_free

    def serve(settings: "ServerSettings", port: int, console: "Console", started: Callable[[], None]) -> None:
        check_free(HOST, port)  # before the model is loaded
        run_app(in_process_app(settings), HOST, port, started)

    return serve
